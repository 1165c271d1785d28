"""Peak memory of preparing and of streaming a parquet object with one huge row group, against the limit of 1 GiB.

One object of one row group (1 GiB of text uncompressed; `--mib` for another size) is written, surveyed and laid out as
the prepare step does it, then one epoch is streamed in the global order and its held-out rows are read, in processes of
their own whose resident memory is watched. `--groups N` writes N such row groups: they are too many to be copied, and
are read by ranges of rows. One JSON line; memory in MiB. The data is deleted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROW_BYTES = 1000
PART_ROWS = 20_000


def write(path: Path, mib: int, groups: int) -> int:
    """Rows of random words, so that they do not compress to nothing; as one writer of row groups, part by part."""
    import pyarrow
    import pyarrow.parquet

    words = [f"{n:x}" for n in random.Random(1).sample(range(1 << 28), 4096)]
    schema = pyarrow.schema([("text", pyarrow.string()), ("label", pyarrow.string())])
    rows = (mib << 20) // ROW_BYTES
    rng = random.Random(2)
    with pyarrow.parquet.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for _ in range(groups):
            texts = []
            for _ in range(0, rows, PART_ROWS):
                count = min(PART_ROWS, rows - sum(map(len, texts)))
                texts.append(pyarrow.array([" ".join(rng.choices(words, k=ROW_BYTES // 8)) for _ in range(count)]))
            labels = pyarrow.array(["ham" if n % 3 else "spam" for n in range(rows)])
            table = pyarrow.table([pyarrow.chunked_array(texts), labels], schema=schema)
            writer.write_table(table, row_group_size=rows)
    return rows * groups


def config_of(folder: Path) -> Any:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.jobs import job_config

    data = {"train": {"uri": f"{folder.as_uri()}/data/*"}, "validation": {"fraction": 0.01}}
    return job_config(folder, data=data, training={"globalBatchSize": 32})


def prepare(folder: Path) -> None:
    """The prepare step's passes over the data."""
    config = config_of(folder)
    from finetune_api.status import DataProfile
    from finetune_trainer.storage import location
    from finetune_trainer.stream.profile import save_profile
    from support.rows import profiled

    manifest, profile = profiled(config)
    profile = dataclasses.replace(profile, data=DataProfile(manifest_digest=manifest.digest))
    save_profile(location(config.output.uri, config.storage), manifest, profile)


def stream(folder: Path, world: int) -> dict[str, Any]:
    """An epoch of the training rows as one of `world` ranks sees it, and the held-out ones."""
    import itertools

    config = config_of(folder)
    from finetune_trainer.storage import location
    from finetune_trainer.stream import Cursor, Stream
    from finetune_trainer.stream.profile import find_profile

    found = find_profile(location(config.output.uri, config.storage))
    assert found is not None
    manifest, profile = found
    rows = 0
    with Stream(config, manifest, profile, world=world) as train:
        wanted, windows = train.row_count, len(train.windows(0))
        for batch, _ in itertools.takewhile(lambda pair: pair[0].epoch == 0, train.batches(Cursor())):
            rows += batch.size
    assert rows == wanted
    with Stream(config, manifest, profile, "validation") as held_out:
        rows += sum(1 for _ in held_out.rows())
    return {"rows": rows, "windows": windows}


def apart(step: str, folder: Path, *more: str) -> dict[str, Any]:
    """Run a step in a process of its own: what it says, its seconds and its peak memory."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), *more]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said | {"seconds": round(time.perf_counter() - began, 1)}


def measure(mib: int, groups: int, keep: Path | None) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="finetune-parquet-", dir=keep))
    try:
        (folder / "data").mkdir()
        path = folder / "data" / "a.parquet"
        written = apart("write", folder, "--mib", str(mib), "--groups", str(groups))
        prepared, streamed = apart("prepare", folder), apart("stream", folder)
        assert streamed["rows"] == written["rows"]
        return {
            "benchmark": "parquet_memory",
            "row_groups": groups,
            "row_group_mib": mib,
            "stored_mib": path.stat().st_size >> 20,
            "rows": written["rows"],
            "prepare_peak_mib": prepared["peak_mib"],
            "stream_peak_mib": streamed["peak_mib"],
            "limit_mib": 1024,
            "windows": streamed["windows"],
            "prepare_seconds": prepared["seconds"],
            "stream_seconds": streamed["seconds"],
        }
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="uncompressed size of a row group")
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help="where to write the data")
    parser.add_argument("--step", choices=("write", "prepare", "stream"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step is None:
        print(json.dumps(measure(given.mib, given.groups, given.scratch)))
        return
    said: dict[str, Any] = {}
    if given.step == "write":
        said["rows"] = write(given.folder / "data" / "a.parquet", given.mib, given.groups)
    elif given.step == "prepare":
        prepare(given.folder)
    else:
        said = stream(given.folder, 1)
    print(json.dumps(said | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}))


if __name__ == "__main__":
    main()
