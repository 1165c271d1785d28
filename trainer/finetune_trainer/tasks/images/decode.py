"""An image's bytes as upright RGB pixels, and what is wrong with bytes that are none.

jpeg, png, webp, gif and bmp are read; of several frames the first. The EXIF orientation is applied, as every viewer
does. Transparent pixels are laid on white; 16-bit grey is scaled to 8 bits. An image of more than MOST_PIXELS is
refused before it is decoded: a small file can unpack to any size.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
READ = "jpeg, png, webp, gif or bmp"
MOST_PIXELS = 1 << 26
"""8,192 by 8,192: 192 MiB once decoded."""
ORIENTATION = 0x0112
"""The EXIF tag."""
MODES = {
    "L": "grey",
    "1": "black and white",
    "LA": "grey with transparency",
    "P": "with a palette",
    "PA": "with a palette",
    "RGBA": "with transparency",
    "CMYK": "in CMYK",
    "YCbCr": "in YCbCr",
    "I": "of 16 bits",
    "F": "of 32 bits",
}


class BadImage(ValueError):
    """Bytes that are no image we read; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found out about a good image. `oddities`: what is changed to read it, for people."""

    width: int
    height: int
    oddities: tuple[str, ...]


def check(data: bytes) -> Seen:
    """Decode the image and look. Raises BadImage."""
    image = _opened(data)
    oddities = _oddities(image)
    width, height = image.size
    if image.format == "JPEG":
        image.draft(None, (width // 8, height // 8))  # all of the file is read, but fewer pixels are computed
    _loaded(image)
    return Seen(width, height, oddities)


def rgb(data: bytes) -> Any:
    """The image upright and in RGB, as PIL has it. Raises BadImage."""
    from PIL import Image, ImageOps

    image = _opened(data)
    _loaded(image)
    if _turned(image):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _opened(data: bytes) -> Any:
    """The image, of which the header alone was read."""
    from PIL import Image, UnidentifiedImageError

    _quiet()
    if not data:
        raise BadImage("is empty; write it again, or leave it out")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage(f"is no {READ} image; write it as one, or leave it out") from None
    except Image.DecompressionBombError:
        raise BadImage(f"has more than the {MOST_PIXELS:,} pixels that are allowed; make it smaller") from None
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(error) from None
    width, height = image.size
    if width * height > MOST_PIXELS:
        message = f"has {width:,} by {height:,} pixels, and {MOST_PIXELS:,} are allowed in all; make it smaller"
        raise BadImage(message)
    if image.format == "PNG":  # its checksums, which decoding does not look at
        with _shown_whole():
            Image.open(io.BytesIO(data), formats=FORMATS).verify()
    return image


def _loaded(image: Any) -> None:
    """Decode it."""
    with _shown_whole():
        image.load()


@contextmanager
def _shown_whole() -> Iterator[None]:
    """Whatever PIL says against an image's bytes, in the words of BadImage."""
    try:
        yield
    except MemoryError:
        raise  # nothing is wrong with the image
    except Exception as error:
        raise _broken(error) from None


def _broken(error: Exception) -> BadImage:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    return BadImage(f"is broken or cut off ({said}); write it again, or leave it out")


def _oddities(image: Any) -> tuple[str, ...]:
    mode = "I" if image.mode.startswith("I") else image.mode
    found = [MODES[mode]] if mode in MODES else []
    if mode == "RGB" and "transparency" in image.info:
        found.append("with transparency")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # which phones write: the second is a preview
        found.append("animated")
    if _turned(image):
        found.append("stored turned")
    return tuple(found)


def _turned(image: Any) -> bool:
    """Whether the camera noted that it was held otherwise; notes that cannot be read say nothing."""
    try:
        return image.getexif().get(ORIENTATION, 1) in range(2, 9)
    except MemoryError:
        raise
    except Exception:
        return False


@cache
def _quiet() -> None:
    """PIL warns of what is refused here, and of notes that are not read."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _eight_bits(image: Any) -> Any:
    """Grey of 16 bits or more, by its top 8; floating point, between its least and its largest."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        values = (np.nan_to_num(values, nan=low) - low) * (255 / (high - low) if high > low else 0)
    elif values.max(initial=0) > 255:
        values = values / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
