"""Jobs on images: families learn, are written whole and answer the same elsewhere; a killed run ends bit for bit
as one that was not, with chance in every image.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetune_api.exits import Reason
from finetune_trainer.model.image_processor import load_image_processor
from support.attempts import Bench
from support.image_families import COLOURS, FAMILIES, encoded, image_folder, picture, tiny_vit

LABELS = tuple(COLOURS)
TRAINING = {"learningRate": 3e-3, "globalBatchSize": 8, "microBatchSize": 3, "maxSteps": 24, "schedule": "constant"}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images"), 16)


def bench(folder: Path, images: Path, **more: Any) -> Bench:
    """A job; the model lies in folder/model."""
    data = {"train": {"uri": f"{images.as_uri()}/**/*.png"}, "test": {"fraction": 0.25}}
    spec = {"task": "image-classification", "data": data, "training": TRAINING, **more}
    return Bench(folder, spec)


def answers(model: Any, folder: Path, path: Path) -> torch.Tensor:
    """What a plain transformers model says to some images, prepared by the exported processor."""
    processor = load_image_processor(folder)
    pixels = [processor.pixel_values(processor.prepared(Image.open(p))) for p in sorted(path.glob("*/00[0-3].png"))]
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(pixel_values=torch.from_numpy(np.stack(pixels))).logits
    return found


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("deit", {"type": "full"}),
        ("resnet", {"type": "full"}),
        ("vit", {"type": "lora", "lora": {"rank": 4}}),
        ("swin", {"type": "freeze", "freeze": {"lastLayers": 1}}),
        ("convnext", {"type": "lora", "lora": {"rank": 4}}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["type"],
)
def test_a_family_learns_and_answers_the_same_elsewhere(
    tmp_path: Path, images: Path, family: str, method: dict[str, Any]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageClassification as Auto

    source = FAMILIES[family](tmp_path / "model")
    adapted = method["type"] == "lora"
    job = bench(tmp_path, images, method=method, output={"uri": f"{tmp_path.as_uri()}/out", "merge": adapted})
    job.prepare()
    job.attempt()
    losses = [event["loss"] for event in job.events("step")]
    assert np.mean(losses[-4:]) < 0.7 * losses[0], losses
    out = tmp_path / "out"
    assert (out / "preprocessor_config.json").read_bytes() == (source / "preprocessor_config.json").read_bytes()
    metrics = job.metrics()
    assert metrics["test"]["accuracy"] > 0.8
    whole = out / "merged" if adapted else out
    config = json.loads((whole / "config.json").read_text())
    assert [config["id2label"][str(i)] for i in range(3)] == list(LABELS)
    assert "pad_token_id" not in config
    found = answers(Auto.from_pretrained(whole), whole, images)
    assert (found.argmax(-1) == torch.arange(3).repeat_interleave(4)).float().mean() > 0.8
    if adapted:
        base = Auto.from_pretrained(source, num_labels=3)
        beside = answers(PeftModel.from_pretrained(base, out), whole, images)
        assert torch.allclose(beside, found, atol=1e-4)
    if family == "resnet":
        kept = [name for name in Auto.from_pretrained(out).state_dict() if "running" in name]
        base, tuned = Auto.from_pretrained(source).state_dict(), Auto.from_pretrained(out).state_dict()
        assert kept
        assert all(torch.equal(base[name], tuned[name]) for name in kept), "statistics stay those of the base"


class Killed(BaseException):
    """As SIGKILL: nothing is saved on the way out."""


def killed_at(call: int) -> Any:
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        if calls >= call:
            raise Killed
        return False

    return stop


@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_a_killed_run_with_chance_ends_as_one_that_was_not(tmp_path: Path, images: Path, form: str) -> None:
    from pyarrow import Table, parquet

    tiny_vit(tmp_path / "one/model", dropout=0.1)
    shutil.copytree(tmp_path / "one/model", tmp_path / "two/model")
    uri = f"{images.as_uri()}/**/*.png"
    if form == "parquet":
        rows = [
            {"image": {"bytes": p.read_bytes(), "path": p.name}, "label": p.parent.name} for p in images.rglob("*.png")
        ]
        parquet.write_table(Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=7)
        uri = f"{tmp_path.as_uri()}/rows.parquet"
    more = {
        "data": {"train": {"uri": uri}, "validation": {"fraction": 0.2}},
        "checkpoints": {"everySteps": 4},
        "training": {**TRAINING, "maxSteps": 14},
    }
    one, two = bench(tmp_path / "one", images, **more), bench(tmp_path / "two", images, **more)
    one.prepare()
    one.attempt()
    two.prepare()
    with pytest.raises(Killed):
        two.attempt(1, killed_at(40))
    two.attempt(2)
    steps = [event["step"] for event in two.events("step")]
    assert steps == sorted(set(steps)) == list(range(1, 15))
    assert two.weights() == one.weights()
    assert [e["loss"] for e in two.events("step")] == [e["loss"] for e in one.events("step")]


def test_chance_changes_what_is_learned(tmp_path: Path, images: Path) -> None:
    found = {}
    for name, settings in (("light", {}), ("still", {"flip": False}), ("none", {"augmentation": "none"})):
        tiny_vit(tmp_path / name / "model")
        job = bench(tmp_path / name, images, imageClassification=settings, training={**TRAINING, "maxSteps": 2})
        job.prepare()
        job.attempt()
        found[name] = job.events("step")[1]["loss"]
    assert len(set(found.values())) == 3


def test_an_image_that_changes_under_a_run_ends_it(tmp_path: Path) -> None:
    image_folder(tmp_path / "images", 4)
    tiny_vit(tmp_path / "model")
    job = bench(tmp_path, tmp_path / "images")
    job.prepare()
    (tmp_path / "images/red/001.png").write_bytes(encoded(picture("blue", 5)))
    error = job.failing()
    assert error.reason == Reason.DATA_CHANGED
    assert "red/001.png" in error.message


def test_the_report_shows_images_and_the_card_s_code_runs(tmp_path: Path, images: Path, capsys: Any) -> None:
    tiny_vit(tmp_path / "model")
    job = bench(tmp_path, images, training={**TRAINING, "maxSteps": 3}, method={"type": "lora"})
    job.prepare()
    job.attempt()
    page = (tmp_path / "out/report.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') >= 8
    assert "img-src data:" in page
    assert len(page) < 1_000_000
    card = (tmp_path / "out/README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    shutil.copy(next(images.rglob("*.png")), tmp_path / "image.jpg")
    code = code.replace('folder = "model"', f'folder = "{tmp_path}/out"').replace(
        '"image.jpg"', f'"{tmp_path}/image.jpg"'
    )
    exec(code, {})
    assert capsys.readouterr().out.strip().splitlines()[-1] in LABELS
