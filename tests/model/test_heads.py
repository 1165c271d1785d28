"""A base that was a classifier goes on from what its head knows, class by class, by name; and says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_trainer.model.labels import head_labels, in_their_order, matches
from finetune_trainer.model.load import load_model
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.storage import location
from finetune_trainer.stream import Profile, load_profile
from finetune_trainer.tasks.registry import task_for
from support.attempts import Bench
from support.families import classifier, tiny_roberta
from support.models import mails, write_jsonl


def head(folder: Path, *labels: str, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    pad = load_tokenizer(folder).pad_id
    layer = load_model(folder, task_for("text-classification").head, labels=labels, seed=seed, pad_id=pad).classifier
    return layer.weight.detach(), layer.bias.detach()


def prepared(tmp_path: Path, base: Path) -> Profile:
    """What the prepare step makes of a few mails and this base."""
    train = write_jsonl(tmp_path / "train.jsonl", mails(40, seed=1))
    bench = Bench(
        tmp_path,
        {
            "task": "text-classification",
            "model": {"uri": base.as_uri()},
            "data": {"train": {"uri": train.as_uri()}},
            "output": {"uri": (tmp_path / "out").as_uri()},
        },
    )
    bench.prepare()
    return load_profile(location(bench.config().output.uri, bench.config().storage))[1]


def test_rows_of_the_head_follow_their_names(tmp_path: Path) -> None:
    base = classifier(tmp_path / "base", {0: "spam", 1: "ham"})
    trained = load_file(base / "model.safetensors")
    trained["classifier.bias"][:] = torch.tensor([1.0, 2.0])
    from safetensors.torch import save_file

    save_file(trained, base / "model.safetensors", metadata={"format": "pt"})
    weight = trained["classifier.weight"]
    same, permuted, more, other = (
        head(base, *names) for names in (("spam", "ham"), ("Ham", "spam"), ("ham", "new", "spam"), ("cat", "dog"))
    )
    assert torch.equal(same[0], weight)
    assert torch.equal(permuted[0], weight[[1, 0]])
    assert permuted[1].tolist() == [2.0, 1.0]
    assert torch.equal(more[0][[0, 2]], weight[[1, 0]])
    assert more[1].tolist() == [2.0, 0.0, 1.0]
    assert not torch.isin(other[0], weight).any(), "weights of other classes are nobody's start"
    assert other[1].tolist() == [0.0, 0.0]
    assert torch.equal(head(base, "cat", "dog", seed=1)[0], other[0])
    assert not torch.equal(head(base, "cat", "dog", seed=2)[0], other[0])


def test_unnamed_classes_are_their_numbers() -> None:
    assert matches(("0", "1"), ("LABEL_0", "LABEL_1")) == {0: 0, 1: 1}
    assert matches(("a", "A"), ("a", "b")) == {}, "one name for two"
    assert matches(("cafe\u0301", "tea"), ("caf\u00e9", "Tea ")) == {0: 0, 1: 1}
    assert in_their_order(("a", "b", "c", "d"), ("d", "b")) == ("d", "b", "a", "c")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"architectures": ["BertModel"], "id2label": {"0": "a"}},
        {"architectures": ["BertForSequenceClassification"], "id2label": {"1": "a"}},
    ],
)
def test_what_was_no_classifier_has_no_classes(config: dict[str, object]) -> None:
    assert head_labels(config, task_for("text-classification").head) == ()


@pytest.mark.parametrize(
    ("names", "order", "said"),
    [
        ({0: "spam", 1: "ham"}, ("spam", "ham"), "knows these 2 classes"),
        ({0: "SPAM", 1: "eggs", 2: "HAM"}, ("spam", "ham"), "No longer told apart: 'eggs'"),
        ({0: "cat", 1: "dog"}, ("ham", "spam"), "trained for other classes ('cat', 'dog')"),
    ],
)
def test_the_prepare_step_keeps_the_heads_order_and_says_what_becomes_of_it(
    tmp_path: Path, names: dict[int, str], order: tuple[str, ...], said: str
) -> None:
    base = classifier(tmp_path / "base", names)
    profile = prepared(tmp_path, base)
    assert profile.labels == order
    (finding,) = [f for f in profile.data.findings if f.kind == "TrainedHead"]
    assert said in finding.message


def test_a_base_without_a_trained_head_is_not_spoken_of(tmp_path: Path) -> None:
    base = tiny_roberta(tmp_path / "base")
    profile = prepared(tmp_path, base)
    assert profile.labels == ("ham", "spam")
    assert not [f for f in profile.data.findings if f.kind == "TrainedHead"]
