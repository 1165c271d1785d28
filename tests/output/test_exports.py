"""What an export takes over from its base, and who can read it: transformers 4 and 5, and peft, each in a process of
its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.exits import JobError, Reason
from finetune_api.tuning import Lora, Method
from finetune_trainer.batches.example import IGNORE, ClassExample, TokenExample
from finetune_trainer.methods import METHODS, apply_method
from finetune_trainer.model.load import load_model
from finetune_trainer.output.model import write_model
from finetune_trainer.output.verify import Probe, verify
from finetune_trainer.tasks.ends import learned_ends
from finetune_trainer.tasks.registry import task_for
from support.attempts import Bench
from support.models import chats, mails, tiny_bert, tiny_llama, write_jsonl

ROOT = Path(__file__).parents[2]
IDS = [[7, 8, 9, 10, 11, 12], [30, 31, 32]]
PROBE = Probe(tuple({"input_ids": torch.tensor([ids])} for ids in IDS), torch.device("cpu"))

READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch, transformers, peft
kinds = {"text-classification": "SequenceClassification", "causal-lm": "CausalLM"}
for where, task, how in json.loads(sys.argv[1]):
    if how == "adapter":
        auto, more = getattr(peft, "AutoPeftModelFor" + kinds[task]), {"num_labels": 2} if task != "causal-lm" else {}
    else:
        auto, more = getattr(transformers, "AutoModelFor" + kinds[task]), {}
    model = auto.from_pretrained(where, **more).eval()
    ids = transformers.AutoTokenizer.from_pretrained(where)("meeting report lunch project")["input_ids"]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits.float().flatten()[-2:].tolist()
    print(json.dumps({"version": transformers.__version__, "ids": ids, "logits": logits}))
"""


@pytest.fixture(scope="session")
def transformers_4() -> Path:
    """A folder with an older transformers, which shares torch with this environment."""
    done = subprocess.run(["make", "-s", "transformers-4"], cwd=ROOT, capture_output=True, text=True, check=True)
    return Path(done.stdout.splitlines()[-1])


def job(folder: Path, task: str, model: Path, **spec: Any) -> Bench:
    """A few steps, prepared and made; `out` has the export."""
    rows = chats(40, seed=1) if task == "causal-lm" else mails(40, seed=1)
    train = write_jsonl(folder / "train.jsonl", rows)
    bench = Bench(
        folder,
        {
            "task": task,
            "model": {"uri": model.as_uri()},
            "data": {"train": {"uri": train.as_uri()}},
            "output": {"uri": (folder / "out").as_uri()},
            "training": {"maxSteps": 2, "globalBatchSize": 8, "learningRate": 1e-2, "maxLength": 64},
            **spec,
        },
    )
    bench.prepare()
    return bench


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def as_bf16(folder: Path) -> None:
    """Store the model's weights, and name them, in 16 bits."""
    path = folder / "model.safetensors"
    halves = {name: value.to(torch.bfloat16) for name, value in load_file(path).items()}
    save_file(halves, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))


def tuned_lora(folder: Path, *targets: str, scale: float = 0.5) -> Any:
    """A tiny Llama under an adapter that does something."""
    model = load_model(folder, task_for("causal-lm").head, labels=None, seed=0, pad_id=4)
    model = apply_method(
        model, Method(type="lora", lora=Lora(rank=2, target_modules=targets)), task_for("causal-lm").head, 0
    ).eval()
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=scale)
    return model


def test_tokenizer_files_are_the_bases_byte_for_byte(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    (base / "tokenizer.model").write_bytes(b"\x0a\x0dpieces")
    (base / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}')
    (base / "unrelated.bin").write_bytes(b"no")
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json")
    bench = job(
        tmp_path, "causal-lm", base, method={"type": "lora"}, output={"uri": (tmp_path / "out").as_uri(), "merge": True}
    )
    bench.attempt()
    for folder in (tmp_path / "out", tmp_path / "out" / "merged"):
        for name in names:
            assert (folder / name).read_bytes() == (base / name).read_bytes(), name
        assert not (folder / "unrelated.bin").exists()


@pytest.mark.parametrize("task", ["text-classification", "causal-lm"])
def test_config_and_number_formats_are_the_bases_but_for_what_tuning_changes(tmp_path: Path, task: str) -> None:
    base = tiny_llama(tmp_path / "base") if task == "causal-lm" else tiny_bert(tmp_path / "base")
    as_bf16(base)
    edit(base / "config.json", use_cache=True, rope_theta=1000.0, of_my_own=[1, "é"], transformers_version="4.44.0")
    job(tmp_path, task, base).attempt()
    before, after = (json.loads((f / "config.json").read_text()) for f in (base, tmp_path / "out"))
    learned = {"architectures"} | (
        {"id2label", "label2id", "problem_type"} if task == "text-classification" else set[str]()
    )
    assert {k: v for k, v in after.items() if k not in learned} == {
        k: v for k, v in before.items() if k not in learned | {"_name_or_path"}
    }
    assert after["architectures"] == [
        {"causal-lm": "LlamaForCausalLM", "text-classification": "BertForSequenceClassification"}[task]
    ]
    assert task == "causal-lm" or after["id2label"] == {"0": "ham", "1": "spam"}
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}


def test_a_weight_that_the_base_keeps_wider_stays_wide(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    as_bf16(base)
    weights = load_file(base / "model.safetensors")
    wide = "model.norm.weight"
    save_file(weights | {wide: weights[wide].float()}, base / "model.safetensors", metadata={"format": "pt"})
    job(tmp_path, "causal-lm", base).attempt()
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert {name for name, value in written.items() if value.dtype == torch.float32} == {wide}
    assert written.keys() == weights.keys()


@pytest.mark.parametrize("known", [None, 0, [0, 2]])
def test_generation_stops_at_what_was_learned_as_the_end(tmp_path: Path, known: Any) -> None:
    base = tiny_llama(tmp_path / "base")  # the template ends a turn with <|im_end|>, token 2
    edit(base / "config.json", eos_token_id=0)
    (base / "generation_config.json").unlink(missing_ok=True)
    if known is not None:
        # top_p without sampling: transformers refuses to save it anew
        (base / "generation_config.json").write_text(json.dumps({"eos_token_id": known, "top_p": 0.5}))
    job(tmp_path, "causal-lm", base).attempt()
    said = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert said["eos_token_id"] == ([0, 2] if known == [0, 2] else [2, 0])
    assert said.get("top_p") == (None if known is None else 0.5)
    if known == [0, 2]:
        assert (tmp_path / "out" / "generation_config.json").read_bytes() == (
            base / "generation_config.json"
        ).read_bytes()


def test_the_learned_ends_are_special_tokens_that_no_learned_token_follows() -> None:
    two_turns = TokenExample([5, 6, 2, 5, 7, 2], None, 6, [IGNORE, 6, 2, IGNORE, 7, 2])
    ends_in_text = TokenExample([5, 6, 9], None, 3, [IGNORE, 6, 9])
    cut = TokenExample([5, 0], None, 5, [IGNORE, 0])
    inside = TokenExample([5, 3, 2], None, 3, [IGNORE, 3, 2])
    assert learned_ends([two_turns, ends_in_text, cut, inside], frozenset({0, 2, 3})) == (2,)
    assert learned_ends([ClassExample([5], None, 1, label=1)], frozenset({2})) == ()


@pytest.mark.parametrize(
    "targets", [("q_proj", "lm_head"), ("embed_tokens",), ("lm_head", "embed_tokens"), ("q_proj",)]
)
def test_tied_embeddings_are_parted_only_where_a_merged_adapter_makes_them_differ(
    tmp_path: Path, targets: tuple[str, ...]
) -> None:
    from transformers import AutoModelForCausalLM

    base = tiny_llama(tmp_path / "base")
    model = tuned_lora(base, *targets)
    adapted = PROBE.logits(model)
    write_model(tmp_path / "out", model, base, PROBE, adapter=METHODS["lora"].adapter, base="base", merge=True)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")
    for a, b in zip(adapted, PROBE.logits(merged), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    config = json.loads((tmp_path / "out" / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] is (targets == ("q_proj",))
    assert ("lm_head.weight" in load_file(tmp_path / "out" / "merged" / "model.safetensors")) is (
        targets != ("q_proj",)
    )


@pytest.mark.parametrize("spoiled", ["merging", "writing"])
def test_a_merged_model_that_computes_something_else_is_never_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    bench = job(
        tmp_path,
        "causal-lm",
        tiny_llama(tmp_path / "base"),
        method={"type": "lora", "lora": {"rank": 2}},
        output={"uri": (tmp_path / "out").as_uri(), "merge": True},
    )
    if spoiled == "merging":
        monkeypatch.setattr("peft.tuners.lora.layer.Linear.merge", lambda self, *_, **__: None)
    else:
        from transformers import LlamaForCausalLM

        save = LlamaForCausalLM.save_pretrained

        def spoil(self: Any, *arguments: Any, **keywords: Any) -> None:
            with torch.no_grad():
                self.model.norm.weight[0] += 1e-2
            save(self, *arguments, **keywords)

        monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", spoil)
    error = bench.failing()
    assert error.reason is Reason.UNSUPPORTED_MODEL
    assert "does not compute what the tuned one does" in error.message
    assert error.field == ("spec.output.merge" if spoiled == "merging" else "spec.model.uri")
    assert not (tmp_path / "out" / "result.json").exists()
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_an_answer_that_is_no_number_is_no_equal_answer() -> None:
    nan = [torch.tensor([float("nan"), 1.0])]
    with pytest.raises(JobError):
        verify(nan, nan, "written")
    verify([torch.tensor([1e4, 1.0])], [torch.tensor([1e4 + 0.5, 1.0])], "written")
    with pytest.raises(JobError):
        verify([torch.tensor([0.5, 1.0])], [torch.tensor([0.5, 1.001])], "written")


def test_what_a_job_leaves_is_read_by_transformers_4_and_5_and_by_peft(tmp_path: Path, transformers_4: Path) -> None:
    """Whole, merged and adapter, of both kinds of model; the folder's name has a space, as file:// URIs must be
    decoded.
    """
    cases = []
    for task, make in (("text-classification", tiny_bert), ("causal-lm", tiny_llama)):
        base = make(tmp_path / "my models" / task)
        edit(base / "config.json", rope_theta=10000.0)
        for method in ("full", "lora"):
            folder = tmp_path / f"{task}-{method}"
            output = {"uri": (folder / "out").as_uri()} | ({"merge": True} if method == "lora" else {})
            job(folder, task, base, method={"type": method}, output=output).attempt()
            out = folder / "out"
            cases += (
                [(out, task, "whole")]
                if method == "full"
                else [(out, task, "adapter"), (out / "merged", task, "whole")]
            )
    told: dict[str, list[Any]] = {}
    for version, path in (("5", None), ("4", str(transformers_4))):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
        environment |= {"PYTHONPATH": path} if path else {}
        done = subprocess.run(
            [sys.executable, "-c", READ, json.dumps([[str(out), task, how] for out, task, how in cases])],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, f"transformers {version}: {done.stderr[-2000:]}"
        told[version] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert len(told[version]) == len(cases)
        assert told[version][0]["version"].startswith(f"{version}.")
    for (out, _, how), five, four in zip(cases, told["5"], told["4"], strict=True):
        assert five["ids"] == four["ids"], (out, how)
        assert five["logits"] == pytest.approx(four["logits"], abs=1e-4), (out, how)
    by_place = {out.relative_to(tmp_path).as_posix(): said for (out, _, _), said in zip(cases, told["5"], strict=True)}
    for task in ("text-classification", "causal-lm"):
        adapter, merged = by_place[f"{task}-lora/out"], by_place[f"{task}-lora/out/merged"]
        assert adapter["logits"] == pytest.approx(merged["logits"], abs=1e-4)


def test_the_base_of_an_adapter_is_named_as_peft_can_load_it(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "a base")
    job(tmp_path, "causal-lm", base, method={"type": "lora"}).attempt()
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == str(base)
