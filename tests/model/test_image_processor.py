"""Images are prepared as transformers' own processors prepare them, and models that take other images are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.image_processor import DEFAULTS, load_image_processor, misfit

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("ViT", {"size": {"height": 32, "width": 24}}),
    ("ViT", {"size": 30, "resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": 0.25}),
    ("ViT", {"size": {"height": 32, "width": 32}, "do_normalize": False, "rescale_factor": 0.01}),
    ("ViT", {"size": {"height": 32, "width": 32}, "do_rescale": False, "do_normalize": False}),
    ("DeiT", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 33, "width": 32}}),
    ("DeiT", {"size": {"shortest_edge": 24}, "crop_size": {"height": 32, "width": 32}}),
    ("ConvNext", {"size": {"shortest_edge": 32}, "crop_pct": 0.9}),
    ("ConvNext", {"size": {"shortest_edge": 384}}),
    ("Bit", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "resample": 2}),
    ("Bit", {}),
]


def theirs(kind: str, said: dict[str, Any]) -> Any:
    """transformers' processor without torchvision; older versions have it under the plain name."""
    import importlib

    name = kind.lower()
    try:
        module = importlib.import_module(f"transformers.models.{name}.image_processing_pil_{name}")
        return getattr(module, f"{kind}ImageProcessorPil")(**said)
    except ImportError:
        module = importlib.import_module(f"transformers.models.{name}.image_processing_{name}")
        return getattr(module, f"{kind}ImageProcessor")(**said)


def model_folder(folder: Path, said: dict[str, Any], **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", **config}))
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize(("kind", "said"), KINDS)
def test_pixels_are_those_of_transformers(kind: str, said: dict[str, Any], tmp_path: Path) -> None:
    reference = theirs(kind, said)
    written = {"image_processor_type": f"{kind}ImageProcessor", **said}
    ours = [
        load_image_processor(model_folder(tmp_path, written)),
        load_image_processor(model_folder(tmp_path, json.loads(reference.to_json_string()))),
    ]
    rng = np.random.default_rng(3)
    for width, height in ((32, 32), (57, 33), (20, 61), (300, 31), (1, 1), (640, 480)):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        expected = np.asarray(reference(images=image)["pixel_values"][0])
        for each in ours:
            found = each.pixel_values(each.prepared(image))
            assert (found.dtype, found.shape) == (np.float32, expected.shape)
            assert found.shape[1:] == each.size
            assert np.abs(found - expected).max() <= 1e-5


def test_every_kind_that_is_read_is_compared() -> None:
    assert {kind for kind, _ in KINDS} == set(DEFAULTS)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"image_processor_type": "SamImageProcessor"}, "is SamImageProcessor, and ViTImageProcessor, "),
        ({"size": {"shortest_edge": 224}}, "images keep their sides"),
        ({"size": {"width": 224}}, "cannot be understood"),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}}, "longest_edge"),
        ({"do_pad": True}, "sets do_pad"),
        ({"image_mean": [0.5]}, "1 channels"),
        ([], "cannot be understood"),
    ],
)
def test_a_processor_that_is_not_read_is_refused(said: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=says) as caught:
        load_image_processor(model_folder(tmp_path, said))
    assert caught.value.reason == Reason.UNSUPPORTED_MODEL
    assert caught.value.hint


def test_a_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    (model_folder(tmp_path, {}) / "preprocessor_config.json").unlink()
    with pytest.raises(JobError, match=r"no preprocessor_config\.json"):
        load_image_processor(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(JobError, match="cannot be read"):
        load_image_processor(tmp_path)


def test_a_model_for_other_images_is_told_with_both_figures(tmp_path: Path) -> None:
    processor = load_image_processor(model_folder(tmp_path, {"size": 32}, image_size=32, patch_size=16))
    assert processor.fixed_length == 4
    positions = "def interpolate_pos_encoding"
    assert misfit(processor, {"image_size": 32}, positions) is None
    assert misfit(processor, {"image_size": 224}, "no positions") is None
    assert "224 by 224" in str(misfit(processor, {"image_size": 224}, positions))
    assert "32 by 32" in str(misfit(processor, {"image_size": [224, 224]}, positions))
    assert "1 channels" in str(misfit(processor, {"num_channels": 1}, ""))
