"""Folders whose names a URI must encode: model, data and output are found there, read back, and read again."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.attempts import Bench
from support.models import mails, write_jsonl


def test_a_run_in_a_folder_with_a_space_a_hash_and_a_percent_sign(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my run #1, 50%20 off"
    write_jsonl(folder / "data" / "train 100%.jsonl", mails(40, seed=1))
    shutil.copytree(bert, folder / "model")
    checkpoints = {"everySteps": 1, "keepLast": 1}
    bench = Bench(
        folder, {"training": {"maxSteps": 2, "globalBatchSize": 8}, "checkpoints": checkpoints,
                 "data": {"train": {"uri": (folder / "data" / "train 100%.jsonl").as_uri()}, "validation": {"fraction": 0.2}}},
    )  # fmt: skip
    bench.prepare()
    report = bench.attempt()
    assert report.output is not None
    assert report.output.uri == (folder / "out").as_uri()
    assert (folder / "out" / "model.safetensors").exists()
    shutil.rmtree(folder / "out" / "tensorboard")
    (folder / "out" / "result.json").unlink()
    assert bench.attempt(2).resumed_from_step == 2
