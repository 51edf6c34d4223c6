"""The table of weights on the Hub: what each entry is, where it lies, what it costs, and which engine needs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One set of weights.

    Attributes:
        name: folder name and the name on the command line.
        repo: repository on the Hub.
        revision: commit the entry is pinned to, 40 hex digits.
        parts: files that are needed; of each tuple the first that the commit holds is taken.
        size: bytes to download, about.
        licence: licence as the repository states it, with what lies underneath.
        gated: whether the repository asks for an accepted licence and a token.
        needed_by: what it is for.
    """

    name: str
    repo: str
    revision: str
    parts: tuple[tuple[str, ...], ...]
    size: int
    licence: str
    gated: bool
    needed_by: str


def _files(*paths: str) -> tuple[tuple[str, ...], ...]:
    return tuple((path,) for path in paths)


def _either_precision(path: str) -> tuple[str, str]:
    """Half precision first: half the download, and what a GPU runs anyway."""
    return f"{path}.fp16.safetensors", f"{path}.safetensors"


_STABLE_DIFFUSION = (
    *_files(
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "text_encoder/config.json",
        "unet/config.json",
        "vae/config.json",
    ),
    _either_precision("text_encoder/model"),
    _either_precision("unet/diffusion_pytorch_model"),
    _either_precision("vae/diffusion_pytorch_model"),
)

TABLE = (
    Entry(
        name="instruct-pix2pix",
        repo="timbrooks/instruct-pix2pix",
        revision="31519b5cb02a7fd89b906d88731cd4d6a7bbf88d",
        parts=_STABLE_DIFFUSION,
        size=2_134_000_000,
        licence="MIT; Stable Diffusion 1.5 underneath: CreativeML OpenRAIL-M",
        gated=False,
        needed_by="text edits with the engine instruct-pix2pix",
    ),
    Entry(
        name="flux2-klein",
        repo="black-forest-labs/FLUX.2-klein-4B",
        revision="e7b7dc27f91deacad38e78976d1f2b499d76a294",
        parts=_files(
            "scheduler/scheduler_config.json",
            "tokenizer/added_tokens.json",
            "tokenizer/chat_template.jinja",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
            "text_encoder/config.json",
            "text_encoder/generation_config.json",
            "text_encoder/model.safetensors.index.json",
            "text_encoder/model-00001-of-00002.safetensors",
            "text_encoder/model-00002-of-00002.safetensors",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ),
        size=15_968_708_645,
        licence="Apache-2.0",
        gated=False,
        needed_by="text edits with the engine flux2-klein",
    ),
    Entry(
        name="vgg19",
        repo="timm/vgg19.tv_in1k",
        revision="128d4708565b3a414bcbb9bbad440b2fe37b9f18",
        parts=_files("model.safetensors"),
        size=574_700_000,
        licence="BSD-3-Clause",
        gated=False,
        needed_by="style pictures with the engine gatys",
    ),
    Entry(
        name="fashn-vton",
        repo="fashn-ai/fashn-vton-1.5",
        revision="7720683168567eb5a2a4c67f15116c6e29c83ded",
        parts=_files("model.safetensors"),
        size=1_943_668_048,
        licence="Apache-2.0",
        gated=False,
        needed_by="garments with the engine fashn-vton",
    ),
    Entry(
        name="dwpose",
        repo="fashn-ai/DWPose",
        revision="548b5df25b84d9f4aac0611dfa1c2a7a12f15571",
        parts=_files("dw-ll_ucoco_384.onnx"),
        size=134_399_116,
        licence="Apache-2.0",
        gated=False,
        needed_by="garments with the engine fashn-vton",
    ),
    Entry(
        name="ic-light",
        repo="lllyasviel/ic-light",
        revision="9cad1878695f546a7fb9eaca14e2a89131ba5ffe",
        parts=_files("iclight_sd15_fc.safetensors"),
        size=1_719_200_000,
        licence="CreativeML OpenRAIL-M",
        gated=False,
        needed_by="new light with the engine ic-light",
    ),
    Entry(
        name="realistic-vision",
        repo="stablediffusionapi/realistic-vision-v51",
        revision="19e3643d7d963c156d01537188ec08f0b79a514a",
        parts=_STABLE_DIFFUSION,
        size=2_134_000_000,
        licence="CreativeML OpenRAIL-M",
        gated=False,
        needed_by="new light with the engine ic-light",
    ),
    Entry(
        name="vgg16",
        repo="timm/vgg16.tv_in1k",
        revision="b8d8aa2dd860af9233c8c67385a8097fd6c35d3f",
        parts=_files("model.safetensors"),
        size=553_500_000,
        licence="BSD-3-Clause",
        gated=False,
        needed_by="LPIPS, a perceptual loss and measure",
    ),
)

# Files that a person brings, as `python -m portraitgen weights` shows them; see weights/README.md.
OWN_FILES = (
    "SMIRK_em1.pt  your own file, optional",
    "    for keeping expressions, in place of FaceMesh; put it beside the folders above",
    "    georgeretsi/smirk, licence: MIT code; FLAME, EMOCA and MICA, with which it was trained, are non-commercial",
    "SMPLX_NEUTRAL.npz  your own file, optional",
    "    for the body smplx; put it beside the folders above",
    "    smpl-x.is.tue.mpg.de, licence: non-commercial",
)

# What each engine of `portraitgen.editors` needs from the table.
ENGINE_WEIGHTS: dict[str, tuple[str, ...]] = {
    "builtin": (),
    "instruct-pix2pix": ("instruct-pix2pix",),
    "flux2-klein": ("flux2-klein",),
    "gatys": ("vgg19",),
    "fashn-vton": ("fashn-vton", "dwpose"),
    "ic-light": ("ic-light", "realistic-vision"),
}

# What a Space with a GPU fetches while it starts: 3.3 GB, the smallest first; the rest waits until somebody asks for it.
AT_START = ("vgg16", "vgg19", "instruct-pix2pix")
