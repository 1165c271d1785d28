"""Answers to images: of a folder, also one without classes; of a table of paths; of parquet with bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from predict.conftest import Predict
from support.attempts import Bench
from support.image_families import COLOURS, encoded, image_folder, picture, tiny_vit


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("job")
    tiny_vit(root / "model")
    data = {"train": {"uri": f"{image_folder(root / 'data', 12).as_uri()}/**"}, "test": {"fraction": 0.2}}
    training = {"learningRate": 3e-3, "globalBatchSize": 8, "maxSteps": 24, "schedule": "constant"}
    bench = Bench(root, {"task": "image-classification", "data": data, "training": training})
    bench.prepare()
    bench.attempt()
    return root / "out"


def test_images_are_answered_wherever_they_lie(output: Path, predict: Predict, tmp_path: Path) -> None:
    new = tmp_path / "new"
    (new / "deep").mkdir(parents=True)
    names = [name for name in COLOURS for _ in range(6)]
    paths = [new / ("deep" if n % 2 else "") / f"{n:03}.png" for n in range(len(names))]
    for n, (path, name) in enumerate(zip(paths, names, strict=True)):
        path.write_bytes(encoded(picture(name, 500 + n)))
    plain = predict(output, f"{new.as_uri()}/**")
    assert plain.code == 0
    by_path = {row["image"].rpartition("/")[2]: row["prediction"]["label"] for row in plain.rows}
    right = sum(by_path[path.name] == name for path, name in zip(paths, names, strict=True))
    assert right >= 0.8 * len(names)

    table = tmp_path / "rows.jsonl"
    lines = [{"image": str(path.relative_to(tmp_path)), "id": n} for n, path in enumerate(paths)]
    table.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"image": "new/gone.png", "id": 99}]))
    refused = predict(output, table)
    assert "rows.jsonl:19: names 'new/gone.png', and there is no file://" in refused.said
    named = predict(output, table, max_bad_rows=1)
    assert [row["image"] for row in named.rows] == [line["image"] for line in lines], "rows as they are"
    assert [row["prediction"]["label"] for row in named.rows] == [by_path[path.name] for path in paths]

    rows = [{"image": {"bytes": path.read_bytes(), "path": path.name}, "id": n} for n, path in enumerate(paths)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    held = predict(output, tmp_path / "rows.parquet")
    assert [row["prediction"] for row in held.rows] == [row["prediction"] for row in named.rows]
    assert held.rows[0]["image"] == {"path": "000.png"}, "bytes are not written"


def test_a_broken_image_is_told_by_its_name(output: Path, predict: Predict, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "cut.png").write_bytes(encoded(picture("red", 1))[:200])
    refused = predict(output, folder)
    assert "images/cut.png: is broken or cut off" in refused.said
