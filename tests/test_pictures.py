"""Pictures that a person gives: every format and mode is read alike, everything else is refused with a sentence."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from portraitgen.editors.pictures import MAX_PIXELS, read_cutout, read_picture
from portraitgen.errors import InputError

SIZE = (48, 32)  # width, height
CORNERS = {"red": (220, 30, 20), "green": (30, 180, 40), "blue": (20, 40, 200), "sand": (230, 220, 160)}


def flag() -> Image.Image:
    """Four flat quarters, each of its own colour: orientation and colours can be read off."""
    image = Image.new("RGB", SIZE)
    halves = [(0, 0), (SIZE[0] // 2, 0), (0, SIZE[1] // 2), (SIZE[0] // 2, SIZE[1] // 2)]
    for place, colour in zip(halves, CORNERS.values(), strict=True):
        image.paste(colour, (*place, place[0] + SIZE[0] // 2, place[1] + SIZE[1] // 2))
    return image


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def quarters(picture: torch.Tensor) -> torch.Tensor:
    """The mean colour [C, 4] in the middle of each quarter."""
    height, width = picture.shape[-2:]
    rows = [slice(height // 8, 3 * height // 8), slice(5 * height // 8, 7 * height // 8)]
    columns = [slice(width // 8, 3 * width // 8), slice(5 * width // 8, 7 * width // 8)]
    return torch.stack([picture[:, row, column].mean((1, 2)) for row in rows for column in columns], 1)


def close(picture: torch.Tensor, colours: torch.Tensor, tolerance: float) -> bool:
    return bool((quarters(picture) - colours).abs().max() < tolerance)


@pytest.mark.parametrize(
    ("ending", "tolerance"),
    [("png", 0.001), ("bmp", 0.001), ("tiff", 0.001), ("ppm", 0.001), ("jpg", 0.03), ("webp", 0.03), ("avif", 0.03), ("gif", 0.02)],
)  # fmt: skip
def test_every_format_reads_alike(tmp_path: Path, ending: str, tolerance: float) -> None:
    flag().save(tmp_path / f"picture.{ending}")
    picture = read_picture(tmp_path / f"picture.{ending}")
    assert picture.shape == (3, SIZE[1], SIZE[0])
    assert picture.dtype == torch.float32
    assert close(picture, quarters(as_tensor(flag())), tolerance)


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    flag().save(tmp_path / "picture.png")
    (tmp_path / "picture.png").rename(tmp_path / "picture.jpg")
    assert torch.equal(read_picture(tmp_path / "picture.jpg"), as_tensor(flag()))


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "I", "F"])
def test_grey_of_every_depth(tmp_path: Path, mode: str) -> None:
    grey = np.array(flag().convert("L"))
    if mode == "1":
        grey = np.where(grey > 128, 255, 0).astype(np.uint8)
    images = {
        "L": lambda: Image.fromarray(grey),
        "1": lambda: Image.fromarray(grey).convert("1"),
        "I;16": lambda: Image.fromarray(grey.astype(np.uint16) * 257),
        "I": lambda: Image.fromarray(grey.astype(np.int32) * 257),
        "F": lambda: Image.fromarray(grey.astype(np.float32) / 255),
    }
    path = tmp_path / "grey.tiff"
    images[mode]().save(path)
    expected = torch.from_numpy(grey).float().expand(3, -1, -1) / 255
    assert torch.allclose(read_picture(path), expected, atol=1 / 255)


def test_not_a_number_in_a_float_picture(tmp_path: Path) -> None:
    values = np.full((8, 8), 0.5, np.float32)
    values[0, 0], values[0, 1] = np.nan, -np.inf
    Image.fromarray(values).save(tmp_path / "float.tiff")
    picture = read_picture(tmp_path / "float.tiff")
    assert torch.isfinite(picture).all()
    assert picture[0, 4, 4].item() == pytest.approx(0.5, abs=1 / 255)


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = flag().quantize(8)
    see_through = image.getpixel((2, 2))
    image.save(tmp_path / "palette.png", transparency=see_through)
    cutout = read_cutout(tmp_path / "palette.png")
    assert cutout[3, 2, 2] == 0
    assert cutout[3, -2, -2] == 1
    assert read_picture(tmp_path / "palette.png")[:, 2, 2].tolist() == [1, 1, 1]


@pytest.mark.parametrize("ending", ["jpg", "tiff"])
def test_cmyk(tmp_path: Path, ending: str) -> None:
    flag().convert("CMYK").save(tmp_path / f"print.{ending}", quality=95)
    assert close(read_picture(tmp_path / f"print.{ending}"), quarters(as_tensor(flag())), 0.03)


def test_colour_profile_is_converted(tmp_path: Path) -> None:
    """A profile whose red and blue are swapped shows what the file's numbers mean; a broken one is no reason to refuse."""
    swapped = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for entry in range(struct.unpack(">I", swapped[128:132])[0]):
        tag = bytes(swapped[132 + 12 * entry : 136 + 12 * entry])
        new = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(tag, tag)
        swapped[132 + 12 * entry : 136 + 12 * entry] = new
    flag().save(tmp_path / "swapped.png", icc_profile=bytes(swapped))
    flag().save(tmp_path / "broken.png", icc_profile=b"no profile")
    colours = quarters(as_tensor(flag()))
    assert close(read_picture(tmp_path / "swapped.png"), colours.flip(0), 0.02)
    assert close(read_picture(tmp_path / "broken.png"), colours, 0.001)


@pytest.mark.parametrize("turn", range(1, 9))
def test_turned_upright_as_the_camera_says(tmp_path: Path, turn: int) -> None:
    """The stored picture is turned the other way round, so that every one of them comes out as the flag."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    transposes = Image.Transpose
    image = flag()
    if turn > 1:
        names = {0: "FLIP_LEFT_RIGHT", 1: "FLIP_TOP_BOTTOM", 2: "ROTATE_90", 3: "ROTATE_180", 4: "ROTATE_270",
                 5: "TRANSPOSE", 6: "TRANSVERSE"}  # fmt: skip
        image = image.transpose(transposes[names[undo[turn]]])
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    picture = read_picture(tmp_path / "turned.jpg")
    assert picture.shape == (3, SIZE[1], SIZE[0])
    assert close(picture, quarters(as_tensor(flag())), 0.03)
    assert close(read_picture(tmp_path / "turned.jpg", max_side=24), quarters(as_tensor(flag())), 0.03)


def test_spoiled_camera_data_are_ignored(tmp_path: Path) -> None:
    flag().save(tmp_path / "spoiled.jpg", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x03\0\x12\x01")
    assert close(read_picture(tmp_path / "spoiled.jpg"), quarters(as_tensor(flag())), 0.03)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"moving.{ending}"
    flag().save(path, save_all=True, append_images=[Image.new("RGB", SIZE)] * 2, duration=100)
    assert close(read_picture(path), quarters(as_tensor(flag())), 0.03)


def test_straight_alpha_survives_shrinking(tmp_path: Path) -> None:
    """Bright colours hidden under alpha 0 must not leak into the edge of the cut-out."""
    pixels = np.zeros((400, 600, 4), np.uint8)
    pixels[..., :3] = (255, 0, 255)
    pixels[:, 150:450] = (0, 128, 0, 255)
    pixels[:, 450:470] = (0, 128, 0, 128)
    Image.fromarray(pixels).save(tmp_path / "cutout.png")
    cutout = read_cutout(tmp_path / "cutout.png", max_side=97)
    assert cutout.shape == (4, 65, 97)
    assert 0 < cutout[3].sum() < cutout[3].numel()
    visible = cutout[:3, cutout[3] > 0.05]
    assert (visible - torch.tensor([0, 128 / 255, 0])[:, None]).abs().max() < 0.05


def test_large_pictures_shrink_by_averaging(tmp_path: Path) -> None:
    pixels = np.zeros((600, 1200, 3), np.uint8)
    pixels[::2, ::2] = pixels[1::2, 1::2] = 255
    Image.fromarray(pixels).save(tmp_path / "checkerboard.png")
    picture = read_picture(tmp_path / "checkerboard.png", max_side=300)
    assert picture.shape == (3, 150, 300)
    assert (picture - 0.5).abs().max() < 0.01


def test_a_single_pixel_and_a_sliver(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (255, 0, 0)).save(tmp_path / "dot.png")
    assert read_picture(tmp_path / "dot.png").flatten().tolist() == [1, 0, 0]
    Image.new("RGB", (1, 20000), (0, 0, 255)).save(tmp_path / "sliver.png")
    assert read_picture(tmp_path / "sliver.png").shape == (3, 1024, 1)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds almost none: what a decompression bomb looks like before it goes off."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def half_a_jpeg() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((256, 256), 90).save(stream, "JPEG")
    return stream.getvalue()[: stream.tell() // 2]


def half_a_png() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((256, 256), 90).save(stream, "PNG")
    return stream.getvalue()[: stream.tell() // 2]


BAD = {
    "a bomb": (png_header(20000, 20000), "too large"),
    "a picture just too large": (png_header(12001, 10000), "12001 x 10000 pixels"),
    "nothing": (b"", "is empty"),
    "text": (b"Dear Sir or Madam,\n" * 40, "not a picture"),
    "a program in a vector format": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not a picture"),
    "only a beginning": (b"\x89PNG\r\n\x1a\n", "not a picture"),
    "half a JPEG": (half_a_jpeg(), "broken or cut short"),
    "half a PNG": (half_a_png(), "broken or cut short"),
    "a promise": (png_header(64, 64), "broken or cut short"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_gets_one_sentence(tmp_path: Path, name: str) -> None:
    content, words = BAD[name]
    (tmp_path / "given.png").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_picture(tmp_path / "given.png")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_picture(tmp_path)
    with pytest.raises(InputError, match="no picture at"):
        read_cutout(tmp_path / "missing.png")
    assert 10_000 * 10_000 < MAX_PIXELS < 20_000 * 20_000


def test_noise_in_any_file_is_refused_or_read(tmp_path: Path) -> None:
    """Whatever a damaged file does to the decoder, it ends in a picture or in a sentence."""
    generator = np.random.default_rng(0)
    for ending in ("png", "jpg", "gif", "webp", "tiff", "bmp"):
        stream = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        flag().save(stream, {"jpg": "JPEG"}.get(ending, ending.upper()), **({"exif": exif} if ending == "jpg" else {}))
        for _ in range(60):
            content = bytearray(stream.getvalue())
            for place in generator.integers(0, len(content), 6):
                content[place] = generator.integers(0, 256)
            path = tmp_path / f"damaged.{ending}"
            path.write_bytes(bytes(content))
            try:
                picture = read_picture(path)
            except InputError:
                continue
            assert picture.shape[0] == 3
            assert torch.isfinite(picture).all()
