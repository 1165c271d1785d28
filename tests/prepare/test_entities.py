"""Rows of entities: what is wrong with one is said with its file, its line and what to do; what the labels are is
decided once.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from finetune_api.exits import JobError, Reason
from support.entities import LABELS, marked, tagged
from support.families import seeded
from support.jobs import job_config
from support.models import write_jsonl

TASK = "token-classification"
GOOD = {"tokens": ["Ann", "sees", "Bonn"], "tags": ["B-PER", "O", "B-LOC"]}
TEXT = {"text": "Ann sees  Bonns", "spans": [{"start": 0, "end": 3, "label": "PER"}]}


def span(start: Any, end: Any, label: Any = "LOC", **more: Any) -> dict[str, Any]:
    return {"text": TEXT["text"], "spans": [{"start": start, "end": end, "label": label} | more]}


def refused(folder: Path, run: Any, *rows: dict[str, Any], **spec: Any) -> JobError:
    write_jsonl(folder / "data" / "a.jsonl", rows)
    error: JobError = run.refused(job_config(folder, task=TASK, **spec))
    return error


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "has 2 words and 1 tags; give each word one tag"),
        ({"tokens": ["a"], "tags": None}, "column 'tags' is missing or null; give it a list of tags"),
        ({"tokens": None, "tags": ["O"]}, "column 'tokens' is missing or null; give it a list of words"),
        ({"tokens": "a b", "tags": ["O"]}, "column 'tokens' holds text that is no JSON list; write a list of words"),
        ({"tokens": ["a"], "tags": "O"}, "column 'tags' holds text that is no JSON list; write a list of tags"),
        ({"tokens": {"a": 1}, "tags": ["O"]}, "column 'tokens' holds dict"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "holds null as word 1, not text"),
        ({"tokens": [1], "tags": ["O"]}, "holds int as word 0, not text; write each word as a string"),
        ({"tokens": ["a"], "tags": [None]}, "holds null as tag 0; write O where"),
        ({"tokens": ["a"], "tags": [" "]}, "holds an empty text as tag 0"),
        ({"tokens": ["a"], "tags": [True]}, "holds bool as tag 0"),
        ({"tokens": ["a"], "tags": [3]}, "holds the number 3 as tag 0, and the data set has no names for its numbers"),
        ({"tokens": ["a", "b"], "tags": ["B-PER", "PER"]}, "tag 1 is 'PER', without a prefix, beside tags with one"),
        ({"tokens": ["a"], "tags": ["B-"]}, "tag 0 is 'B-', which names no type"),
    ],
)
def test_a_bad_row_of_words_is_named(folder: Path, run: Any, bad: dict[str, Any], says: str) -> None:
    error = refused(folder, run, GOOD, GOOD, bad)
    assert error.reason is Reason.INVALID_DATA
    assert "data/a.jsonl:3: " in error.message
    assert says in error.message


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"text": None, "spans": []}, "column 'text' is missing or null"),
        ({"text": "a", "spans": None}, "column 'spans' is missing or null; give it [{\"start\": 0"),
        ({"text": "a", "spans": "PER"}, "column 'spans' holds text that is no JSON list"),
        ({"text": "a", "spans": [5]}, "span 0: is int; write the spans as"),
        ({"text": "a", "spans": [{"start": 0, "label": "X"}]}, "span 0: has no end; write the spans as"),
        (span("0", 3), "start is '0' and end is 3; write both as whole numbers"),
        (span(0, 3, ""), "label is ''; name the type"),
        (span(0, 3, "O"), "label is 'O'; name the type"),
        (span(0, 3, 7), "label is 7; name the type"),
        (span(3, 3), "3 to 3 does not lie in the text, which has 15 characters"),
        (span(-1, 3), "-1 to 3 does not lie in the text"),
        (span(10, 16), "10 to 16 does not lie in the text, which has 15 characters; count characters from 0"),
        (span(8, 10), "8 to 10 is white space only"),
        (span(10, 14, text="onns"), "10 to 14 is 'Bonn', and the span says 'onns'; count characters (not bytes)"),
        (
            {"text": TEXT["text"], "spans": [[0, 8, "PER"], [4, 14, "LOC"]]},
            "spans 0 to 8 (PER) and 4 to 14 (LOC) overlap; keep one",
        ),
        (
            {"text": TEXT["text"], "spans": [[12, 15, "LOC"], [10, 12, "PER"]]},
            "spans 'Bo' (PER) and 'nns' (LOC) share a word, which can be of one entity only",
        ),
    ],
)
def test_a_bad_row_of_spans_is_named(folder: Path, run: Any, bad: dict[str, Any], says: str) -> None:
    error = refused(folder, run, TEXT, TEXT, bad)
    assert error.reason is Reason.INVALID_DATA
    assert "data/a.jsonl:3: " in error.message
    assert says in error.message


def test_bad_rows_within_the_allowance_are_left_out_and_counted(folder: Path, run: Any) -> None:
    rows = [*tagged(20), {"tokens": ["a"], "tags": []}, *tagged(20, seed=2)]
    write_jsonl(folder / "data" / "a.jsonl", rows)
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "maxBadRows": 1}
    profile = run(job_config(folder, task=TASK, data=data))
    assert (profile.data.train_rows, profile.data.bad_rows, profile.bad) == (40, 1, {"train": {0: (20,)}})


SCHEMES = {
    "IOB2": {},
    "IOB1": {"B-PAPER": "I-PAPER", "B-PRIZE": "I-PRIZE"},  # entities never touch here
    "IOBES": {"B": "S", "last": "E"},
    "BILOU": {"B": "U", "last": "L"},
}


def in_scheme(tags: list[str], scheme: str) -> list[str]:
    """The same entities in another scheme."""
    found = []
    for n, tag in enumerate(tags):
        goes_on = n + 1 < len(tags) and tags[n + 1].startswith("I-")
        kinds = SCHEMES[scheme]
        if "last" in kinds and not goes_on and tag != "O":
            tag = (kinds["B"] if tag[0] == "B" else kinds["last"]) + tag[1:]
        found.append(kinds.get(tag, tag))
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_outputs_are_the_same_whatever_the_rows_have(folder: Path, run: Any, scheme: str) -> None:
    rows = tagged(40)
    write_jsonl(folder / "data" / "a.jsonl", [{**row, "tags": in_scheme(row["tags"], scheme)} for row in rows])
    profile = run(job_config(folder, task=TASK))
    assert profile.labels == LABELS
    assert profile.columns == {"tokens": "tokens", "tags": "tags"}
    assert profile.data.findings == ()


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        (["PRIZE", "PAPER"], ("O", "B-PRIZE", "I-PRIZE", "B-PAPER", "I-PAPER")),
        (["B-PRIZE", "S-PAPER"], ("O", "B-PRIZE", "I-PRIZE", "B-PAPER", "I-PAPER")),
        (["I-PAPER", "B-PAPER", "O", "B-PRIZE", "I-PRIZE"], ("I-PAPER", "B-PAPER", "O", "B-PRIZE", "I-PRIZE")),
    ],
)
@pytest.mark.parametrize("rows", [tagged(30), marked(30)], ids=["words", "text"])
def test_labels_name_types_or_tags(
    folder: Path, run: Any, rows: list[dict[str, Any]], labels: list[str], outputs: tuple[str, ...]
) -> None:
    write_jsonl(folder / "data" / "a.jsonl", rows)
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "labels": labels}
    assert run(job_config(folder, task=TASK, data=data)).labels == outputs
    other = "B-OTHER" if "tags" in rows[0] else "OTHER"
    row = {"tokens": ["a"], "tags": ["B-OTHER"]} if "tags" in rows[0] else {"text": "a", "spans": [[0, 1, "OTHER"]]}
    write_jsonl(folder / "data" / "a.jsonl", [*rows, row])
    out = {"uri": (folder / "out2").as_uri()}
    error = run.refused(job_config(folder, job_id="job-2", task=TASK, data=data, output=out))
    assert f"a.jsonl:31: class {other!r} is not among the labels" in error.message


def test_plain_tags_stay_as_they_are(folder: Path, run: Any) -> None:
    rows = [{"words": ["it", "runs", "O"], "pos_tags": ["PRON", "VERB", "O"]}, {"words": ["O"], "pos_tags": ["O"]}]
    write_jsonl(folder / "data" / "a.jsonl", rows * 9)
    profile = run(job_config(folder, task=TASK))
    assert profile.labels == ("O", "PRON", "VERB")
    assert profile.columns == {"tokens": "words", "tags": "pos_tags"}
    assert profile.label_counts == (18, 9, 9)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"tokens": ["a"], "tags": ["O"]}] * 3, "no training row has an entity (column 'tags')"),
        ([{"text": "a", "spans": []}] * 3, "no training row has an entity (column 'spans')"),
        ([{"tokens": ["a"], "tags": ["X"]}] * 3, "all words have the tag 'X' (column 'tags')"),
        ([GOOD, {"tokens": ["a"], "tags": ["NOUN"]}], "have tags with a prefix ('B-LOC'), and others without ('NOUN')"),
    ],
)
def test_labels_of_which_nothing_can_be_made_are_refused(
    folder: Path, run: Any, rows: list[dict[str, Any]], says: str
) -> None:
    error = refused(folder, run, *rows)
    assert error.reason is Reason.INVALID_DATA
    assert says in error.message
    assert error.field in ("spec.data.columns.tags", "spec.data.columns.spans")


def test_numbers_go_by_the_data_sets_names(folder: Path, run: Any) -> None:
    names = ["O", "B-PRIZE", "I-PRIZE", "B-PAPER", "I-PAPER"]
    rows = [{"tokens": row["tokens"], "ner_tags": [names.index(tag) for tag in row["tags"]]} for row in tagged(30)]
    kind = {"_type": "List", "feature": {"_type": "ClassLabel", "names": names}}
    told = {b"huggingface": json.dumps({"info": {"features": {"ner_tags": kind}}}).encode()}
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table.replace_schema_metadata(told), folder / "data" / "a.parquet")
    profile = run(job_config(folder, task=TASK))
    assert profile.labels == tuple(names)
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "labels": ["PAPER", "PRIZE"]}
    other = run(job_config(folder, job_id="job-2", task=TASK, data=data, output={"uri": (folder / "out2").as_uri()}))
    assert other.labels == LABELS


def test_lists_may_be_json_text_as_csv_has_them(folder: Path, run: Any) -> None:
    for name, rows in (("words", tagged(30)), ("texts", marked(30))):
        with (folder / "data" / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({n: v if isinstance(v, str) else json.dumps(v) for n, v in row.items()} for row in rows)
        data = {"train": {"uri": f"{folder.as_uri()}/data/{name}.csv"}}
        out = {"uri": (folder / name).as_uri()}
        assert run(job_config(folder, job_id=name, task=TASK, data=data, output=out)).labels == LABELS


def test_what_is_odd_of_types_and_words_is_found(folder: Path, run: Any) -> None:
    cut = {"text": "Anna", "spans": [[0, 3, "RARE"]]}
    write_jsonl(folder / "data" / "a.jsonl", [*marked(150), cut, {"text": " ", "spans": []}])
    write_jsonl(folder / "held" / "a.jsonl", marked(20, seed=5))
    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "validation": {"uri": f"{folder.as_uri()}/held/*"}}
    profile = run(job_config(folder, task=TASK, data=data, training={"maxLength": 12}))
    found = {finding.kind: finding for finding in profile.data.findings}
    assert [*found] == ["NothingToLearn", "WidenedSpans", "UnjudgedLabel", "Imbalance", "EmptyText"]
    assert "Class 'RARE' has 1 of" in found["Imbalance"].message
    assert "No validation row has the class 'RARE'" in found["UnjudgedLabel"].message
    assert "'Anna' for 'Ann'" in found["WidenedSpans"].message
    assert (found["WidenedSpans"].count, found["WidenedSpans"].line) == (1, 151)
    assert "no word that the tokenizer knows" in found["NothingToLearn"].message


def test_long_rows_are_taken_in_windows_and_it_is_said(folder: Path, run: Any) -> None:
    write_jsonl(folder / "data" / "a.jsonl", tagged(40))
    whole, windows = (
        run(
            job_config(
                folder,
                job_id=str(longest),
                task=TASK,
                training={"maxLength": longest},
                output={"uri": (folder / str(longest)).as_uri()},
            )
        ).data
        for longest in (60, 12)
    )
    assert whole.findings == ()
    (found,) = windows.findings
    assert found.kind == "Windows"
    assert "nothing is cut" in found.message
    assert windows.lengths.truncated_fraction == 0
    assert windows.tokens_per_epoch > 1.2 * whole.tokens_per_epoch, "windows share tokens"


def test_words_that_the_tokenizer_turns_into_nothing_are_counted(folder: Path, run: Any) -> None:
    write_jsonl(folder / "data" / "a.jsonl", [*tagged(9), {"tokens": ["a", "\u200b"], "tags": ["O", "B-PRIZE"]}])
    (found,) = run(job_config(folder, task=TASK)).data.findings
    assert (found.kind, found.count, found.line) == ("UnseenWords", 1, 10)
    assert "count as missed" in found.message


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        ({"words": ["a"], "kind": "x"}, "tags", "no column has a usual name for the tags of the words"),
        ({"text": "a", "kind": "x"}, "spans", "no column has a usual name for the spans"),
        ({"id": 1}, "tokens", "no column has a usual name for words, or for a text"),
    ],
)
def test_columns_that_are_missing_are_named(folder: Path, run: Any, row: dict[str, Any], field: str, says: str) -> None:
    error = refused(folder, run, row, row)
    assert (error.field, error.reason) == (f"spec.data.columns.{field}", Reason.INVALID_DATA)
    assert says in error.message


def test_a_base_that_knows_the_types_goes_on_in_its_order(folder: Path, run: Any) -> None:
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertForTokenClassification

    names = dict(enumerate(["B-PRIZE", "I-PRIZE", "O"]))
    config = BertConfig.from_pretrained(folder / "model", id2label=names, label2id={n: i for i, n in names.items()})
    seeded(BertForTokenClassification, config).save_pretrained(folder / "model")
    write_jsonl(folder / "data" / "a.jsonl", tagged(30))
    profile = run(job_config(folder, task=TASK))
    assert profile.labels == ("B-PRIZE", "I-PRIZE", "O", "B-PAPER", "I-PAPER")
    (found,) = profile.data.findings
    assert "goes on from what it knows of 3 classes. New to it: 'B-PAPER', 'I-PAPER'" in found.message
