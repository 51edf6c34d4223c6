"""The page's named endpoints, which its buttons and other people's programs call; their docstrings are what the API page shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from page_handlers import drive, offered
from portraitgen.editors import EditRequest
from portraitgen.sessions import Job, Session, make_edit, make_job, make_render, number


def reconstruct(
    clip: str | None, preset: str, start: float, max_seconds: float, session: Session
) -> Iterator[tuple[Any, ...]]:
    """Learn the person in a clip, so that later edits of it in this session skip that part.

    Args:
        clip: a video of one person.
        preset: preview, standard or high.
        start: use the clip from this second on.
        max_seconds: use only this many seconds of it.

    Returns:
        Status as HTML, and the latest picture of the reconstruction.
    """
    for view in drive(session, lambda own: make_job(clip, preset, start, max_seconds, own)):
        yield view[1:]


def edit(
    kind: str,
    clip: str | None,
    strength: float,
    preset: str,
    background: str,
    seed: float,
    start: float,
    max_seconds: float,
    mark: bool,
    again: bool,
    engine: str,
    session: Session,
    behind: str | None,
    *,
    text: str | None = None,
    picture: str | None = None,
    keep_colors: bool = False,
    key_frames: float = 0,
    guidance: float = 0,
) -> Iterator[tuple[Any, ...]]:
    """What the four kinds of edit share: the settings below the tabs."""

    def prepare(own: Session) -> Job:
        request = EditRequest(
            kind,
            text or "",
            Path(picture) if picture else None,
            engine=offered(kind, engine),
            strength=number(strength, "strength"),
            seed=int(number(seed, "seed")),
            keep_colors=keep_colors,
            key_frames=int(number(key_frames, "number of key frames")) if key_frames else None,
            guidance=number(guidance, "guidance") if guidance else None,
        )
        job = make_job(clip, preset, start, max_seconds, own)
        return make_edit(job, own, request, background or "auto", behind=behind or "", again=again, mark=mark)

    yield from drive(session, prepare)


def edit_text(
    clip: str | None,
    text: str,
    strength: float,
    preset: str,
    background: str,
    seed: float,
    start: float,
    max_seconds: float,
    mark: bool,
    again: bool,
    engine: str,
    session: Session,
    behind: str | None = None,
    key_frames: float = 0,
    guidance: float = 0,
) -> Iterator[tuple[Any, ...]]:
    """Edit a portrait clip by an instruction.

    Args:
        clip: a video of one person.
        text: what to change, such as "turn her into a bronze statue".
        strength: how strongly, from 0 to 1.
        preset: preview, standard or high.
        background: auto, original, edited, blur, transparent, white, green or a colour such as #203040.
        seed: the same seed gives the same result.
        start: use the clip from this second on.
        max_seconds: use only this many seconds of it.
        mark: say in a corner of the picture that it is AI-edited, not only in the file's tags.
        again: go on from the result that is shown, this session's latest unless another was picked, instead of the clip.
            Every call of an agent (MCP) is a session of its own.
        engine: auto, builtin, instruct-pix2pix or flux2-klein.
        behind: a picture to put behind the person instead.
        key_frames: how many pictures of the clip are edited, from 4 to 64; 0 for 16, 24 or 32 as the preset says.
        guidance: how closely instruct-pix2pix keeps to the request, from 1 to 15; 0 for its own. Other engines have none.

    Returns:
        The edited clip, status as HTML, and the latest picture while it works.
    """
    settings = clip, strength, preset, background, seed, start, max_seconds, mark, again, engine, session, behind
    yield from edit("text", *settings, text=text, key_frames=key_frames, guidance=guidance)


def edit_style(
    clip: str | None,
    style: str | None,
    keep_colors: bool,
    strength: float,
    preset: str,
    background: str,
    seed: float,
    start: float,
    max_seconds: float,
    mark: bool,
    again: bool,
    engine: str,
    session: Session,
    behind: str | None = None,
    key_frames: float = 0,
    guidance: float = 0,
) -> Iterator[tuple[Any, ...]]:
    """Edit a portrait clip by a style picture: the person takes on its colours and brushwork.

    Args:
        clip: a video of one person.
        style: a painting or any other picture.
        keep_colors: take the brushwork only.
        strength: how strongly, from 0 to 1.
        preset: preview, standard or high.
        background: auto, original, edited, blur, transparent, white, green or a colour such as #203040.
        seed: the same seed gives the same result.
        start: use the clip from this second on.
        max_seconds: use only this many seconds of it.
        mark: say in a corner of the picture that it is AI-edited, not only in the file's tags.
        again: go on from the result that is shown, this session's latest unless another was picked, instead of the clip.
            Every call of an agent (MCP) is a session of its own.
        engine: auto, builtin or gatys.
        behind: a picture to put behind the person instead.
        key_frames: how many pictures of the clip are edited, from 4 to 64; 0 for 16, 24 or 32 as the preset says.
        guidance: none of this edit's engines reads it.

    Returns:
        The edited clip, status as HTML, and the latest picture while it works.
    """
    settings = clip, strength, preset, background, seed, start, max_seconds, mark, again, engine, session, behind
    yield from edit(
        "style", *settings, picture=style, keep_colors=keep_colors, key_frames=key_frames, guidance=guidance
    )


def edit_tryon(
    clip: str | None,
    garment: str | None,
    strength: float,
    preset: str,
    background: str,
    seed: float,
    start: float,
    max_seconds: float,
    mark: bool,
    again: bool,
    engine: str,
    session: Session,
    behind: str | None = None,
    key_frames: float = 0,
    guidance: float = 0,
) -> Iterator[tuple[Any, ...]]:
    """Dress the person in a garment.

    Args:
        clip: a video of one person.
        garment: a photo of a top, dress, shirt or jacket, lying flat or worn.
        strength: how strongly, from 0 to 1.
        preset: preview, standard or high.
        background: auto, original, edited, blur, transparent, white, green or a colour such as #203040.
        seed: the same seed gives the same result.
        start: use the clip from this second on.
        max_seconds: use only this many seconds of it.
        mark: say in a corner of the picture that it is AI-edited, not only in the file's tags.
        again: go on from the result that is shown, this session's latest unless another was picked, instead of the clip.
            Every call of an agent (MCP) is a session of its own.
        engine: auto, builtin or fashn-vton.
        behind: a picture to put behind the person instead.
        key_frames: how many pictures of the clip are edited, from 4 to 64; 0 for 16, 24 or 32 as the preset says.
        guidance: how closely fashn-vton keeps to the request, from 1 to 15; 0 for its own. Other engines have none.

    Returns:
        The edited clip, status as HTML, and the latest picture while it works.
    """
    settings = clip, strength, preset, background, seed, start, max_seconds, mark, again, engine, session, behind
    yield from edit("tryon", *settings, picture=garment, key_frames=key_frames, guidance=guidance)


def edit_relight(
    clip: str | None,
    light: str,
    strength: float,
    preset: str,
    background: str,
    seed: float,
    start: float,
    max_seconds: float,
    mark: bool,
    again: bool,
    engine: str,
    session: Session,
    behind: str | None = None,
    light_picture: str | None = None,
    key_frames: float = 0,
    guidance: float = 0,
) -> Iterator[tuple[Any, ...]]:
    """Light a portrait clip anew.

    Args:
        clip: a video of one person.
        light: a description, such as "warm sunset from the left".
        strength: how strongly, from 0 to 1.
        preset: preview, standard or high.
        background: auto, original, edited, blur, transparent, white, green or a colour such as #203040.
        seed: the same seed gives the same result.
        start: use the clip from this second on.
        max_seconds: use only this many seconds of it.
        mark: say in a corner of the picture that it is AI-edited, not only in the file's tags.
        again: go on from the result that is shown, this session's latest unless another was picked, instead of the clip.
            Every call of an agent (MCP) is a session of its own.
        engine: auto, builtin or ic-light.
        behind: a picture to put behind the person instead.
        light_picture: a picture to take the light from, instead of or besides the words.
        key_frames: how many pictures of the clip are edited, from 4 to 64; 0 for 16, 24 or 32 as the preset says.
        guidance: how closely ic-light keeps to the request, from 1 to 15; 0 for its own. Other engines have none.

    Returns:
        The edited clip, status as HTML, and the latest picture while it works.
    """
    settings = clip, strength, preset, background, seed, start, max_seconds, mark, again, engine, session, behind
    yield from edit("relight", *settings, text=light, picture=light_picture, key_frames=key_frames, guidance=guidance)


def render(
    clip: str | None,
    preset: str,
    start: float,
    max_seconds: float,
    yaw: float,
    pitch: float,
    orbit: bool,
    mark: bool,
    session: Session,
) -> Iterator[tuple[Any, ...]]:
    """Look at the person from another side: the latest edit of this session, or the clip itself, as for every call of an agent (MCP).

    Args:
        clip: a video of one person.
        preset: preview, standard or high.
        start: use the clip from this second on.
        max_seconds: use only this many seconds of it.
        yaw: turn of the camera to the side, in degrees.
        pitch: turn of the camera up or down, in degrees.
        orbit: swing the camera around the person instead.
        mark: say in a corner of the picture what it is, not only in the file's tags.

    Returns:
        The rendered clip, status as HTML, and the latest picture while it works.
    """
    options = {"yaw": 0.0, "pitch": 0.0, "orbit": True} if orbit else {"yaw": yaw, "pitch": pitch, "orbit": False}
    options |= {"mark": mark}

    def prepare(own: Session) -> Job:
        job = make_job(clip, preset, start, max_seconds, own)
        for name, turn in options.items():
            number(turn, name)
        return make_render(job, own, view="crop", background="white", **options)

    yield from drive(session, prepare)
