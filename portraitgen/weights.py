"""The one table of weights that come from the Hub: what they are, where they lie, how to fetch and check them.

Every entry is pinned to a commit. A fetched entry lies in ``weights/NAME`` (or below ``PORTRAITGEN_WEIGHTS``) with a
``fetched.json`` that names the commit and the size of each file; it is written last, once every checksum has been
compared with the Hub's. Files of the same commit in the Hub's own cache (``HF_HOME``), where a Space's
``preload_from_hub`` leaves them, serve too. ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` work as everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError
from .storage import is_full, replacing

ROOT = Path(os.environ.get("PORTRAITGEN_WEIGHTS") or Path(__file__).parent.parent / "weights")
MANIFEST = "fetched.json"
SMPLX, SMPLX_SITE = "SMPLX_NEUTRAL.npz", "https://smpl-x.is.tue.mpg.de"


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


def _either_precision(path: str) -> tuple[str, str]:
    """Half precision first: half the download, and what a GPU runs anyway."""
    return f"{path}.fp16.safetensors", f"{path}.safetensors"


TABLE = (
    Entry(
        name="instruct-pix2pix",
        repo="timbrooks/instruct-pix2pix",
        revision="31519b5cb02a7fd89b906d88731cd4d6a7bbf88d",
        parts=(
            ("scheduler/scheduler_config.json",),
            ("tokenizer/merges.txt",),
            ("tokenizer/vocab.json",),
            ("tokenizer/special_tokens_map.json",),
            ("tokenizer/tokenizer_config.json",),
            ("text_encoder/config.json",),
            ("unet/config.json",),
            ("vae/config.json",),
            _either_precision("text_encoder/model"),
            _either_precision("unet/diffusion_pytorch_model"),
            _either_precision("vae/diffusion_pytorch_model"),
        ),
        size=2_130_000_000,
        licence="MIT; Stable Diffusion 1.5 underneath: CreativeML OpenRAIL-M",
        gated=False,
        needed_by="text edits with the engine instruct-pix2pix",
    ),
    Entry(
        name="vgg16",
        repo="timm/vgg16.tv_in1k",
        revision="b8d8aa2dd860af9233c8c67385a8097fd6c35d3f",
        parts=(("model.safetensors",),),
        size=553_500_000,
        licence="BSD-3-Clause",
        gated=False,
        needed_by="LPIPS, a perceptual loss and measure",
    ),
)

# What each engine of `portraitgen.editors` needs from the table.
ENGINE_WEIGHTS: dict[str, tuple[str, ...]] = {
    "builtin": (),
    "instruct-pix2pix": ("instruct-pix2pix",),
}


@dataclass(frozen=True)
class Status:
    """One entry and where it lies, or None while it is missing."""

    entry: Entry
    path: Path | None


def find(name: str) -> Entry:
    """Look an entry up by its name; raises InputError for an unknown one."""
    for entry in TABLE:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in TABLE)
    raise InputError(f"There are no weights named {name}. Choose from: {known}.")


def ready(engine: str) -> bool:
    """Whether all weights that an engine of the editors needs are here."""
    return all(path(name) is not None for name in ENGINE_WEIGHTS[engine])


def path(name: str) -> Path | None:
    """The folder with all files of an entry, or None while it is missing or incomplete; looks nothing up online."""
    entry = find(name)
    folder = ROOT / name
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        sizes = manifest["files"].items()
        if manifest["revision"] == entry.revision and all((folder / file).stat().st_size == n for file, n in sizes):
            return folder
    return _in_hub_cache(entry)


def _in_hub_cache(entry: Entry) -> Path | None:
    from huggingface_hub import constants

    snapshot = Path(constants.HF_HUB_CACHE, f"models--{entry.repo.replace('/', '--')}", "snapshots", entry.revision)
    complete = all(any((snapshot / file).is_file() for file in choice) for choice in entry.parts)
    return snapshot if complete else None


def status() -> list[Status]:
    """Every entry of the table and where it lies."""
    return [Status(entry, path(entry.name)) for entry in TABLE]


def table() -> str:
    """The table for a person: what is here, what is missing, size, licence."""
    lines = []
    for row in status():
        entry = row.entry
        where = f"here: {row.path}" if row.path else f"missing: python -m portraitgen weights --fetch {entry.name}"
        gate = ", gated" if entry.gated else ""
        lines += [
            f"{entry.name}  {_size(entry.size)}  {where}",
            f"    for {entry.needed_by}",
            f"    {entry.repo}@{entry.revision[:12]}, licence: {entry.licence}{gate}",
        ]
    return "\n".join(lines)


def fetch(name: str, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """Download an entry, go on where an earlier try stopped, compare every checksum, and return its folder.

    Args:
        name: an entry of the table.
        on_progress: called with the bytes done and the bytes in all.

    Raises:
        InputError: offline, gated, missing, broken on the way, or no room; each with its own sentence.
    """
    entry = find(name)
    found = path(name)
    if found is not None:
        return found
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.hf_api import RepoFile
    from tqdm import tqdm

    class Silent(tqdm):
        """The bar belongs to whoever passed `on_progress`."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

    folder = ROOT / name
    with _clear_errors(entry):
        listed = HfApi().list_repo_tree(entry.repo, recursive=True, revision=entry.revision)
        files = {item.path: item for item in listed if isinstance(item, RepoFile)}
        wanted = []
        for choice in entry.parts:
            chosen = next((file for file in choice if file in files), None)
            if chosen is None:
                raise InputError(
                    f"{entry.repo} no longer holds {choice[0]}. Update PortraitGen, or use another engine."
                )
            wanted.append(files[chosen])
        total = sum(file.size for file in wanted)
        folder.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(folder).free + _bytes_below(folder)
        if room < total:
            raise _no_room(entry, f"{_size(total)} are needed, {_size(room)} are free")
        with _watch(folder, total, on_progress):
            snapshot_download(
                entry.repo,
                revision=entry.revision,
                local_dir=folder,
                allow_patterns=[file.path for file in wanted],
                tqdm_class=Silent,
            )
        for file in wanted:
            _verify(folder / file.path, file, entry)
        manifest = {
            "repo": entry.repo,
            "revision": entry.revision,
            "files": {file.path: file.size for file in wanted},
        }
        with replacing(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1), "utf-8")
    return folder


def find_smplx() -> Path:
    """The person's own SMPL-X file: where ``SMPLX_DIR`` says, below `ROOT`, or in the Hub repository ``SMPLX_REPO``.

    Raises:
        InputError: it is in none of these places, or the repository cannot be read.
    """
    given = os.environ.get("SMPLX_DIR")
    folder = Path(given).expanduser() if given else ROOT
    for place in (folder, folder / SMPLX, folder / "smplx" / SMPLX, folder / "models" / "smplx" / SMPLX):
        if place.is_file():
            return place
    if given:
        raise InputError(f"SMPLX_DIR is {given}, where there is no {SMPLX}. Name the folder that holds it.")
    repo = os.environ.get("SMPLX_REPO")
    if repo:
        return _smplx_from_hub(repo)
    raise InputError(
        f"There is no {SMPLX}. Register at {SMPLX_SITE}, download the model and put this file into {ROOT}, "
        "or leave out --body smplx."
    )


def _smplx_from_hub(repo: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    entry = Entry("smplx", repo, "main", ((SMPLX,),), 0, "", True, "the body smplx")
    with _clear_errors(entry):
        try:
            return Path(hf_hub_download(repo, SMPLX))
        except HFValidationError:
            raise InputError(f"SMPLX_REPO is {repo}, which is no repository. Write it as OWNER/NAME.") from None
        except (GatedRepoError, RepositoryNotFoundError):
            raise InputError(
                f"The repository {repo} in SMPLX_REPO cannot be read. Check its name, and set HF_TOKEN to a token that may."
            ) from None
        except RemoteEntryNotFoundError:
            raise InputError(f"The repository {repo} in SMPLX_REPO holds no {SMPLX}. Put the file there.") from None


def _verify(file: Path, expected: Any, entry: Entry) -> None:
    """Compare one file with the Hub's checksum; a wrong one is deleted, so that the next try fetches it anew."""
    size = file.stat().st_size
    state = hashlib.sha256() if expected.lfs else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open(file, "rb") as stream:
        while piece := stream.read(1 << 22):
            state.update(piece)
    if size != expected.size or state.hexdigest() != (expected.lfs.sha256 if expected.lfs else expected.blob_id):
        file.unlink()
        raise InputError(
            f"{entry.name}: {expected.path} arrived broken (wrong checksum) and was deleted. Fetch it again."
        )


@contextlib.contextmanager
def _clear_errors(entry: Entry) -> Iterator[None]:
    """Turn what can go wrong with a download into one sentence each."""
    import httpx
    from huggingface_hub import constants, errors

    by_hand = f"or copy the folder weights/{entry.name} from a machine that has it"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise InputError(f"Downloads are switched off by HF_HUB_OFFLINE. Unset it, {by_hand}.") from None
    except errors.GatedRepoError:
        raise InputError(
            f"{entry.repo} is gated. Accept its licence at {constants.ENDPOINT}/{entry.repo} and set HF_TOKEN."
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError):
        raise InputError(
            f"{entry.repo} or its commit {entry.revision[:12]} is not at {constants.ENDPOINT}. Update PortraitGen."
        ) from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        raise InputError(f"{constants.ENDPOINT} answered with error {code}. Try again later, {by_hand}.") from None
    except (httpx.HTTPError, ConnectionError, errors.LocalEntryNotFoundError):
        raise InputError(
            f"{constants.ENDPOINT} cannot be reached. Check the network and fetch again, {by_hand}."
        ) from None
    except OSError as error:
        if is_full(error):
            raise _no_room(entry, "the disk is full") from None
        if error.errno is None:  # the Hub's client found another size than announced
            raise InputError(f"{entry.name} arrived incomplete. Fetch it again; it goes on where it stopped.") from None
        raise


def _no_room(entry: Entry, why: str) -> InputError:
    return InputError(f"There is no room for {entry.name} below {ROOT}: {why}. Free some space and fetch again.")


@contextlib.contextmanager
def _watch(folder: Path, total: int, on_progress: Callable[[int, int], None] | None) -> Iterator[None]:
    """Report the bytes on disk twice a second, which holds however the Hub's client fetches them."""
    if on_progress is None:
        yield
        return
    finished = threading.Event()

    def report() -> None:
        while not finished.wait(0.5):
            on_progress(min(_bytes_below(folder), total), total)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    on_progress(total, total)


def _bytes_below(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # a part may be renamed while we look
            total += file.stat().st_size if file.is_file() else 0
    return total


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
