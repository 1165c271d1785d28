"""Images in a folder for each class, beside a table of paths, or in parquet: every one is opened before a worker is
asked for, and what is wrong is told by its name.
"""

from __future__ import annotations

import base64
import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from finetune_api.exits import JobError, Reason
from finetune_trainer.prepare.rows import files as opened
from finetune_trainer.storage import location
from finetune_trainer.stream import Stream, load_profile
from finetune_trainer.stream.files import Files
from finetune_trainer.tasks.images.decode import MOST_PIXELS
from support.image_families import COLOURS, encoded, image_folder, picture, tiny_vit
from support.jobs import job_config
from support.s3 import S3Server

CLASSES = tuple(COLOURS)


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vit(tmp_path_factory.mktemp("vit") / "model")


@pytest.fixture
def folder(tmp_path: Path, vit: Path) -> Path:
    """A folder with model/ and data/, eight images of each class."""
    shutil.copytree(vit, tmp_path / "model")
    image_folder(tmp_path / "data")
    return tmp_path


def config(folder: Path, uri: str = "data", **more: Any) -> Any:
    data = {"train": {"uri": f"{folder.as_uri()}/{uri}"}, **more.pop("data", {})}
    return job_config(folder, task="image-classification", data=data, **more)


def streamed(config: Any, split: str = "train") -> list[tuple[str, bytes]]:
    """(class, content) of each row of a split, in file order."""
    manifest, profile = load_profile(location(config.output.uri, config.storage))
    files = Files.of(config, manifest)
    image, label = profile.columns["image"], profile.columns["label"]
    with Stream(config, manifest, profile, split, global_batch_size=4) as stream:
        return [(row[label], files.content(row[image])) for row in stream.rows()]


def contents(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.parent.name, path.read_bytes()) for path in sorted(folder.rglob("*.png"))]


@pytest.mark.parametrize("uri", ["data", "data/**", "data/**/*.png", "data/*/*.png"])
def test_a_folder_for_each_class_is_a_table_of_its_images(folder: Path, run: Any, uri: str) -> None:
    (folder / "data/.DS_Store").write_bytes(b"x")
    job = config(folder, uri, data={"validation": {"fraction": 0.25}})
    profile = run(job)
    assert profile.labels == CLASSES
    assert (profile.data.objects, profile.data.train_rows + profile.data.validation_rows) == (24, 24)
    assert profile.resolved.max_length == 16
    assert not profile.data.findings or {f.kind for f in profile.data.findings} <= {"UnjudgedLabel", "Imbalance"}
    rows = streamed(job) + streamed(job, "validation")
    assert sorted(rows) == sorted(contents(folder / "data"))
    assert run(job).digest == profile.digest, "reused"


def table(folder: Path, kind: str, rows: list[dict[str, Any]]) -> str:
    """Write a table of paths into data/; its URI."""
    path = folder / "data" / f"rows.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=5)
    return f"data/rows.{kind}"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_names_images_beside_their_classes(folder: Path, run: Any, kind: str) -> None:
    paths = sorted((folder / "data").rglob("*.png"))
    spelt: list[Callable[[Path], str]] = [
        lambda path: str(path.relative_to(folder / "data")),
        lambda path: f"./x/../{path.relative_to(folder / 'data')}",
        str,
        Path.as_uri,
    ]
    rows = [{"file_name": spelt[n % 4](path), "kind": path.parent.name} for n, path in enumerate(paths)]
    rows.insert(7, {"file_name": "red/gone.png", "kind": "red"})
    uri = table(folder, kind, rows)
    data = {"columns": {"label": "kind"}, "maxBadRows": 1, "test": {"fraction": 0.2}}
    job = config(folder, uri, data=data)
    profile = run(job)
    assert profile.columns == {"image": "file_name", "label": "kind"}
    assert profile.bad == {"train": {0: (7,)}}
    (missing,) = (f for f in profile.data.findings if f.kind == "MissingFile")
    assert missing.line == (8 if kind == "jsonl" or kind == "parquet" else 9)
    assert "'red/gone.png'" in missing.message
    assert sorted(streamed(job) + streamed(job, "test")) == sorted(contents(folder / "data"))


def test_a_table_in_the_folder_of_its_images_is_what_holds_the_rows(folder: Path, run: Any) -> None:
    rows = [{"file_name": f"red/00{n}.png", "label": "ab"[n % 2]} for n in range(6)]
    table(folder, "csv", rows)
    job = config(folder, "data/**")
    assert run(job).labels == ("a", "b")
    assert len(streamed(job)) == 6


@pytest.mark.parametrize("form", ["struct", "binary"])
def test_parquet_holds_the_bytes_of_images(folder: Path, run: Any, form: str) -> None:
    found = contents(folder / "data")
    image = {"struct": lambda data: {"bytes": data, "path": None}, "binary": lambda data: data}[form]
    uri = table(folder, "parquet", [{"image": image(data), "label": label} for label, data in found])
    job = config(folder, uri, data={"validation": {"fraction": 0.25}})
    profile = run(job)
    assert profile.labels == CLASSES
    assert not list((folder / "out/prepare/blocks").glob("files-*")), "they stay where they are"
    assert sorted(streamed(job) + streamed(job, "validation")) == sorted(found)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_row_may_hold_its_image_in_base64(folder: Path, run: Any, kind: str) -> None:
    """As a data: URI, bare, with line breaks, or beside rows that name a path; broken ones are bad rows with a line."""
    found = contents(folder / "data")
    path = str(next(p for p in sorted((folder / "data").rglob("*.png")) if p.read_bytes() == found[3][1]))
    whole = [base64.b64encode(data).decode() for _, data in found]
    texts = [f"data:image/png;base64,{text}" if n % 2 else text for n, text in enumerate(whole)]
    texts[2] = base64.encodebytes(found[2][1]).decode().strip() if kind == "jsonl" else texts[2]
    texts[3] = path
    rows = [{"image": text, "label": label} for text, (label, _) in zip(texts, found, strict=True)]
    rows[5:5] = [
        {"image": whole[0][:-1], "label": "red"},
        {"image": "data:image/png,%89PNG", "label": "red"},
        {"image": base64.b64encode(b"<html>" * 20).decode(), "label": "red"},
        {"image": f"data:image/png;base64,{whole[0][:80]}", "label": "red"},
    ]
    uri = table(folder, kind, rows)
    error = run.refused(config(folder, uri))
    first = 6 if kind == "jsonl" else 7
    assert f":{first}: column 'image' holds broken base64" in error.message
    assert "4 bad rows" in error.message
    places = {f.kind: (f.count, f.line) for f in run.reported.findings}
    assert places == {"BrokenBase64": (2, first), "BadFile": (2, first + 2)}
    job = config(folder, uri, data={"maxBadRows": 4}, job_id="2", output={"uri": f"{folder.as_uri()}/out2"})
    assert run(job).data.train_rows == len(found)
    assert sorted(streamed(job)) == sorted(found)


def test_an_image_in_base64_may_be_no_larger_than_a_file(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "LARGEST", 1000)
    text = base64.b64encode(bytes(1001)).decode()
    error = run.refused(config(folder, table(folder, "jsonl", [{"image": text, "label": "red"}] * 4)))
    assert "column 'image' holds an image of 1,001 bytes, and 1,000 are allowed" in error.message


def test_broken_images_are_told_by_name_and_left_out_where_that_is_allowed(folder: Path, run: Any) -> None:
    red = folder / "data/red"
    whole = encoded(picture("red", 1, 200, 150), "jpg")
    (red / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (red / "empty.png").write_bytes(b"")
    (red / "page.png").write_bytes(b"<html>404</html>")
    (red / "notes.txt").write_bytes(b"bought in May")
    (folder / "data/stray.png").write_bytes(encoded(picture("red", 2)))
    error = run.refused(config(folder))
    assert error.reason == Reason.INVALID_DATA
    assert error.message.startswith(f"{red}/cut.jpg: is broken or cut off")
    assert "5 bad rows (4 BadFile, 1 NoClassFolder), 0 allowed" in error.message
    (broken, stray) = run.reported.findings
    assert (broken.count, broken.line) == (4, None)
    assert broken.file == f"{red}/cut.jpg"
    assert broken.message.endswith("; also at empty.png, notes.txt, page.png")
    assert stray.file == f"{folder}/data/stray.png"
    job = config(folder, job_id="2", data={"maxBadRows": 5}, output={"uri": f"{folder.as_uri()}/out2"})
    profile = run(job)
    assert (profile.data.train_rows, profile.data.bad_rows) == (24, 5)
    assert sorted(streamed(job)) == sorted(
        (c, d) for c, d in contents(folder / "data/") if c != "data" and d[1:4] == b"PNG"
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("https://example.org/a.png", "nothing else is fetched"),
        ("s3://bucket/a.png", "or as file://…"),
        ("../../../../../../../../../../../../../../../../a\0.png", "out of the storage"),
        (" ", "is empty; give it the path"),
        ("red", "there is no file://"),
        (7, "holds int, and no file"),
        (["a.png"], "holds a list, and no file"),
        ({"path": "red/000.png"}, "the path 'red/000.png' without its bytes"),
        ({}, "holds dict, and no file"),
        (None, "column 'image' is missing or null; name an image"),
    ],
)
def test_what_names_no_image_is_told_with_its_line(folder: Path, run: Any, value: Any, says: str) -> None:
    rows = [{"image": f"{name}/000.png", "label": name} for name in CLASSES]
    uri = table(folder, "jsonl", [*rows, {"image": value, "label": "red"}])
    error = run.refused(config(folder, uri))
    assert error.message.startswith(f"{folder}/data/rows.jsonl:4: ")
    assert says in error.message


def test_large_images_are_refused_with_the_figures(folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (9000, 8000)).save(folder / "data/red/large.png")
    error = run.refused(config(folder))
    assert f"red/large.png: has 9,000 by 8,000 pixels, and {MOST_PIXELS:,} are allowed in all" in error.message
    monkeypatch.setattr(opened, "LARGEST", 100)
    error = run.refused(config(folder, job_id="2", output={"uri": f"{folder.as_uri()}/out2"}))
    assert "and 100 are allowed; make it smaller" in error.message


def test_odd_images_copies_and_overlap_are_counted(folder: Path, run: Any) -> None:
    data = folder / "data"
    Image.new("CMYK", (20, 20), (0, 200, 200, 0)).save(data / "red/odd.jpg")
    for n in range(2):
        Image.new("L", (20, 20), 10 * n).save(data / f"blue/grey{n}.png")
    shutil.copy(data / "red/001.png", data / "red/copy.png")
    shutil.copy(data / "red/002.png", data / "blue/other.png")
    for name in CLASSES:
        (folder / "held" / name).mkdir(parents=True)
        shutil.copy(data / name / "003.png", folder / "held" / name / "same.png")
    profile = run(config(folder, data={"test": {"uri": f"{folder.as_uri()}/held"}}))
    found = {f.kind: f for f in profile.data.findings}
    assert found["Converted"].message == (
        "Images are read upright, in RGB of 8 bits, and of several frames the first: 2 grey, 1 in CMYK."
    )
    assert found["Converted"].file == f"{data}/blue/grey0.png"
    assert found["Contradiction"].message.startswith("The same image stands in several rows with different classes")
    assert (found["Duplicates"].count, found["Overlap"].count) == (2, 3)
    assert found["Overlap"].file == f"{folder}/held/blue/same.png"
    assert "have an image that is in the training rows" in found["Overlap"].message


def test_an_image_that_changes_after_it_was_checked_is_told(folder: Path, run: Any) -> None:
    rows = table(folder, "jsonl", [{"image": f"{name}/000.png", "label": name} for name in CLASSES])
    for n, uri in enumerate((rows, "data/*/*.png")):
        path = folder / "data/green/000.png"
        job = config(folder, uri, job_id=str(n), output={"uri": f"{folder.as_uri()}/out{n}"})
        run(job)
        path.write_bytes(encoded(picture("red", 77)))
        with pytest.raises(JobError) as caught:
            streamed(job)
        assert caught.value.reason == Reason.DATA_CHANGED
        assert "green/000.png" in caught.value.message
        path.unlink()
        with pytest.raises(JobError, match="deleted"):
            streamed(job)
        path.write_bytes(encoded(picture("green", 0)))


@pytest.mark.parametrize(
    ("spec", "field", "says"),
    [
        ({"training": {"maxLength": 64}}, "spec.training.maxLength", "has no meaning for image-classification"),
        ({"evaluation": {"metric": "top-5-accuracy"}}, "spec.evaluation.metric", "has no meaning for 3 classes"),
        ({"data": {"columns": {"image": "img"}}}, "spec.data.columns.image", "its columns are 'image', 'label'"),
        ({"data": {"labels": ["red", "blue"]}}, "spec.data", "class 'green' is not among the labels"),
    ],
)
def test_what_does_not_fit_images_is_refused(
    folder: Path, run: Any, spec: dict[str, Any], field: str, says: str
) -> None:
    data = {"train": {"uri": f"{folder.as_uri()}/data"}, "validation": {"fraction": 0.3}, **spec.pop("data", {})}
    error = run.refused(job_config(folder, **{"task": "image-classification", "data": data, **spec}))
    assert (error.field, says in error.message) == (field, True), error.message


def test_a_model_for_texts_or_for_other_sizes_is_refused(folder: Path, run: Any, bert: Path) -> None:
    path = folder / "model/preprocessor_config.json"
    path.write_text(json.dumps({"size": 48}))
    error = run.refused(config(folder))
    assert "positions for images of 32 by 32" in error.message
    error = run.refused(config(folder, model={"uri": bert.as_uri()}))
    assert "'bert' does not support image-classification" in error.message
    texts = {"train": {"uri": f"{folder.as_uri()}/data/**"}}
    error = run.refused(job_config(folder, model={"uri": bert.as_uri()}, data=texts))
    assert (error.field, "its name says no format" in error.message) == ("spec.data.format", True)


def test_images_on_s3_are_read_by_their_keys(folder: Path, run: Any, moto: S3Server, s3_credentials: None) -> None:
    bucket = moto.bucket()
    for path in sorted((folder / "data").rglob("*.png")):
        moto.client.put_object(
            Bucket=bucket, Key=f"set/train/{path.relative_to(folder / 'data')}", Body=path.read_bytes()
        )
    lines = [{"image": f"train/{name}/001.png", "label": name} for name in CLASSES]
    lines += [{"image": f"s3://{bucket}/set/train/{name}/002.png", "label": name} for name in CLASSES]
    rows = "".join(json.dumps(line) + "\n" for line in lines)
    moto.client.put_object(Bucket=bucket, Key="set/rows.jsonl", Body=rows.encode())
    for n, (uri, count) in enumerate((("set/train/**", 24), ("set/rows.jsonl", 6))):
        data = {"train": {"uri": f"s3://{bucket}/{uri}"}}
        output = {"uri": f"s3://{bucket}/out{n}"}
        job = config(folder, data=data, output=output, storage=moto.access, job_id=str(n))
        assert run(job).labels == CLASSES
        found = streamed(job)
        assert len(found) == count
        assert set(found) <= set(contents(folder / "data"))
    moto.client.put_object(Bucket=bucket, Key="set/train/red/001.png", Body=encoded(picture("red", 99)))
    with pytest.raises(JobError) as caught:
        streamed(job)
    assert caught.value.reason == Reason.DATA_CHANGED
