"""Every sentence and label of the page, in one place. No gradio in here."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Sequence

from .limits import MAX_MEGABYTES, MAX_SECONDS
from .pipeline import PRESETS
from .weights_table import ENGINE_WEIGHTS

TITLE = "PortraitGen"
LABELS = {  # of fields, buttons and folds, in the order of the page
    "samples": "For example",
    "engine": "Engine in use",
    "reset": "Reset",
    "tab_text": "Text",
    "text": "Instruction",
    "all_looks": "Everything the built-in looks can do",
    "pick": "Pick one",
    "tab_style": "Image style",
    "style": "Style picture",
    "keep_colours": "Keep the clip's colours, take the brushwork only",
    "tab_tryon": "Try-on",
    "garment": "Garment photo",
    "tab_relight": "Relighting",
    "light": "Light",
    "light_of_picture": "Or take the light of a picture",
    "light_picture": "Picture with the light",
    "clip": "Clip",
    "strength": "Strength",
    "background": "Background",
    "advanced": "Advanced",
    "quality": "Quality",
    "seed": "Seed",
    "key_frames": "Key frames",
    "guidance": "Guidance",
    "behind": "Picture to put behind the person",
    "learn": "Learn the clip now, edit later",
    "run": "Edit the clip",
    "stop": "Stop",
    "preview": "Work in progress",
    "onward": "Edit this further",
    "download": "Download the result",
    "views": "Look from all sides",
    "around": "Prepare the turntable",
    "yaw": "Turn to the side, degrees",
    "pitch": "Turn up or down, degrees",
    "orbit": "Swing around the person instead",
    "turn": "Render the clip from this side",
    "take": "Take it with you",
    "earlier": "This session's edits",
}
INTRODUCTION = """# PortraitGen
Upload a portrait clip, say what to change, and get the clip back: same person, same expressions, same sound."""
CONSENT = """**Edit only people who agreed.** Your clip stays on this machine and is deleted at most three hours after your last edit."""
OWN_MACHINE = (
    "[Duplicate this Space](https://huggingface.co/spaces/{space}?duplicate=true) to run it alone and without a queue. "
    "Duplicating needs a paid Hugging Face plan, and a GPU is billed by the hour until you pause it."
)
HEADINGS = ("## 1 · Your clip", "## 2 · The change", "## 3 · The result")
CLIP_HINT = "One person, face in view, 3 to 10 seconds. Steady light and a still camera work best."
AGAIN = "Go on from the result that is shown, not from the clip"
TOO_LARGE = (
    f"This file is larger than {MAX_MEGABYTES} MB. Cut the clip to the seconds that you need, or save it smaller."
)
LOOKING = "Looking for the face…"
START = "Start at second"
SECONDS = "Seconds of the clip to use"
START_HERE = "Start at the picture shown above"
MARK = "Say in a corner of the picture that it is AI-edited"
EMPTY_RESULT = "The result will appear here, beside your clip."
LOOK_LABEL = "What will be worked on: the bright square"
STAGE_LABELS = {
    "clip": "Reading the clip",
    "tracking": "Following head and shoulders",
    "matting": "Cutting out the person",
    "reconstruction": "Learning the person in 3D",
    "edit": "Editing key pictures",
    "fitting": "Carrying the edit over to every frame",
    "render": "Rendering",
    "export": "Packing",
}
PRESET_CHOICES = [("Preview (fastest)" if name == "preview" else name.capitalize(), name) for name in PRESETS]
BACKGROUNDS = [
    ("Keep, unless the edit is about it", "auto"),
    ("Keep", "original"),
    ("Edit it along", "edited"),
    ("Blur", "blur"),
    ("White", "white"),
    ("Green", "green"),
    ("Transparent (WebM)", "transparent"),
]
ENGINE_NAMES = {
    "text": "Built-in looks",
    "style": "Built-in style transfer",
    "tryon": "Built-in try-on",
    "relight": "Built-in relighting",
    "instruct-pix2pix": "InstructPix2Pix",
    "flux2-klein": "FLUX.2 klein",
    "gatys": "Gatys (VGG19)",
    "fashn-vton": "FASHN VTON 1.5",
    "ic-light": "IC-Light",
}
LIGHTS = (
    "warm sunset from the left",
    "soft studio light from the front",
    "blue light from the left and red light from the right",
    "candlelight from below",
    "cold moonlight from above",
    "Rembrandt light",
)
TEXT_HINT = "turn her into a bronze statue"
COLOUR_HINT = "or type a colour such as #203040"
LIGHT_HINT = "warm sunset from the left"
ENGINE_HINT = "Others appear once their weights are fetched"
KEY_FRAMES_HINT = "4 to 64; 0: as the quality says"
GUIDANCE_HINT = "1 to 15; read by InstructPix2Pix, IC-Light and FASHN VTON; 0: their own"
STORED_HINT = "Or see what was made earlier from the example clips:"
STORED = "A stored result, made earlier with these settings. Press the button below to make it anew."
WAITING = "Waiting to start."
STARTING = "Starting"
NOT_DONE = "Not done"
QUEUE_FULL = "Too many jobs are waiting. Try again in a few minutes: your clip and your settings stay here until then."
REFUSED = "The job could not be started: a file is no longer here, or a setting is out of range. Choose the clip anew, or press Reset."
STOPPING = "Stopping."
STOPPED = "Stopped. What was finished is kept: run it again to go on from there."
RESTORED = "Your latest result. It is kept for an hour after you leave, and at most three hours after your last edit."
RESTORED_CLIP = "Your clip of before. It is learned already: say what to change."
CHOSEN = "Shown again. Go on from it, or take it with you."
PLAYER = {  # of the player in the browser
    "empty": EMPTY_RESULT,
    "clip": "Clip",
    "shown": "Result",
    "wipe": "Wipe",
    "side": "Side by side",
    "result": "Result only",
    "modes": "How to compare",
    "cut": "Line between clip and result",
    "play": "Play",
    "seek": "Place in the clip",
    "sound": "Sound",
    "views": "The person from another side",
    "turn": "Turn the person",
}
EDIT_TITLES = {"text": "", "style": "Style: ", "tryon": "Try-on: ", "relight": "Light: "}
EXPORTS = {
    "webm": "Transparent WebM",
    "orbit": "Orbit video",
    "ply": "Gaussians (PLY)",
    "zip": "Portrait folder (zip)",
}
HUB_ON_CPU = "That is with the built-in engines; those from the Hub take many times as long without a GPU."
_SHORTER = "Use fewer seconds of the clip, or the preview quality."
BROKEN = "Something broke on our side. Run it again; if it happens again, try another clip."

FIRST = ("bronze", "blonde hair", "3d cartoon", "pencil", "sunset", "red clothes", "style 19: starry night", "zombie")


def note(message: str, *more: str, bad: bool = False, value: float | None = None) -> str:
    """HTML of the message area; every word is escaped."""
    kind = ' class="bad" role="alert"' if bad else ""
    bar = "" if value is None else f'<progress max="1" value="{value:.3f}" aria-label="Whole job"></progress>'
    rest = "".join(f'<p class="more">{html.escape(line)}</p>' for line in more if line)
    return f"<p{kind}>{html.escape(message)}</p>{bar}{rest}"


def spell(seconds: float) -> str:
    """A length of time in words: ``"42 s"``, ``"3 min 5 s"``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def describe_clip(width: int, height: int, seconds: float, rate: float, sound: bool, start: float) -> str:
    """Facts about the part of a clip that will be used, from second ``start`` on."""
    where = f" from {start:.1f} s on" if start else ""
    return f"{width} × {height}, {seconds:.1f} s used{where}, {rate:.3g} frames a second, {'with' if sound else 'without'} sound."


def describe_rest(seconds: float) -> str:
    """What to do about the seconds of a clip behind the part that is used; nothing to say where there are none."""
    if seconds < 0.5:
        return ""
    return f"The last {roughly(seconds)} of the clip are left out. Set more seconds to use, up to {MAX_SECONDS:.0f}, or a later start."


def describe_face(seen: int, moments: int) -> str:
    """What the first look found."""
    if seen == moments:
        return "One face in view."
    return f"The face is in view at {seen} of {moments} moments looked at. Frames without it stay as they are."


def name_engine(kind: str, engine: str, missing: int) -> str:
    """An engine's name in a list, with the bytes ``missing`` that its first use downloads, if any."""
    name = ENGINE_NAMES.get(engine, ENGINE_NAMES[kind])
    return f"{name} ({missing / 1e9:.1f} GB, fetched at first use)" if missing else name


def describe_fetching(name: str, done: int, total: int) -> str:
    """How far the download of an entry of the weights is, in bytes, while the app starts."""
    engine = next((engine for engine, entries in ENGINE_WEIGHTS.items() if name in entries), name)
    size = f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{total / 1e6:.0f} MB"
    share = round(100 * done / max(total, 1))
    return f"Fetching {ENGINE_NAMES.get(engine, name)}, {share} % of {size}; the built-in engines work meanwhile."


def describe_stage(stage: str, fraction: float) -> str:
    """What a job does now, and how far that is."""
    return f"{STAGE_LABELS.get(stage, stage)}: {fraction:.0%}"


def describe_step(place: int, count: int, seconds: float, left: float | None) -> str:
    """The place of a stage in its job, counted from 1, the seconds so far, and those that are left, if that is known."""
    rest = "" if left is None else f", about {roughly(left)} left"
    return f"Step {place} of {count}, {spell(seconds)} so far{rest}."


def describe_done(seconds: float) -> str:
    """That a job is done, and how long it took."""
    return f"Done in {spell(seconds)}."


def not_offered(engine: str, offered: Sequence[str]) -> str:
    """That this machine does not offer an engine, and which ones it does."""
    return f"{ENGINE_NAMES[engine]} is not to be had on this machine. Choose one of: auto, {', '.join(offered)}."


def cannot_use(engine: str, why: str) -> str:
    """That an engine from the Hub is not to be had; ``why`` is a sentence or two."""
    return f"{ENGINE_NAMES[engine]} cannot be used: {why}"


def took_over(kind: str) -> str:
    """That the built-in engine does an edit of this kind instead."""
    return f"{ENGINE_NAMES[kind]} took over."


def describe_price(reserved: Sequence[int]) -> str:
    """What an edit takes of a visitor's share: ``reserved`` seconds for each call of a shared GPU, for the edit last."""
    once = f" {sum(reserved[:-1])} s to learn the clip, once, and" if reserved[1:] else ""
    return f"Of your share of GPU time this takes{once} {reserved[-1]} s for each edit."


def describe_cost(learn: float, edit: float, *, cores: int, gpu: bool) -> str:
    """What an edit of the clip will take.

    Args:
        learn, edit: seconds on this machine's CPU, to learn the clip and for each edit.
        gpu: whether there is a GPU, which is faster than that.
    """
    if gpu:
        return "It is worked on by this machine's GPU."
    processor = f"this machine's {cores} CPU cores" if cores > 1 else "this machine's one CPU core"
    if not learn:
        return f"The clip is learned already. An edit takes about {roughly(edit)} on {processor}."
    return f"On {processor} about {roughly(learn)} to learn the clip, once, and {roughly(edit)} for each edit."


def explain_too_long(seconds: float, longest: int, share: float) -> str:
    """That a job hardly fits the shared GPU, and what to do.

    Args:
        seconds: that its longest call is expected to take.
        longest: seconds that a call may take.
        share: of its part of the clip with which it fits, or 0.
    """
    remedy = f"Use a part of the clip at most {share:.0%} as long, or duplicate" if share else "Duplicate"
    return (
        f"Rendering this clip takes about {seconds:.0f} s of GPU, and the shared GPU is lent for {longest} s at a time: "
        f"it would hardly be done. {remedy} this Space to a GPU of your own."
    )


def roughly(seconds: float) -> str:
    """A length of time as one says an estimate: ``"20 s"``, ``"4 min"``."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def is_overrun(message: str) -> bool:
    """Whether the shared GPU ended a call because its time was up."""
    return "aborted" in message.lower() or "exceeding its requested duration" in message.lower()


def explain_overrun(finished: Collection[str], *, longer: bool) -> str:
    """What it means that the time of a call was up, and what to do.

    Args:
        finished: stages that are done, or begun and kept.
        longer: whether the next call may take longer.
    """
    rest = " press the button again to go on from there, with more time." if longer else f" {_SHORTER}"
    return f"The shared GPU ended the job before it was done. {_kept(finished)}{':' if longer else '.'}{rest}"


def explain_gpu(title: str, message: str, finished: Collection[str] = ()) -> str:
    """A refusal of the shared GPU (ZeroGPU) in a sentence or two, with what to do; any other message stays as it is.

    Args:
        finished: stages that are done, or begun and kept.
    """
    told = f"{title} {message}".lower()
    wait = re.search(r"try again in ([0-9: a-z,]+?)\s*(?:\.|$)", message, re.IGNORECASE)
    kept = f" {_kept(finished)}." if finished else ""
    if "worker error" in told:  # the class of an exception
        return BROKEN
    if "illegal duration" in told:
        return f"The job is longer than the shared GPU allows. {_SHORTER}"
    if "too many zerogpu credits" in told or "pending credits" in told:
        return "Your other jobs hold all of your GPU time. Wait until one of them is done, and run this one again."
    if "no gpu was available" in told:
        return f"No GPU became free in time. Run it again in a minute.{kept}"
    if "quota" in told or "limit" in told:
        when = f" in {wait[1].strip()}" if wait else " later"
        return (
            f"Your share of GPU time is used up for now. Try again{when}, use fewer seconds or the preview quality, or sign in to "
            f"Hugging Face for more.{kept}"
        )
    return message


def _kept(finished: Collection[str]) -> str:
    """What is kept of a job that was ended, in words without a full stop."""
    if "edit" in finished:
        return "What is edited so far is kept"
    if "reconstruction" in finished:
        return "What was learned of the person is kept"
    return "The cut-out clip is kept" if "matting" in finished else "Your clip is kept"
