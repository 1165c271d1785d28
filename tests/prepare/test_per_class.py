"""A few rows of each class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from prepare.drawn import HELD, config, content, findings, mails, rows_of, split_contents
from support.rows import write


def test_so_many_rows_of_each_class_are_learned_from_and_the_rest_is_left(folder: Path, run: Any) -> None:
    write(folder / "data", "a.jsonl", mails())
    plain = config(folder, **HELD)
    run(plain)
    held = split_contents(plain, "validation", "test")
    digests, drawn = set(), []
    for seed in (None, 1):
        train = {"perClass": 12} | ({} if seed is None else {"seed": seed})
        job = config(folder, train=train, **HELD)
        job = job.model_copy(update={"output": job.output.model_copy(update={"uri": f"{folder.as_uri()}/few-{seed}"})})
        profile = run(job)
        rows = rows_of(job, "train")
        news = Counter(row["label"] for row in rows)["news"]
        assert Counter(row["label"] for row in rows) == {"ham": 12, "spam": 12, "news": news}
        assert news < 20
        assert len({content(row) for row in rows}) == profile.data.train_rows == len(rows)
        assert split_contents(job, "validation", "test") == held, "whatever is drawn of the others"
        found = findings(profile)
        left = 220 - profile.data.validation_rows - profile.data.test_rows
        drawn_of = f"data.train.perClass draws {len(rows)} of the {left} training rows."
        assert found["UnusedRows"] == f"{left - len(rows)} rows are left unused: {drawn_of}"
        if news < 12:
            assert f"fewer: 'news' ({news})" in found["FewRows"]
        assert profile.label_counts == tuple(
            Counter(row["label"] for row in rows)[name] for name in profile.labels or ()
        )
        digests.add(profile.digest)
        drawn.append({content(row) for row in rows})
    assert len(digests) == 2
    assert drawn[0] != drawn[1]


def test_a_class_with_fewer_rows_gives_all_of_them(folder: Path, run: Any) -> None:
    rows = [{"text": f"{label} {n}", "label": label} for label, count in (("a", 30), ("b", 3)) for n in range(count)]
    write(folder / "data", "a.jsonl", rows * 2)
    job = config(folder, train={"perClass": 8})
    found = findings(run(job))
    assert (
        "data.train.perClass asks for 8 rows of each class, and of these there are fewer: 'b' (3)." in found["FewRows"]
    )
    assert Counter(row["label"] for row in rows_of(job, "train")) == {"a": 8, "b": 3}
    assert "Duplicates" not in found
