"""Weights that come from the Hub: where they lie, how to fetch and check them; the table itself is `portraitgen.weights_table`.

Every entry is pinned to a commit. A fetched entry lies in ``weights/NAME`` (or below ``PORTRAITGEN_WEIGHTS``) with a
``fetched.json`` that names the commit and the size of each file; it is written last, once every checksum has been
compared with the Hub's. Files of the same commit in the Hub's own cache (``HF_HOME``), where a Space's
``preload_from_hub`` leaves them, serve too if nothing of them is cut off; that their bytes are right is its client's word.
``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` work as everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .errors import InputError
from .storage import explain_os_error, is_full, replacing
from .weights_table import AT_START, ENGINE_WEIGHTS, OWN_FILES, TABLE, Entry

ROOT = Path(os.environ.get("PORTRAITGEN_WEIGHTS") or Path(__file__).parent.parent / "weights")
MANIFEST = "fetched.json"


@dataclass(frozen=True)
class Status:
    """One entry and where it lies, or None while it is missing."""

    entry: Entry
    path: Path | None


@dataclass(frozen=True)
class Fetching:
    """How far the download of an entry is, in bytes."""

    name: str
    done: int
    total: int

    def __str__(self) -> str:
        return f"Fetching {self.name}: {_size(self.done)} of {_size(self.total)}"


def find(name: str) -> Entry:
    """Look an entry up by its name; raises InputError for an unknown one."""
    for entry in TABLE:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in TABLE)
    raise InputError(f"There are no weights named {name}. Choose from: {known}.")


def ready(engine: str) -> bool:
    """Whether all weights that an engine of the editors needs are here."""
    return not missing(engine)


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
    present = [next((file for file in choice if (snapshot / file).is_file()), None) for choice in entry.parts]
    return snapshot if all(file is not None and _is_complete(snapshot / file) for file in present) else None


def _is_complete(file: Path) -> bool:
    """Whether nothing of a file is cut off, as far as it tells by itself: safetensors know their length, others are not empty."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        size = file.stat().st_size
        if file.suffix != ".safetensors":
            return size > 0
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, size)))
        ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
        return bool(size == 8 + length + max(ends, default=0))
    return False


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
    return "\n".join([*lines, *OWN_FILES])


def fetch(name: str, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """Download an entry, go on where an earlier try stopped, compare every checksum, and return its folder.

    Only one download of an entry runs at a time on a machine: who comes second waits for the first and takes what it fetched.

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
    from filelock import FileLock

    folder = ROOT / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _watch(folder, entry.size, on_progress) as total, FileLock(ROOT / f"{name}.lock"):
            return path(name) or _download(entry, folder, total)
    except OSError as error:
        raise InputError(explain_os_error(error, folder)) from error


def _download(entry: Entry, folder: Path, total: list[int]) -> Path:
    """Fetch all files of an entry into ``folder``, with the manifest as the last; ``total[0]`` becomes the bytes in all."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with clear_errors(entry):
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
        total[0] = sum(file.size for file in wanted)
        room = shutil.disk_usage(folder).free + _bytes_below(folder)
        if room < total[0]:
            raise _no_room(entry, f"{_size(total[0])} are needed, {_size(room)} are free")
        for file in sorted(wanted, key=lambda file: file.size):
            _download_file(entry, file, folder / file.path)
    manifest = {"repo": entry.repo, "revision": entry.revision, "files": {file.path: file.size for file in wanted}}
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1), "utf-8")
    return folder


def _download_file(entry: Entry, file: Any, target: Path) -> None:
    """Fetch one file, of which an earlier try may have left a part: the Hub's own downloader begins large files anew each time."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers
    from tqdm import tqdm

    class Silent(tqdm):
        """The bar belongs to whoever passed `on_progress`."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

    if target.is_file() and _is_whole(target, file):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    if part.is_file() and part.stat().st_size > file.size:
        part.unlink()
    with open(part, "ab") as stream:
        http_get(
            hf_hub_url(entry.repo, file.path, revision=entry.revision),
            stream,
            resume_size=part.stat().st_size,
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.path,
            tqdm_class=cast(Any, Silent),
        )
    if not _is_whole(part, file):
        part.unlink()
        raise InputError(f"{entry.name}: {file.path} arrived broken (wrong checksum) and was deleted. Fetch it again.")
    part.replace(target)


def missing(engine: str) -> list[str]:
    """The entries that an engine of the editors needs and that are not here."""
    return [name for name in ENGINE_WEIGHTS[engine] if path(name) is None]


def can_fetch(engine: str) -> bool:
    """Whether what an engine of the editors lacks can be fetched to this machine, as far as can be known without asking the Hub."""
    from huggingface_hub import constants

    place = next(folder for folder in (ROOT, *ROOT.parents) if folder.is_dir())
    room = shutil.disk_usage(place).free > bytes_missing(engine)
    return room and not constants.HF_HUB_OFFLINE and os.access(place, os.W_OK)


def bytes_missing(engine: str) -> int:
    """How much is to be downloaded before an engine of the editors can be used, about."""
    return sum(find(name).size for name in missing(engine))


def not_here(engine: str) -> str:
    """What an engine of the editors lacks and what to do, as the end of a sentence."""
    commands = " and ".join(f"python -m portraitgen weights --fetch {name}" for name in missing(engine))
    return f"its weights are not here; fetch them with {commands}."


def wanted_at_start() -> list[str]:
    """The entries to fetch while the app starts, as ``PORTRAITGEN_FETCH`` says: none, default, all, or names with commas between.

    Unset, it is "default" on a Space with a GPU and "none" elsewhere: nobody's laptop fetches gigabytes unasked. Raises InputError
    for a name that is not in the table.
    """
    on_gpu_space = bool(os.environ.get("SPACE_ID")) and _has_gpu()
    said = os.environ.get("PORTRAITGEN_FETCH") or ("default" if on_gpu_space else "none")
    sets = {"none": [], "default": list(AT_START), "all": [entry.name for entry in TABLE]}
    names = sets.get(said.strip().lower())
    if names is None:
        try:
            names = [find(name.strip()).name for name in said.split(",") if name.strip()]
        except InputError as error:
            raise InputError(f"PORTRAITGEN_FETCH is {said!r}. {error} Or write none, default or all.") from None
    return [name for name in names if path(name) is None]


def _has_gpu() -> bool:
    if os.environ.get("SPACES_ZERO_GPU"):
        return True
    import torch

    return torch.cuda.is_available()


def fetching(names: Iterable[str]) -> Iterator[Fetching]:
    """Fetch entries one after the other and say twice a second how far it is; for whoever shows progress while waiting.

    Closing it early leaves the download that runs to end by itself in the background. Raises InputError as `fetch` does.
    """
    for name in names:
        state: list[Any] = [0, find(name).size, None]
        finished = threading.Event()

        def note(done: int, total: int, state: list[Any] = state) -> None:
            state[:2] = done, total

        def work(name: str = name, state: list[Any] = state, finished: threading.Event = finished) -> None:
            try:
                fetch(name, note)
            except BaseException as error:  # handed to whoever waits
                state[2] = error
            finally:
                finished.set()

        threading.Thread(target=work, daemon=True, name=f"fetching {name}").start()
        while not finished.wait(0.5):
            yield Fetching(name, state[0], state[1])
        if state[2] is not None:
            raise state[2]
        yield Fetching(name, state[1], state[1])


def _is_whole(path: Path, listed: Any) -> bool:
    """Whether a file has the size and the checksum that the Hub lists for it."""
    size = path.stat().st_size
    state = hashlib.sha256() if listed.lfs else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 22):
            state.update(piece)
    return bool(size == listed.size and state.hexdigest() == (listed.lfs.sha256 if listed.lfs else listed.blob_id))


@contextlib.contextmanager
def clear_errors(entry: Entry) -> Iterator[None]:
    """Turn what can go wrong with a download into one sentence each."""
    import httpx
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    by_hand = f"or copy the folder weights/{entry.name} from a machine that has it"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise InputError(f"Downloads are switched off by HF_HUB_OFFLINE. Unset it, {by_hand}.") from None
    except errors.GatedRepoError:
        raise InputError(f"{entry.repo} is gated. Accept its licence at {hub}/{entry.repo} and set HF_TOKEN.") from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"{entry.repo} is not at {hub}, or not for everyone. Update PortraitGen.") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{entry.repo} no longer has its commit {entry.revision[:12]}. Update PortraitGen.") from None
    except errors.RemoteEntryNotFoundError:
        raise InputError(f"{entry.repo} lists a file that it does not send. Try again later, {by_hand}.") from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        if code == 401:
            raise InputError(f"{hub} does not accept the token in HF_TOKEN. Renew it, or unset it.") from None
        raise InputError(f"{hub} answered with error {code}. Try again later, {by_hand}.") from None
    except httpx.ReadTimeout:
        raise InputError(f"{hub} stopped answering. Fetch {entry.name} again; it goes on where it stopped.") from None
    except (httpx.HTTPError, ConnectionError, errors.LocalEntryNotFoundError):
        raise InputError(f"{hub} cannot be reached. Check the network and fetch again, {by_hand}.") from None
    except OSError as error:
        if is_full(error):
            raise _no_room(entry, "the disk is full") from None
        if error.errno is None:  # the Hub's client found another size than announced
            raise InputError(f"{entry.name} arrived incomplete. Fetch it again; it goes on where it stopped.") from None
        raise


def _no_room(entry: Entry, why: str) -> InputError:
    return InputError(f"There is no room for {entry.name} below {ROOT}: {why}. Free some space and fetch again.")


@contextlib.contextmanager
def _watch(folder: Path, size: int, on_progress: Callable[[int, int], None] | None) -> Iterator[list[int]]:
    """Report the bytes on disk twice a second, which holds however the Hub's client, or another process, fetches them.

    Yields the bytes in all in a list of one, for the block to correct.
    """
    total, finished = [size], threading.Event()
    if on_progress is None:
        yield total
        return

    def report() -> None:
        while not finished.wait(0.5):
            on_progress(min(_bytes_below(folder), total[0]), total[0])

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield total
    finally:
        finished.set()
        thread.join()
    on_progress(total[0], total[0])


def _bytes_below(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # a part may be renamed while we look
            total += file.stat().st_size if file.is_file() else 0
    return total


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
