"""Folders whose names a URI must encode: model, data and output are found there, read back, and read again."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

from finetune_api.exits import Reason
from support.attempts import Bench
from support.models import mails, write_jsonl


def test_a_run_in_a_folder_with_a_space_a_hash_and_a_percent_sign(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my run #1, 50%20 off"
    write_jsonl(folder / "data" / "train 100%.jsonl", mails(40, seed=1))
    shutil.copytree(bert, folder / "model")
    checkpoints = {"everySteps": 1, "keepLast": 1}
    bench = Bench(
        folder,
        {
            "training": {"maxSteps": 4, "globalBatchSize": 8},
            "checkpoints": checkpoints,
            "data": {
                "train": {"uri": (folder / "data" / "train 100%.jsonl").as_uri()},
                "validation": {"fraction": 0.2},
            },
        },
    )
    bench.prepare()
    calls = itertools.count()
    stopped = bench.failing(1, lambda: next(calls) > 2)
    assert stopped.reason is Reason.INTERRUPTED
    report = bench.attempt(2)
    assert report.resumed_from_step is not None
    assert report.output is not None
    assert report.output.uri == (folder / "out").as_uri()
    assert (folder / "out" / "model.safetensors").exists()
