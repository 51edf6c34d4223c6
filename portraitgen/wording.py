"""Every sentence and label of the page, in one place. No gradio in here."""

from __future__ import annotations

import html

from .pipeline import PRESETS

TITLE = "PortraitGen"
INTRODUCTION = """# PortraitGen
Upload a portrait clip, say what to change, and get the clip back: same person, same expressions, same sound.

**Edit only people who agreed.** Your clip stays on this machine and is deleted about an hour after you leave."""
CLIP_HINT = "One person, face in view, 3 to 10 seconds. Steady light and a still camera work best."
STAGE_LABELS = {
    "clip": "Reading the clip",
    "tracking": "Following head and shoulders",
    "matting": "Cutting out the person",
    "reconstruction": "Learning the person in 3D",
    "edit": "Editing key pictures",
    "fitting": "Carrying the edit over to every frame",
    "render": "Rendering the clip",
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
STORED = "A stored result, made earlier with these settings. Press the button below to make it anew."
WAITING = "Waiting to start."
STOPPING = "Stopping."
STOPPED = "Stopped. Run it again to go on."
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
