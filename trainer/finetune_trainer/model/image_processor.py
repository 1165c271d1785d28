"""The model's image processor, as its preprocessor_config.json says: pixels resized, cropped, scaled and normalised.

The same as transformers' own (a test holds them together), but for the few ways that classifiers are prepared in, and
without its import; transformers' newer ones need torchvision, and differ from the older ones in the last digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from finetune_api.exits import JobError, Reason
from finetune_trainer.model.facts import FIELD, read_config
from finetune_trainer.model.processor import ProcessorKind

NAME = "preprocessor_config.json"
BILINEAR, BICUBIC = 2, 3
HALF = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
_PLAIN = {
    "do_resize": True,
    "do_center_crop": False,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": _PLAIN | {"size": {"height": 224, "width": 224}, "resample": BILINEAR, "norm": HALF},
    "DeiT": _PLAIN
    | {
        "size": {"height": 256, "width": 256},
        "resample": BICUBIC,
        "norm": HALF,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
    },
    "ConvNext": _PLAIN | {"size": {"shortest_edge": 384}, "resample": BICUBIC, "norm": HALF, "crop_pct": 224 / 256},
    "Bit": _PLAIN
    | {
        "size": {"shortest_edge": 224},
        "resample": BICUBIC,
        "norm": CLIP,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
    },
}
"""What a kind of processor takes where its file says nothing (transformers' classes)."""
WARPED = 384
"""From this size on ConvNeXt's takes the whole image, its sides not kept."""


@dataclass(frozen=True, slots=True)
class ImageProcessor:
    """How pixels become what the model takes; sizes are (height, width)."""

    resize: tuple[int, int] | int | None
    """To this size, or the shorter side to this; None: images stay as they are."""
    crop: tuple[int, int] | None
    """The middle of this size, filled up with zeros where the image is smaller."""
    resample: int
    """PIL's filter."""
    factor: float | None
    """Pixels are multiplied by this."""
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    patch: int
    """Pixels along a patch of the model, for the count of them."""

    pad_id: int = 0
    eos_id: int | None = None
    special_ids: frozenset[int | None] = frozenset()
    added: frozenset[str] = frozenset()
    max_length: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Of what the model takes."""
        found = self.crop or self.resize
        assert isinstance(found, tuple), "images of one size"
        return found

    @property
    def fixed_length(self) -> int:
        """Patches of an image: what time and memory go by."""
        height, width = self.size
        return -(-height // self.patch) * -(-width // self.patch)

    def beyond(self, size: int) -> Mapping[str, int]:
        """Images have no tokens."""
        return {}

    def prepared(self, image: Any) -> np.ndarray:
        """An RGB image of PIL resized and cropped, uint8 [height, width, 3]."""
        if self.resize is not None:
            image = image.resize(self._resized(image.width, image.height), self.resample)
        pixels = np.asarray(image, dtype=np.uint8)
        return pixels if self.crop is None else _center(pixels, self.crop)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after resizing."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        assert self.resize is not None
        longer = int(self.resize * max(width, height) / min(width, height))
        return (self.resize, longer) if width <= height else (longer, self.resize)

    def pixel_values(self, pixels: np.ndarray) -> np.ndarray:
        """Of uint8 [height, width, 3]: float32 [3, height, width], scaled and normalised."""
        values = pixels.transpose(2, 0, 1).astype(np.float32)
        if self.factor is not None:
            values = values * np.float32(self.factor)
        if self.mean is not None and self.std is not None:
            mean, std = (np.array(of, dtype=np.float32)[:, None, None] for of in (self.mean, self.std))
            values = (values - mean) / std
        return np.ascontiguousarray(values, dtype=np.float32)


def _center(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle, as transformers cuts and fills it."""
    height, width = size
    have_h, have_w = pixels.shape[:2]
    top, left = (have_h - height) // 2, (have_w - width) // 2
    if top >= 0 and left >= 0:
        return pixels[top : top + height, left : left + width]
    tall, wide = max(height, have_h), max(width, have_w)
    filled = np.zeros((tall, wide, pixels.shape[2]), dtype=pixels.dtype)
    above, before = -(-(tall - have_h) // 2), -(-(wide - have_w) // 2)
    filled[above : above + have_h, before : before + have_w] = pixels
    top, left = max(0, top + above), max(0, left + before)
    return filled[top : top + height, left : left + width]


def load_image_processor(folder: Path, now: datetime | None = None) -> ImageProcessor:
    """The image processor in a model folder. Raises JobError when there is none that can be read."""
    try:
        said = json.loads((folder / NAME).read_text())
    except FileNotFoundError:
        raise _unread(f"the model folder has no {NAME}") from None
    except (OSError, ValueError) as error:
        raise _unread(f"the model's {NAME} cannot be read: {error}"[:300]) from None
    try:
        return _from(said, read_config(folder))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _unread(f"the model's {NAME} cannot be understood: {error}"[:300]) from None


def _from(said: Mapping[str, Any], config: Mapping[str, Any]) -> ImageProcessor:
    name = str(said.get("image_processor_type") or said.get("feature_extractor_type") or "ViTImageProcessor")
    kind = name.removesuffix("Pil").removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if kind not in DEFAULTS:
        known = ", ".join(f"{each}ImageProcessor" for each in DEFAULTS)
        raise _unread(f"the model's image processor is {name}, and {known} are read")
    usual = DEFAULTS[kind]

    def field(key: str) -> Any:
        return said[key] if said.get(key) is not None else usual.get(key)

    for key in ("do_pad", "do_reduce_labels"):
        if said.get(key):
            raise _unread(f"the model's {NAME} sets {key}, which is not read")
    mean, std = (said.get("image_mean") or usual["norm"][0], said.get("image_std") or usual["norm"][1])
    resize = _size(field("size")) if field("do_resize") else None
    crop = _square(_size(field("crop_size"))) if field("do_center_crop") else None
    if kind == "ConvNext" and isinstance(resize, int):
        if resize < WARPED:
            resize, crop = int(resize / field("crop_pct")), (resize, resize)
        else:
            resize = (resize, resize)
    if crop is None and not isinstance(resize, tuple):
        raise _unread(f"by the model's {NAME} images keep their sides, so that they do not make one batch")
    patch = config.get("patch_size")
    return ImageProcessor(
        resize,
        crop,
        int(field("resample")),
        float(field("rescale_factor")) if field("do_rescale") else None,
        _channels(mean) if field("do_normalize") else None,
        _channels(std) if field("do_normalize") else None,
        patch if isinstance(patch, int) and patch > 0 and config.get("image_size") else 16,
    )


def _size(said: Any) -> tuple[int, int] | int:
    """(height, width), or the length of the shorter side."""
    if isinstance(said, Mapping):
        if said.get("height"):
            return int(said["height"]), int(said["width"])
        if said.get("longest_edge"):
            raise ValueError("size has a longest_edge")
        return int(said["shortest_edge"])
    return (int(said[0]), int(said[1])) if isinstance(said, list) else (int(said), int(said))


def _square(size: tuple[int, int] | int) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _channels(said: Any) -> tuple[float, ...]:
    values = tuple(map(float, said)) if isinstance(said, list) else (float(said),) * 3
    if len(values) != 3:
        raise ValueError(f"means and deviations for {len(values)} channels")
    return values


def _unread(message: str) -> JobError:
    return JobError(
        Reason.UNSUPPORTED_MODEL,
        message,
        field=FIELD,
        hint=f"The model folder needs the {NAME} that it was made with, as transformers writes it.",
    )


def misfit(processor: ImageProcessor, config: Mapping[str, Any], source: str) -> str | None:
    """Why the model does not take what the processor makes: other channels, or another size than its positions are
    for.
    """
    channels = config.get("num_channels", 3)
    if channels != 3:
        return f"the model takes images of {channels} channels, and images are read in 3 (RGB)"
    wanted = config.get("image_size")
    if wanted is None or "interpolate_pos_encoding" not in source:
        return None
    size = _square(_size(wanted))
    if size != processor.size:
        made = " by ".join(map(str, processor.size))
        return (
            f"the model has positions for images of {' by '.join(map(str, size))} (image_size in config.json), and its"
            f" {NAME} makes {made}; make them one"
        )
    return None


IMAGE_PROCESSOR = ProcessorKind(load_image_processor, "AutoImageProcessor", "processor", misfit)
