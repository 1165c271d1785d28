"""Real models learn real data of each task through the operator, and answer rows that they have not seen.

The cases are those of docs/results.md with fewer rows and passes. Mails and chats have tests of their own (test_05).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from examples import data
from scripts.real_cases import CASES, write_rows

from finetune_api.tasks import TASKS

from .conftest import BUCKET, Place
from .runs import RESOURCES
from .storage import ACCESS_KEY, SECRET_KEY

SEED = 1
LOWER_IS_BETTER = {"perplexity"}


@dataclass(frozen=True)
class Less:
    """How much of a case is done, and the score on test rows that shows that something was learned: far above what
    a constant answer gets, and not so near to what was measured that another machine would miss it.
    """

    rows: int
    test: int
    epochs: int
    score: float


LESS = {
    "sentiment": Less(1200, 400, 2, 0.8),
    "sections": Less(2000, 500, 3, 0.45),
    "tags": Less(2000, 500, 3, 0.4),
    "ratings": Less(1200, 400, 2, 0.6),
    "tweets": Less(1200, 400, 5, 0.25),
    "questions": Less(800, 300, 2, 0.6),
    "descriptions": Less(2000, 300, 1, 600),
    "sections-adapted": Less(600, 500, 5, 0.6),
    "clothes-first": Less(8000, 1000, 6, 0.6),
    "clothes-tuned": Less(1000, 1000, 10, 0.6),
}
AFTER_ONE_ANOTHER = [
    *((name,) for name in LESS if not CASES[name].after and name not in {CASES[each].after for each in LESS}),
    *((CASES[name].after, name) for name in LESS if CASES[name].after),
]
"""A job that starts from another's output comes after it."""


def test_each_task_meets_real_data() -> None:
    elsewhere = {"causal-lm"}
    assert {CASES[name].task for name in LESS} | elsewhere == set(TASKS)


@pytest.mark.nightly
@pytest.mark.parametrize("names", AFTER_ONE_ANOTHER, ids="-".join)
def test_real_models_learn_real_data_of_each_task(names: tuple[str, ...], place: Place, tmp_path: Path) -> None:
    for name in names:
        status = learned(name, place, tmp_path / name)
        metric, value = CASES[name].metric, status["test"][CASES[name].metric]
        seconds = status["attempts"][0].get("seconds")
        kinds = [verdict["kind"] for verdict in status["verdicts"]]
        print(f"{name}:", json.dumps({metric: round(value, 4), "verdicts": kinds, "seconds": seconds}))
        least = LESS[name].score
        assert value <= least if metric in LOWER_IS_BETTER else value >= least
        assert status["data"]["testRows"] == answered(name, place, tmp_path / name)


def learned(name: str, place: Place, folder: Path) -> dict[str, Any]:
    """Put the case's rows and model into the storage, and wait for its job; the status at the end."""
    less = LESS[name]
    case = replace(CASES[name], rows=less.rows, test=less.test)
    prefix = f"real/{name}"  # the order of rows hangs on where they lie: the same in every run
    try:
        rows = write_rows(case, folder / "rows")
        if not case.after:
            place.storage.put_folder(BUCKET, f"{prefix}/model", case.base(SEED))
    except data.Unavailable as error:
        pytest.skip(str(error))
    place.storage.put_folder(BUCKET, f"{prefix}/rows", folder / "rows")
    here, there = (folder / "rows").as_uri(), f"s3://{BUCKET}/{prefix}/rows"
    job = place.job(
        name,
        task=case.task,
        model__uri=f"s3://{BUCKET}/{place.output(case.after) if case.after else f'{prefix}/model'}",
        data=json.loads(json.dumps(rows).replace(here, there)),
        method=dict(case.method),
        training=dict(case.training) | {"epochs": less.epochs, "seed": SEED},
        workers={"replicas": 2, "resources": RESOURCES},
    )
    return job.wait_succeeded(900)


def answered(name: str, place: Place, folder: Path) -> int:
    """How many of the test rows `finetune predict` answers by the output, as it lies in the storage."""
    (rows,) = (folder / "rows").glob("test.*")
    answers = folder / "answers.jsonl"
    subprocess.run(
        (
            *(str(Path(sys.executable).with_name("finetune")), "predict"),
            *(f"s3://{BUCKET}/{place.output(name)}", str(rows), "-o", str(answers)),
            *("--endpoint", place.storage.outside, "--path-style"),
        ),
        env=os.environ | {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
        check=True,
        timeout=300,
    )
    return sum("prediction" in json.loads(line) for line in answers.read_text().splitlines())
