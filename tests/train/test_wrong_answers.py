"""The most wrong answers of every task: the rows that the output's own answers are worst on, named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch

from finetune_api.families import DECODER, ENCODER
from finetune_api.tasks import TASKS
from finetune_trainer.evaluate.squad import scores
from finetune_trainer.model.load import load_model
from finetune_trainer.storage import location
from finetune_trainer.stream import Stream, load_profile
from finetune_trainer.tasks.base import JobFacts
from finetune_trainer.tasks.registry import task_for
from matrix import rows
from support.attempts import Bench
from support.models import mails, write_jsonl
from support.zoo import BARE, folder_of

Rows = list[dict[str, Any]]
Kinds = dict[str, Rows]


def bench(folder: Path, task: str, data: dict[str, Any], **more: Any) -> Bench:
    """A job that learns next to nothing, so that much is wrong."""
    info, head = TASKS[task], task_for(task).head
    family = "bert" if ENCODER in info.kinds else "llama" if DECODER in info.kinds else "vit"
    spec = {
        "task": task,
        "model": {"uri": folder_of(family, BARE if head.is_new else head.auto_class).as_uri()},
        "data": data,
        "method": {"type": "full"},
        "training": {"maxSteps": 1, "globalBatchSize": 8, "learningRate": 1e-6}
        | ({"maxLength": 40} if family != "vit" else {}),
        "evaluation": {"wrongAnswers": 8},
        "output": {"uri": (folder / "out").as_uri()},
    }
    found = Bench(folder, spec | more)
    found.prepare()
    return found


def errors(made: Bench) -> Rows:
    return [json.loads(line) for line in (made.folder / "out" / "errors.jsonl").read_text().splitlines()]


def spread_out(path: Path) -> None:
    """Blank lines before every third row, and a bad row at the front: lines are not numbers of rows."""
    lines = path.read_text().splitlines()
    with_gaps = [part for n, line in enumerate(lines) for part in ([""] * (n % 3 == 0) + [line])]
    path.write_text("\n".join(['{"odd": 1}', *with_gaps]) + "\n")


@pytest.mark.parametrize("task", TASKS)
def test_the_worst_answers_of_a_task_are_listed_with_their_rows(task: str, tmp_path: Path) -> None:
    uri = rows.write(tmp_path, task, 96, 1)
    source = Path(unquote(urlsplit(uri).path))
    if source.is_file():
        spread_out(source)
    data = {"train": {"uri": uri}, "validation": {"fraction": 0.1}, "test": {"fraction": 0.4}, "maxBadRows": 1}
    made = bench(tmp_path / "job", task, data)
    given = held_out(made)
    made.attempt()
    found, out = errors(made), tmp_path / "job" / "out"
    assert found
    kinds = {kind: [each for each in found if each["kind"] == kind] for kind in {each["kind"] for each in found}}
    assert all(len(listed) <= 8 for listed in kinds.values())
    columns = load_profile(location(made.config().output.uri, None))[1].columns
    card, page = (out / "README.md").read_text(), (out / "report.html").read_text()
    assert "errors.jsonl" in card
    assert "Most wrong answers" in page
    for each in found:
        assert each["split"] == "test"
        if source.is_file():
            assert each["file"] == uri
            row = json.loads(source.read_text().splitlines()[each["line"] - 1])
            asked = row[columns.get("text") or columns.get("prompt") or columns.get("tokens") or columns["question"]]
            asked = asked if isinstance(asked, str) else asked[0]
            assert asked in each["text"]
            assert len(each["text"]) < 12 or each["text"] not in card
        else:
            assert each["file"].endswith((".jpg", ".png", ".webp"))
            assert Path(unquote(urlsplit(each["file"]).path)).parent.name == each["true"]
    CHECKS[task](made, given, kinds)


def held_out(made: Bench) -> Rows:
    """In their order; read before the job's own copy is swept."""
    config = made.config()
    with Stream(config, *load_profile(location(config.output.uri, None)), "test") as stream:
        return list(stream.rows())


def answered(made: Bench, given: Rows) -> Rows:
    """The answers of what was written to these rows."""
    config, out = made.config(), made.folder / "out"
    _, profile = load_profile(location(config.output.uri, None))
    task = task_for(config.task)
    stored = json.loads((out / "task.json").read_text())
    processor = task.processor.load(out, None)
    model = load_model(out, task.head, labels=stored["labels"] or None, seed=0, pad_id=processor.pad_id).eval()
    facts = JobFacts(profile.columns, stored["labels"], settings=task.defaults)
    with torch.inference_mode():
        return task.predict(model, given, facts, stored["decision"], processor, stored["maxLength"])


def check_classes(made: Bench, given: Rows, kinds: Kinds) -> None:
    answers = answered(made, given)
    wrong = [a["score"] for row, a in zip(given, answers, strict=True) if a["label"] != row["label"]]
    for kind in ("certain", "unlikely"):  # the same of two classes
        certainties = [each["certainty"] for each in kinds[kind]]
        assert certainties == pytest.approx(sorted(wrong, reverse=True)[:8], abs=1e-4)
    for each in kinds["certain"]:
        assert each["true"] != each["predicted"]
        said = answers[[row["text"] for row in given].index(each["text"])]
        assert (said["label"], said["score"]) == (each["predicted"], pytest.approx(each["certainty"], abs=1e-4))


def check_several(made: Bench, given: Rows, kinds: Kinds) -> None:
    answers = answered(made, given)
    by_text = {row["text"]: (row, answer) for row, answer in zip(given, answers, strict=True)}
    for each in [*kinds.get("invented", ()), *kinds.get("missed", ())]:
        row, answer = by_text[each["text"]]
        name = each["predicted"].removeprefix("not ")
        assert (name in answer["labels"], name in row["labels"]) == ((True, False), (False, True))[
            each["kind"] == "missed"
        ]
        assert each["share"] == pytest.approx(answer["scores"][name], abs=1e-4)


def check_numbers(made: Bench, given: Rows, kinds: Kinds) -> None:
    answers = answered(made, given)
    missed = sorted((abs(a["score"] - row["score"]) for row, a in zip(given, answers, strict=True)), reverse=True)
    assert [abs(each["off by"]) for each in kinds["off"]] == pytest.approx(missed[:8], abs=1e-4)
    for each in kinds["off"]:
        assert float(each["predicted"]) - float(each["true"]) == pytest.approx(each["off by"], abs=1e-4)


def check_entities(made: Bench, given: Rows, kinds: Kinds) -> None:
    counts = [each["wrong or missed"] for each in kinds["wrong"]]
    assert counts == sorted(counts, reverse=True)
    for each in kinds["wrong"]:
        named = [part for part in (*each["true"].split("; "), *each["predicted"].split("; ")) if part != "(nothing)"]
        assert len(named) == each["wrong or missed"]
        assert all(part.rpartition(" (")[0] in each["text"] for part in named)


def check_answers(made: Bench, given: Rows, kinds: Kinds) -> None:
    answers = answered(made, given)
    f1s = []
    for row, answer in zip(given, answers, strict=True):
        f1s.append(scores(answer["answer"], row["answers"]["text"])[1])
    assert [each["F1"] for each in kinds["wrong"]] == pytest.approx(sorted(f for f in f1s if f < 1)[:8], abs=1e-4)
    for each in kinds["wrong"]:
        said, true = (("" if each[name] == "(no answer)" else each[name]) for name in ("predicted", "true"))
        assert scores(said, true.split(" | ") if true else [])[1] == pytest.approx(each["F1"], abs=1e-4)


def check_images(made: Bench, given: Rows, kinds: Kinds) -> None:
    shown = [each["certainty"] for each in kinds["certain"]]
    assert shown == sorted(shown, reverse=True)
    page = (made.folder / "out" / "report.html").read_text().partition("Most wrong answers")[2]
    assert page.count('<figure class="picture wrong"') == len(shown)
    assert page.count("data:image/jpeg;base64,") == len(shown)


def check_losses(made: Bench, given: Rows, kinds: Kinds) -> None:
    losses = [each["loss a token"] for each in kinds["surprising"]]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > made.metrics()["test"]["loss"] > 0


CHECKS = {
    "text-classification": check_classes,
    "multi-label-classification": check_several,
    "text-regression": check_numbers,
    "token-classification": check_entities,
    "question-answering": check_answers,
    "image-classification": check_images,
    "causal-lm": check_losses,
    "masked-lm": check_losses,
}


def test_without_test_rows_the_validation_rows_are_looked_at_and_with_0_nothing_is(tmp_path: Path) -> None:
    table = "text,label\n" + "".join(f'"{row["text"]}\nand a line",{row["label"]}\n' for row in mails(60, 1))
    (tmp_path / "mails.csv").write_text(table)
    data = {"train": {"uri": (tmp_path / "mails.csv").as_uri()}, "validation": {"fraction": 0.4}}
    made = bench(tmp_path / "some", "text-classification", data)
    report = made.attempt()
    assert report.test is None
    found, lines = errors(made), table.splitlines()
    assert {each["split"] for each in found} == {"validation"}
    for each in found:
        assert each["line"] == 2 * each["row"], "a row has two lines, and the header one"
        assert lines[each["line"] - 1].strip('"') == each["text"].splitlines()[0]
    confusion = np.array(made.metrics()["confusion"])
    assert confusion.sum() == made.metrics()["data"]["validationRows"]
    assert len({each["row"] for each in found if each["kind"] == "certain"}) == min(
        8, confusion.sum() - confusion.trace()
    )
    none = bench(tmp_path / "none", "text-classification", data, evaluation={"wrongAnswers": 0})
    none.attempt()
    assert not (tmp_path / "none" / "out" / "errors.jsonl").exists()
    for name in ("README.md", "report.html"):
        text = (tmp_path / "none" / "out" / name).read_text()
        assert "errors.jsonl" not in text
        assert "Most wrong" not in text


def test_texts_cannot_break_the_page(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    train = write_jsonl(tmp_path / "train.jsonl", [{"text": f"{n} {evil}", "label": "ab"[n % 2]} for n in range(40)])
    made = bench(tmp_path / "job", "text-classification", {"train": {"uri": train.as_uri()}, "test": {"fraction": 0.5}})
    made.attempt()
    assert any(evil in each["text"] for each in errors(made))
    page = (tmp_path / "job" / "out" / "report.html").read_text()
    assert evil not in page
    assert "&lt;script&gt;" in page
