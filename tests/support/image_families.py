"""Tiny models for images of each family, from configs and fixed seeds, with the image processor that each comes with;
and images that such models can tell apart.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 32
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"size": {"height": SIDE, "width": SIDE}, "resample": 2, "do_resize": True, "do_rescale": True}


def _save(folder: Path, cls: Any, config: Any, processor: dict[str, Any], seed: int) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cls(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def tiny_vit(folder: Path, *, seed: int = 0, dropout: float = 0.0, hidden: int = 32, layers: int = 2) -> Path:
    """A ViTModel without a head, of 32 by 32 pixels in patches of 8."""
    from transformers.models.vit.configuration_vit import ViTConfig
    from transformers.models.vit.modeling_vit import ViTModel

    config = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        image_size=SIDE,
        patch_size=8,
        hidden_dropout_prob=dropout,
    )
    processor = {"image_processor_type": "ViTImageProcessor", "do_normalize": True, **SQUARE, **HALF}
    return _save(folder, ViTModel, config, processor, seed)


def tiny_deit(folder: Path, *, seed: int = 0) -> Path:
    """A DeiTModel, which has a token more; its images are cut out of larger ones."""
    from transformers.models.deit.configuration_deit import DeiTConfig
    from transformers.models.deit.modeling_deit import DeiTModel

    config = DeiTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=SIDE, patch_size=8
    )
    size, crop = {"height": 36, "width": 36}, {"height": SIDE, "width": SIDE}
    processor = {"image_processor_type": "DeiTFeatureExtractor", "size": size, "crop_size": crop}
    return _save(folder, DeiTModel, config, processor, seed)


def tiny_swin(folder: Path, *, seed: int = 0) -> Path:
    """A SwinModel of two stages, the second the deeper one."""
    from transformers.models.swin.configuration_swin import SwinConfig
    from transformers.models.swin.modeling_swin import SwinModel

    config = SwinConfig(
        image_size=SIDE, patch_size=4, embed_dim=16, depths=[1, 3], num_heads=[2, 2], window_size=4, drop_path_rate=0.0
    )
    return _save(folder, SwinModel, config, {"image_processor_type": "ViTImageProcessor", **SQUARE}, seed)


def tiny_convnext(folder: Path, *, seed: int = 0) -> Path:
    """A ConvNextModel of four stages; the shorter side is resized, and the middle taken."""
    from transformers.models.convnext.configuration_convnext import ConvNextConfig
    from transformers.models.convnext.modeling_convnext import ConvNextModel

    config = ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], drop_path_rate=0.0)
    processor = {"feature_extractor_type": "ConvNextFeatureExtractor", "size": SIDE, "crop_pct": 0.875, "resample": 3}
    return _save(folder, ConvNextModel, config, processor | {"size": {"shortest_edge": SIDE}}, seed)


def tiny_resnet(folder: Path, *, seed: int = 0) -> Path:
    """A ResNetModel of four stages with batch norms, whose statistics are not those of a fresh one."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers.models.resnet.configuration_resnet import ResNetConfig
    from transformers.models.resnet.modeling_resnet import ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[16, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic")
    processor = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": SIDE}, "crop_pct": 0.875}
    _save(folder, ResNetModel, config, processor, seed)
    tensors = load_file(folder / "model.safetensors")
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        if name.endswith("running_mean"):
            tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.1)
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


FAMILIES: dict[str, Callable[..., Path]] = {
    "vit": tiny_vit,
    "deit": tiny_deit,
    "swin": tiny_swin,
    "convnext": tiny_convnext,
    "resnet": tiny_resnet,
}


def picture(name: str, number: int, width: int = 40, height: int = 36) -> Image.Image:
    """An image of the class: mostly of its colour, noise from the number."""
    rng = np.random.default_rng((number, *name.encode()))
    pixels = np.array(COLOURS[name]) + rng.normal(0, 35, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """The image as a file's bytes."""
    sink = io.BytesIO()
    image.save(sink, {"jpg": "JPEG"}.get(kind, kind.upper()), **options)
    return sink.getvalue()


def image_folder(root: Path, count: int = 8, kind: str = "png", start: int = 0) -> Path:
    """root/<class>/<number>.<kind> for each class."""
    for name in COLOURS:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(start, start + count):
            (root / name / f"{number:03}.{kind}").write_bytes(encoded(picture(name, number), kind))
    return root
