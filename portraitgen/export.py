"""What a person can take away from a portrait folder besides clips: its Gaussians, views from all sides, the folder itself.

Each says what it is, as the videos do (`provenance`): the PLY in its header's comments, the picture of all sides in its XMP packet, the
archive in a file of its own.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .errors import InputError
from .free_view import ORBIT_YAW, head_pivot, orbit_viewmats, prepare_free_view
from .pipeline import resolve_device
from .portrait import Portrait
from .progress import Progress
from .provenance import SOURCE_TYPE, provenance, xmp
from .reconstruction import load_fitted, to_uint8
from .sessions import VIEWS
from .storage import replacing
from .streaming import steady

VIEW_SIDE = 384  # px, side of one of the turntable's pictures
_SH0 = 0.28209479177387814  # the constant spherical harmonic, by which 3DGS files scale colours
_PACKED = {".json", ".safetensors"}  # the rest is compressed already
PLY_FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


def tags_of(portrait: Portrait) -> dict[str, str]:
    """`provenance` of what is made of a portrait today."""
    return provenance(portrait.edit_requests())


def write_packed(what: str, directory: Path, output: Path, *, device: str = "auto") -> Iterator[Progress]:
    """Write a portrait folder as ``what``, one of `sessions.PACKED`; on ``device``, where there is something to compute."""
    if what == "ply":
        return write_ply(directory, output, device=device)
    if what == "zip":
        return write_zip(directory, output)
    return write_views(directory, output, count=VIEWS, device=device)


@steady
def write_ply(directory: Path, output: Path, frame: int = 0, *, device: str = "auto") -> Iterator[Progress]:
    """Write the avatar as it stands in one frame as a 3D Gaussian Splatting PLY (the layout of the original implementation).

    Metres, OpenCV axes (y down) about the middle of the head, logits of opacities, logarithms of scales, wxyz rotations, colour as the
    constant spherical harmonic. What the neural renderer adds to the colours is no property of a Gaussian and not in the file.
    """
    portrait = Portrait.load(directory)
    portrait.require("reconstruction")
    if not 0 <= frame < portrait.clip.frame_count:
        raise InputError(f"There is no frame {frame}. The clip has {portrait.clip.frame_count}, counted from 0.")
    yield Progress("export", 0.1, "Reading the avatar")
    fitted = load_fitted(portrait, resolve_device(device))
    with torch.no_grad():
        frames = torch.tensor([frame], device=fitted.avatar.features.device)
        gaussians = fitted.avatar(fitted.mesh(frames))
        means = gaussians.means[0] - head_pivot(fitted).to(gaussians.means)
        columns = [
            means,
            torch.zeros_like(means),
            (gaussians.features[:, :3].clamp(0, 1) - 0.5) / _SH0,
            gaussians.opacities[0].clamp(1e-6, 1 - 1e-6).logit()[:, None],
            gaussians.scales[0].log(),
            F.normalize(gaussians.quats[0], dim=-1),
        ]
        rows = torch.cat(columns, 1).float().cpu().numpy().astype("<f4")
    yield Progress("export", 0.7, f"Writing {len(rows):,} Gaussians")
    tags = tags_of(portrait)
    head = ["ply", "format binary_little_endian 1.0"]
    head += [f"comment {tags['comment']}", f"comment {SOURCE_TYPE} {tags[SOURCE_TYPE]}"]
    head += [f"element vertex {len(rows)}"]
    head += [*(f"property float {name}" for name in PLY_FIELDS), "end_header", ""]
    with replacing(output) as temporary:
        temporary.write_bytes("\n".join(head).encode("ascii") + rows.tobytes())
    yield Progress("export", 1.0, f"Wrote {output}")


@steady
@torch.no_grad()
def write_views(directory: Path, output: Path, *, count: int, device: str = "auto") -> Iterator[Progress]:
    """Write one moment of the clip, the middle, from ``count`` sides as a strip of `VIEW_SIDE` px pictures, left to right, over white."""
    portrait = Portrait.load(directory)
    portrait.require("reconstruction")
    where = resolve_device(device)
    fitted = load_fitted(portrait, where)
    K = portrait.tracking().K.to(where)
    prepare_free_view(portrait, fitted, K)
    size = portrait.crop.size
    frame = torch.tensor([portrait.clip.frame_count // 2], device=where)
    cameras = orbit_viewmats(head_pivot(fitted), np.linspace(-ORBIT_YAW, ORBIT_YAW, count), np.zeros(count)).to(where)
    pictures = []
    for number, camera in enumerate(cameras):
        shown = to_uint8(
            fitted.render(frame, K[None], size, size, camera[None]).over(torch.ones(3, 1, 1, device=where))
        )[0]
        pictures.append(cv2.resize(shown, (VIEW_SIDE, VIEW_SIDE), interpolation=cv2.INTER_AREA))
        yield Progress("render", (number + 1) / count, f"View {number + 1} of {count}", shown)
    file = io.BytesIO()
    Image.fromarray(np.concatenate(pictures, 1)).save(file, "JPEG", quality=85, xmp=xmp(tags_of(portrait)))
    with replacing(output) as temporary:
        temporary.write_bytes(file.getvalue())


@steady
def write_zip(directory: Path, output: Path) -> Iterator[Progress]:
    """Pack a portrait folder; unpacked, it goes on from the command line.

    Unlike all else that is made here it holds the clip itself, and the words and pictures of the edits: it is for whoever made them.
    """
    portrait = Portrait.load(directory)
    portrait.require("reconstruction")
    files = sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    with replacing(output) as temporary, zipfile.ZipFile(temporary, "w", compresslevel=1) as archive:
        for number, path in enumerate(files):
            yield Progress("export", number / len(files), f"Packing {path.name}")
            how = zipfile.ZIP_DEFLATED if path.suffix in _PACKED else zipfile.ZIP_STORED
            archive.write(path, f"portrait/{path.name}", how)
        archive.writestr("provenance.json", tags_of(portrait)["description"])
    yield Progress("export", 1.0, f"Wrote {output}")
