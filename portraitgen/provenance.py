"""What an output says about itself: tags of the container for machines, and a small visible mark for people.

The words follow IPTC's "digital source type" vocabulary (http://cv.iptc.org/newscodes/digitalsourcetype/). Nothing that tells who made
the clip, where, or from which file is ever written.
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np

from . import __version__

if TYPE_CHECKING:
    from .editors import EditRequest

SOURCE_TYPE = "digital_source_type"  # the tag's name
EDITED, RENDERED = "AI-edited", "AI-rendered, not edited"
_TOOL = f"PortraitGen {__version__}"
_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP_BOX = bytes.fromhex(
    "be7acfcb97a942e89c71999491e3afac"
)  # the identifier that Adobe's XMP specification, part 3, gives MP4
_OPACITY = 0.75


def provenance(edits: Sequence[EditRequest], day: date | None = None, *, with_text: bool = False) -> dict[str, str]:
    """Tags for `write_video`: what was done to a clip, with what, and on which day.

    Args:
        edits: what was done, one after the other, with engines settled; empty for a clip that is only rendered again.
        day: in UTC; today if None.
        with_text: also tell the instructions, which may say more about a person than they wish to show.

    Returns:
        ``comment``, one line for a person; ``description``, the same facts as JSON; ``date``; and `SOURCE_TYPE`, IPTC's address for it.
    """
    day = day or datetime.now(timezone.utc).date()
    source_type = _VOCABULARY + ("compositeWithTrainedAlgorithmicMedia" if edits else "compositeSynthetic")
    done = [{"edit": edit.kind, "engine": edit.engine} for edit in edits]
    if with_text:
        done = [facts | {"text": edit.text} for facts, edit in zip(done, edits, strict=True)]
    words = EDITED if edits else RENDERED
    by = ", ".join(f"{edit.kind} by {edit.engine}" for edit in edits)
    facts = {
        "statement": words,
        "tool": _TOOL,
        "edits": done,
        "date": day.isoformat(),
        "digitalSourceType": source_type,
    }
    return {
        "comment": f"{words} ({_TOOL}, {day.isoformat()})" + (f": {by}" if by else ""),
        "description": json.dumps(facts, ensure_ascii=False, separators=(",", ":")),
        "date": day.isoformat(),
        SOURCE_TYPE: source_type,
    }


def xmp(tags: Mapping[str, str]) -> bytes:
    """A `provenance` as the XMP packet that pictures carry."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f" xmp:CreatorTool={quoteattr(_TOOL)} xmp:MetadataDate={quoteattr(tags['date'])}"
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(tags[SOURCE_TYPE])}/>"
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def xmp_box(tags: Mapping[str, str]) -> bytes:
    """The box that holds the XMP packet of an MP4; appended to one it moves nothing, and players skip it."""
    packet = xmp(tags)
    return struct.pack(">I4s", 8 + len(_XMP_BOX) + len(packet), b"uuid") + _XMP_BOX + packet


def marked(frame: np.ndarray, words: str = EDITED) -> np.ndarray:
    """A copy of ``frame`` (uint8, ``[H, W, 3]``, or ``[H, W, 4]`` with straight alpha) with small words in its lower right corner."""
    height, width = frame.shape[:2]
    light, cover = _mark(height, width, words)
    rows, columns = slice(height - cover.shape[0], None), slice(width - cover.shape[1], None)
    result = frame.copy()
    corner = result[rows, columns, :3].astype(np.float32)
    if frame.shape[2] == 4:  # straight alpha: the words cover what is there and stand by themselves where nothing is
        below = frame[rows, columns, 3:].astype(np.float32) / 255 * (1 - cover)
        total = below + cover
        mixed = np.where(total > 0, (corner * below + light * cover) / np.maximum(total, 1e-6), corner)
        result[rows, columns, 3:] = np.rint(total * 255)
    else:
        mixed = corner * (1 - cover) + light * cover
    result[rows, columns, :3] = np.rint(mixed)
    return result


@functools.cache
def _mark(height: int, width: int, words: str) -> tuple[np.ndarray, np.ndarray]:
    """Brightness in [0, 255] and cover in [0, 1] of the words, white with a dark rim, both ``[h, w, 1]`` of the frame's corner."""
    font, letter = cv2.FONT_HERSHEY_SIMPLEX, max(10.0, 0.028 * min(height, width))  # pixels
    scale = letter / 22
    stroke = max(1, round(scale * 2))
    rim = stroke + 2 * max(1, round(scale))
    (wide, tall), below = cv2.getTextSize(words, font, scale, rim)
    gap = round(letter * 0.8)
    size = (min(height, tall + below + 2 * gap), min(width, wide + 2 * gap))
    place = (gap, size[0] - gap - below)
    inner, outer = (
        cv2.putText(np.zeros(size, np.uint8), words, place, font, scale, 255, thickness, cv2.LINE_AA)
        for thickness in (stroke, rim)
    )
    cover = np.maximum(inner, outer // 2)[..., None].astype(np.float32) / 255 * _OPACITY
    light = np.divide(inner[..., None].astype(np.float32) * _OPACITY, cover, out=np.zeros_like(cover), where=cover > 0)
    for array in (light, cover):
        array.setflags(write=False)
    return light, cover
