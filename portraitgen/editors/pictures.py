"""Pictures that a person gives: style pictures, garment photos, light references, of whatever size and format."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from ..errors import InputError

MAX_SIDE = 1024  # pixels; more than any editor looks at
MAX_PIXELS = 120_000_000  # the largest photo a telephone takes; decoding it needs about half a gigabyte
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
BROKEN = (OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, KeyError, struct.error, zlib.error)

warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with a picture is said by the errors below


def read_picture(path: Path, max_side: int = MAX_SIDE) -> Tensor:
    """Read a picture as sRGB, ``[3, h, w]`` in [0, 1]; what is transparent becomes white.

    Any of `FORMATS` in any mode (grey, palette, CMYK, 16 bit). It is turned upright as its EXIF data says, its colour profile is
    converted to sRGB, and a larger one is shrunk to ``max_side`` by averaging areas. Of an animation the first frame is read.

    Raises:
        InputError: there is no file, or it is empty, broken, cut short, too large to decode, or no picture.
    """
    colour, alpha = read_cutout(path, max_side).split([3, 1])
    return colour * alpha + (1 - alpha)


def read_cutout(path: Path, max_side: int = MAX_SIDE) -> Tensor:
    """Read a picture with its transparency, ``[4, h, w]`` in [0, 1]: sRGB and straight alpha, 1 where the file has none.

    Reads what `read_picture` reads and raises what it raises. Colours are black where alpha is 0.
    """
    image = _opened(path, max_side)
    try:
        image.load()
        if image.mode in ("L", "RGB", "CMYK") and "transparency" not in image.info:
            image = _shrunk(image, max_side)  # at once, so that a large one is copied at its full size but once
        image = _shrunk(_rgba(_upright(image)), max_side)
    except (*BROKEN, Image.DecompressionBombError):
        raise InputError(f"The picture {path.name} is broken or cut short. Save it anew as PNG or JPEG.") from None
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _opened(path: Path, max_side: int) -> Image.Image:
    """The picture with its size checked, not yet decoded."""
    if path.is_dir():
        raise InputError(f"{path} is a folder. Give one picture.")
    if not path.is_file():
        raise InputError(f"There is no picture at {path}. Check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"The picture {path.name} is empty. Give another one.")
    try:
        Image.init()
        image = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
        width, height = image.size
    except PermissionError:
        raise InputError(f"The picture {path.name} may not be read. Change its permissions.") from None
    except Image.DecompressionBombError:
        raise InputError(_too_large(path, "")) from None
    except BROKEN:  # includes Pillow's UnidentifiedImageError
        raise InputError(f"{path.name} is not a picture that can be read. Save it as PNG or JPEG.") from None
    if width * height > MAX_PIXELS:
        raise InputError(_too_large(path, f", {width} x {height} pixels"))
    image.draft(None, (max_side, max_side))  # a large JPEG is decoded at a fraction of its size at once
    return image


def _too_large(path: Path, size: str) -> str:
    return f"The picture {path.name} is too large{size}. Shrink it to at most {MAX_PIXELS // 1_000_000} million pixels."


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except BROKEN:  # a photo is good even where its EXIF data are not
        return image


def _rgba(image: Image.Image) -> Image.Image:
    """Any mode as 8 bit sRGB with straight alpha."""
    profile = image.info.get("icc_profile")
    if image.mode[0] in "IF":  # 16 and 32 bit grey
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0).clip(0)
        full = 1.0 if image.mode == "F" else 65535.0
        image = Image.fromarray((values / max(full, values.max()) * 255 + 0.5).astype(np.uint8))
    transparent = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    alpha = image.convert("RGBA").getchannel("A") if transparent else Image.new("L", image.size, 255)
    if image.mode not in ("RGB", "CMYK"):
        image = image.convert("RGB")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # of another kind of colours, or broken: go without
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            image = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    image = image.convert("RGB")
    image.putalpha(alpha)
    return image


def _shrunk(image: Image.Image, max_side: int) -> Image.Image:
    """At most ``max_side`` large, each new pixel the mean of what it covers, weighted by alpha."""
    scale = min(1.0, max_side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if image.mode == "RGBA":
        return image.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")
    small = image.resize(size, Image.Resampling.BOX)
    small.info = image.info  # its colour profile
    return small
