"""Images of every kind become upright RGB, broken ones are told, and chance hangs on seed, epoch and row alone."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetune_api.images import ImageClassification
from finetune_trainer.batches.collate import collate
from finetune_trainer.model.image_processor import load_image_processor
from finetune_trainer.model.load import load_model
from finetune_trainer.tasks.base import Draw, JobFacts
from finetune_trainer.tasks.images.augment import LEAST_AREA, random_part
from finetune_trainer.tasks.images.decode import MOST_PIXELS, BadImage, check, rgb
from finetune_trainer.tasks.images.pictures import MOST, MOST_BYTES, chosen, thumbnail
from finetune_trainer.tasks.registry import task_for
from support.image_families import COLOURS, encoded, picture, tiny_vit

TASK = task_for("image-classification")
COLUMNS = {"image": "image", "label": "label"}
FACTS = JobFacts(COLUMNS, tuple(COLOURS), settings=ImageClassification())


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vit(tmp_path_factory.mktemp("vit"))


def plain(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, (12, 8), colour)


def palette() -> Image.Image:
    return plain("RGB", (200, 50, 40)).convert("P", palette=Image.Palette.ADAPTIVE)


@pytest.mark.parametrize(
    ("image", "kind", "oddities", "pixel"),
    [
        (plain("RGB", (200, 50, 40)), "png", (), (200, 50, 40)),
        (plain("RGB", (200, 50, 40)), "bmp", (), (200, 50, 40)),
        (plain("RGB", (200, 50, 40)), "webp", (), (200, 50, 40)),
        (plain("L", 90), "jpg", ("grey",), (90, 90, 90)),
        (plain("1", 1), "png", ("black and white",), (255, 255, 255)),
        (plain("LA", (90, 0)), "png", ("grey with transparency",), (255, 255, 255)),
        (plain("RGBA", (200, 50, 40, 255)), "png", ("with transparency",), (200, 50, 40)),
        (plain("RGBA", (0, 0, 0, 0)), "png", ("with transparency",), (255, 255, 255)),
        (plain("CMYK", (0, 255, 255, 0)), "jpg", ("in CMYK",), (255, 0, 0)),
        (palette(), "gif", ("with a palette",), (200, 50, 40)),
        (Image.fromarray(np.full((8, 12), 257 * 90, dtype=np.uint16)), "png", ("of 16 bits",), (90, 90, 90)),
    ],
)
def test_every_kind_becomes_rgb_and_is_told(image: Any, kind: str, oddities: tuple[str, ...], pixel: Any) -> None:
    data = encoded(image, kind)
    seen, found = check(data), rgb(data)
    assert (seen.width, seen.height) == (12, 8)
    assert seen.oddities == oddities
    assert (found.mode, found.size) == ("RGB", (12, 8))
    assert np.abs(np.asarray(found).astype(int) - np.array(pixel)).max() <= 4


def test_turned_images_stand_upright_and_of_several_frames_the_first_counts() -> None:
    image = Image.new("RGB", (16, 8), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is left stands on top
    data = encoded(image, "jpg", exif=exif, quality=95)
    assert check(data).oddities == ("stored turned",)
    upright = np.asarray(rgb(data)).astype(int)
    assert upright.shape == (16, 8, 3)
    assert upright[2, 4, 0] > 200 > 60 > upright[13, 4, 0]
    frames = encoded(plain("RGB", (255, 0, 0)), "webp", save_all=True, append_images=[plain("RGB", (0, 0, 255))])
    assert "animated" in check(frames).oddities
    assert np.asarray(rgb(frames))[4, 4, 0] > 200


def bomb(width: int, height: int) -> bytes:
    """A png's header, which promises so many pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    body = b"IDAT" + zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + data + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


GOOD = {kind: encoded(picture("red", 1, 64, 48), kind) for kind in ("png", "jpg", "webp", "gif", "bmp")}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"not an image", "is no jpeg, png, webp, gif or bmp image"),
        (b"II*\0" + b"\0" * 60, "is no jpeg, png"),
        *[(GOOD[kind][: len(GOOD[kind]) * 2 // 3], "is broken or cut off") for kind in ("png", "jpg", "webp", "bmp")],
        (GOOD["png"][:60] + b"xxxx" + GOOD["png"][64:], "is broken or cut off"),
        (bomb(9000, 9000), f"9,000 by 9,000 pixels, and {MOST_PIXELS:,} are allowed"),
        (bomb(100_000, 100_000), f"{MOST_PIXELS:,}"),
    ],
)
def test_what_is_no_whole_image_is_told(data: bytes, says: str) -> None:
    with pytest.raises(BadImage, match=says):
        check(data)
    with pytest.raises(BadImage, match=says):
        rgb(data)
    assert TASK.check_file is not None
    assert says in str(TASK.check_file(data)[0])


def pixels(processor: Any, draw: Draw, facts: JobFacts = FACTS) -> np.ndarray:
    (example,) = TASK.encode({"image": GOOD["png"], "label": "red"}, facts, processor, 16, draw)
    found: np.ndarray = example.inputs(16, 0)["pixel_values"]
    return found


def test_chance_hangs_on_seed_epoch_and_row_alone(vit: Path) -> None:
    processor = load_image_processor(vit)
    first = pixels(processor, Draw(7, 0, 3))
    assert first.shape == (3, 32, 32)
    for other in (Draw(8, 0, 3), Draw(7, 1, 3), Draw(7, 0, 4)):
        assert not np.array_equal(pixels(processor, other), first)
    assert np.array_equal(pixels(processor, Draw(7, 0, 3)), first)
    whole = processor.pixel_values(processor.prepared(rgb(GOOD["png"])))
    for seed in range(3):
        assert np.array_equal(pixels(processor, Draw(seed)), whole), "what is judged is not varied"
        none = JobFacts(COLUMNS, FACTS.labels, settings=ImageClassification(augmentation="none"))
        assert np.array_equal(pixels(processor, Draw(seed, 1), none), whole)


def test_flip_mirrors_half_and_only_where_it_is_wanted(vit: Path) -> None:
    processor = load_image_processor(vit)
    still = JobFacts(COLUMNS, FACTS.labels, settings=ImageClassification(flip=False))
    mirrored = 0
    for row in range(200):
        a, b = (pixels(processor, Draw(1, 0, row), facts) for facts in (FACTS, still))
        mirrored += np.array_equal(a, b[:, :, ::-1])
        assert np.array_equal(a, b) or np.array_equal(a, b[:, :, ::-1])
    assert 70 < mirrored < 130


def test_a_part_lies_in_the_image_and_holds_half_of_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        width, height = (int(n) for n in rng.integers(1, 500, 2))
        left, top, right, bottom = random_part(width, height, 1.0, rng)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left) * (bottom - top) >= LEAST_AREA * width * height * 0.9 - width - height


def test_rows_are_answered_by_paths_and_bytes_without_a_class(vit: Path, tmp_path: Path) -> None:
    processor = load_image_processor(vit)
    model = load_model(vit, TASK.head, labels=FACTS.labels, seed=1, pad_id=0).eval()
    path = tmp_path / "an image.png"
    path.write_bytes(GOOD["png"])
    rows = [{"image": str(path)}, {"image": path.as_uri()}, {"image": GOOD["png"]}, {"image": {"bytes": GOOD["png"]}}]
    assert TASK.predict is not None
    with torch.inference_mode():
        answers = TASK.predict(model, rows, FACTS, {}, processor, 16)
        (example,) = TASK.encode({"image": GOOD["png"], "label": "red"}, FACTS, processor, 16, Draw())
        shares = model(**collate([example], 0, 16).inputs).logits.softmax(-1)[0]
        assert answers[0] == answers[1] == answers[2] == answers[3]
        assert answers[0]["score"] == pytest.approx(float(shares.max()), abs=1e-5)
        assert answers[0]["scores"].keys() == set(COLOURS)
        with pytest.raises(ValueError, match=r"gone\.png"):
            TASK.predict(model, [{"image": str(tmp_path / "gone.png")}], FACTS, {}, processor, 16)
    assert TASK.check_input is not None
    assert TASK.check_input({}, COLUMNS)
    assert TASK.check_input({"image": "a.png"}, COLUMNS) is None


def test_the_report_shows_mistakes_first_in_few_bytes() -> None:
    right = [i % 3 > 0 for i in range(90)]
    shown = chosen(right, [i / 90 for i in range(90)])
    assert len(shown) == MOST
    assert shown[:12] == [87 - 3 * i for i in range(12)], "the most certain mistakes first"
    assert all(right[i] for i in shown[12:])
    assert chosen([False] * 3, [0.5] * 3) == [0, 1, 2]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 700, 3), dtype=np.uint8))
    assert len(thumbnail(noise)) <= MOST_BYTES + 30
    assert thumbnail(noise).startswith("data:image/jpeg;base64,")
