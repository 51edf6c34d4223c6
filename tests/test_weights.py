"""Downloads, checked against a local stand-in for the Hub.

The Hub's client reads ``HF_ENDPOINT`` when it is imported, so each test that talks to the server does it in a
subprocess: the command line itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Hub, Repository, serve
from safetensors.torch import save_file

from portraitgen import weights
from portraitgen.errors import InputError
from portraitgen.weights_table import AT_START, ENGINE_WEIGHTS, Entry

ROOT = Path(__file__).parent.parent
IP2P = weights.find("instruct-pix2pix")
VGG = weights.find("vgg16")
CONTENT = bytes(range(256)) * 2000
FETCH = ("--fetch", "vgg16")


def small(entry: Entry, precision: str = ".fp16") -> Repository:
    """The files of an entry, with a few bytes in each, beside one that must not be fetched."""
    files = {choice[0]: f"content of {choice[0]}".encode() for choice in entry.parts if len(choice) == 1}
    files |= {choice[0].replace(".fp16", precision): CONTENT[:9000] for choice in entry.parts if len(choice) == 2}
    return Repository(entry.revision, files | {"old.ckpt": b"never fetch a pickle"})


@pytest.fixture
def hub() -> Iterator[Hub]:
    repositories = {entry.repo: small(entry) for entry in weights.TABLE}
    repositories[VGG.repo] = Repository(VGG.revision, {"model.safetensors": CONTENT})
    with serve(repositories) as hub:
        yield hub


def surroundings(hub: Hub | None, folder: Path, **changes: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SPACE"))}
    own |= {"PYTHONPATH": str(ROOT), "PORTRAITGEN_WEIGHTS": str(folder), "HF_HOME": str(folder / "hub-home")}
    own |= {"HF_ENDPOINT": hub.endpoint if hub else "http://127.0.0.1:9", "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
    return own | {"OMP_NUM_THREADS": "1"} | changes


def run(hub: Hub | None, folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "portraitgen", "weights", *arguments]
    own = surroundings(hub, folder, **changes)
    return subprocess.run(command, capture_output=True, text=True, env=own, check=False)


def run_code(hub: Hub | None, folder: Path, code: str, **changes: str) -> subprocess.CompletedProcess[str]:
    own = surroundings(hub, folder, **changes)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=own, check=False)


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed run leaves on stderr, after what the bar wrote and erased."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()]
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_the_table_is_pinned_and_safe() -> None:
    for entry in weights.TABLE:
        assert len(entry.revision) == 40
        assert int(entry.revision, 16)
        assert not entry.gated
        assert 1e8 < entry.size < 2e10
        known = (".json", ".txt", ".jinja", ".safetensors", ".onnx")
        assert all(file.endswith(known) for choice in entry.parts for file in choice)
    assert len({entry.name for entry in weights.TABLE}) == len(weights.TABLE)
    assert not any("non-commercial" in entry.licence.lower() for entry in weights.TABLE)


def test_the_readme_lists_the_whole_table() -> None:
    text = (ROOT / "weights" / "README.md").read_text("utf-8")
    for entry in weights.TABLE:
        size = f"{entry.size / 1e9:.2f} GB"
        assert f"| `{entry.name}` | `{entry.repo}` | {size} | {entry.licence} | {entry.needed_by} |" in text


def test_every_engine_from_the_hub_has_weights_in_the_table() -> None:
    from portraitgen.editors import ENGINES

    hub_engines = {engine for engines in ENGINES.values() for engine in engines} - {"builtin"}
    assert hub_engines <= set(ENGINE_WEIGHTS)
    for names in (*ENGINE_WEIGHTS.values(), AT_START):
        assert all(weights.find(name) for name in names)


def test_an_engine_is_ready_when_all_it_needs_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here: set[str] = set()
    monkeypatch.setattr(weights, "path", lambda name: tmp_path if name in here else None)
    assert weights.ready("builtin")
    assert weights.missing("ic-light") == ["ic-light", "realistic-vision"]
    here.add("ic-light")
    assert not weights.ready("ic-light")
    here.add("realistic-vision")
    assert weights.ready("ic-light")


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"instruct-pix2pix, .*vgg16"):
        weights.path("none")


def test_an_empty_folder_lists_what_is_missing(tmp_path: Path) -> None:
    done = run(None, tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("missing: python -m portraitgen weights --fetch") == len(weights.TABLE)
    assert "OpenRAIL" in done.stdout
    assert "553.5 MB" in done.stdout
    assert "SMIRK_em1.pt  your own file" in done.stdout


def test_fetch_all(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(hub, tmp_path, "--all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("here: ") == len(weights.TABLE)
    assert (tmp_path / "vgg16" / "model.safetensors").read_bytes() == CONTENT
    manifest = json.loads((tmp_path / "instruct-pix2pix" / "fetched.json").read_text())
    assert manifest["revision"] == IP2P.revision
    assert set(manifest["files"]) == {choice[0] for choice in IP2P.parts}
    assert not any("ckpt" in path for _, path, _ in hub.requests)

    seen = len(hub.requests)
    assert run(hub, tmp_path, "--all").returncode == 0
    assert len(hub.requests) == seen, "what is here is not asked for again"

    monkeypatch.setattr(weights, "ROOT", tmp_path)
    assert weights.path("vgg16") == tmp_path / "vgg16"
    assert all(weights.ready(engine) for engine in ENGINE_WEIGHTS)
    (tmp_path / "vgg16" / "model.safetensors").write_bytes(b"short")
    assert weights.path("vgg16") is None


def test_full_precision_is_taken_where_there_is_no_half(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[IP2P.repo] = small(IP2P, "")
    assert run(hub, tmp_path, "--fetch", "instruct-pix2pix").returncode == 0
    assert (tmp_path / "instruct-pix2pix" / "unet" / "diffusion_pytorch_model.safetensors").is_file()


def test_a_broken_connection_is_resumed(hub: Hub, tmp_path: Path) -> None:
    content = CONTENT * 25  # more than the 10 MiB that the Hub's client writes at a time
    hub.repositories[VGG.repo] = Repository(VGG.revision, {"model.safetensors": content})
    hub.repositories[VGG.repo].cut["model.safetensors"] = 11 << 20
    done = run(hub, tmp_path, "--fetch", "vgg16")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "vgg16" / "model.safetensors").read_bytes() == content
    ranges = [asked for method, path, asked in hub.requests if method == "GET" and path.endswith("model.safetensors")]
    assert any(asked.startswith("bytes=") and asked != "bytes=0-" for asked in ranges)


def test_a_wrong_checksum_is_deleted_and_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[VGG.repo].spoiled.add("model.safetensors")
    assert "wrong checksum" in sentence(run(hub, tmp_path, "--fetch", "vgg16"))
    assert not (tmp_path / "vgg16" / "model.safetensors").exists()
    assert not (tmp_path / "vgg16" / "fetched.json").exists()
    hub.repositories[VGG.repo].spoiled.clear()
    assert run(hub, tmp_path, "--fetch", "vgg16").returncode == 0


def test_a_small_file_with_a_wrong_checksum_is_noticed(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[IP2P.repo].spoiled.add("unet/config.json")
    assert "unet/config.json arrived broken" in sentence(run(hub, tmp_path, "--fetch", "instruct-pix2pix"))


def test_a_cut_download_goes_on_in_the_next_run(hub: Hub, tmp_path: Path) -> None:
    content = CONTENT * 60
    hub.repositories[VGG.repo] = Repository(VGG.revision, {"model.safetensors": content}, slow=0.02)
    command = [sys.executable, "-m", "portraitgen", "weights", *FETCH]
    first = subprocess.Popen(command, env=surroundings(hub, tmp_path), stderr=subprocess.DEVNULL)
    part = tmp_path / "vgg16" / "model.safetensors.part"
    for _ in range(600):
        if part.exists() and part.stat().st_size:
            break
        time.sleep(0.05)
    first.kill()
    first.wait()
    assert not (tmp_path / "vgg16" / "fetched.json").exists()
    hub.repositories[VGG.repo].slow = 0
    seen = len(hub.requests)
    assert run(hub, tmp_path, *FETCH).returncode == 0
    assert (tmp_path / "vgg16" / "model.safetensors").read_bytes() == content
    ranges = [asked for method, path, asked in hub.requests[seen:] if method == "GET" and "/resolve/" in path]
    assert len(ranges) == 1
    assert int(ranges[0].removeprefix("bytes=").rstrip("-")) > 0


def test_what_was_put_there_by_hand_is_checked_and_kept(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "vgg16").mkdir()
    (tmp_path / "vgg16" / "model.safetensors").write_bytes(CONTENT)
    assert run(hub, tmp_path, *FETCH).returncode == 0
    assert not any("/resolve/" in path for _, path, _ in hub.requests)
    (tmp_path / "vgg16" / "model.safetensors").write_bytes(CONTENT[::-1])
    (tmp_path / "vgg16" / "model.safetensors.part").write_bytes(CONTENT + b"of another version")
    (tmp_path / "vgg16" / "fetched.json").unlink()
    assert run(hub, tmp_path, *FETCH).returncode == 0
    assert (tmp_path / "vgg16" / "model.safetensors").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_sends_it_all_again(hub: Hub, tmp_path: Path) -> None:
    content = CONTENT * 25
    repository = Repository(VGG.revision, {"model.safetensors": content}, ranges=False, plain=True)
    hub.repositories[VGG.repo] = repository
    repository.cut["model.safetensors"] = 11 << 20
    done = run(hub, tmp_path, *FETCH)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "vgg16" / "model.safetensors").read_bytes() == content


def test_a_server_that_falls_silent(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[VGG.repo].stalled["model.safetensors"] = 70_000
    said = sentence(run(hub, tmp_path, *FETCH, HF_HUB_DOWNLOAD_TIMEOUT="1"))
    assert "stopped answering. Fetch vgg16 again; it goes on where it stopped" in said
    hub.repositories[VGG.repo].stalled.clear()
    assert run(hub, tmp_path, *FETCH).returncode == 0


def test_two_at_once_share_one_download(hub: Hub, tmp_path: Path) -> None:
    """Two processes, each with two threads."""
    hub.repositories[VGG.repo] = Repository(VGG.revision, {"model.safetensors": CONTENT * 10}, slow=0.02)
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from portraitgen import weights\n"
        "with ThreadPoolExecutor(2) as pool: print(set(pool.map(weights.fetch, ['vgg16'] * 2)))"
    )
    own = surroundings(hub, tmp_path)
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=own, text=True, stdout=subprocess.PIPE) for _ in range(2)
    ]
    assert [process.communicate()[0].count("vgg16") for process in both] == [1, 1]
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "vgg16" / "model.safetensors").read_bytes() == CONTENT * 10
    assert sum(method == "GET" and "/resolve/" in path for method, path, _ in hub.requests) == 1


def test_each_failure_has_its_own_sentence(hub: Hub, tmp_path: Path) -> None:
    assert "switched off by HF_HUB_OFFLINE" in sentence(run(hub, tmp_path, *FETCH, HF_HUB_OFFLINE="1"))
    assert "cannot be reached" in sentence(run(None, tmp_path, *FETCH))
    repository = hub.repositories[VGG.repo]
    repository.gated, repository.tokens = True, {"hf_accepted"}
    assert "is gated. Accept its licence" in sentence(run(hub, tmp_path, *FETCH))
    assert "is gated. Accept its licence" in sentence(run(hub, tmp_path, *FETCH, HF_TOKEN="hf_somebody"))
    assert "does not accept the token in HF_TOKEN" in sentence(run(hub, tmp_path, *FETCH, HF_TOKEN="hf_expired"))
    assert run(hub, tmp_path, *FETCH, HF_TOKEN="hf_accepted").returncode == 0
    assert "no weights named none" in sentence(run(hub, tmp_path, "--fetch", "none"))


def test_what_is_gone_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    for code in (403, 500):
        hub.repositories[VGG.repo].status = code
        assert f"answered with error {code}" in sentence(run(hub, tmp_path, *FETCH))
    hub.repositories[VGG.repo] = Repository("0" * 40, {"model.safetensors": CONTENT})
    assert "no longer has its commit b8d8aa2dd860" in sentence(run(hub, tmp_path, *FETCH))
    hub.repositories[VGG.repo] = Repository(VGG.revision, {"model.bin": b"a pickle"})
    assert "no longer holds model.safetensors" in sentence(run(hub, tmp_path, *FETCH))
    hub.repositories[VGG.repo] = Repository(VGG.revision, {"model.safetensors": CONTENT}, hidden={"model.safetensors"})
    assert "lists a file that it does not send" in sentence(run(hub, tmp_path, *FETCH))
    del hub.repositories[VGG.repo]
    assert "is not at http://127.0.0.1" in sentence(run(hub, tmp_path, *FETCH))


def test_a_file_of_another_size_than_listed(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[VGG.repo].short.add("model.safetensors")
    assert "vgg16 arrived incomplete" in sentence(run(hub, tmp_path, *FETCH))
    hub.repositories[VGG.repo].short.clear()
    assert run(hub, tmp_path, *FETCH).returncode == 0


def test_a_folder_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "vgg16").write_text("a file where the folder should be")
    assert "A file is where a folder should be" in sentence(run(hub, tmp_path, *FETCH))


SHOW = (
    "from portraitgen import weights\n"
    "from portraitgen.errors import InputError\n"
    "try:\n"
    "    for step in weights.fetching(weights.wanted_at_start()): print(step)\n"
    "except InputError as error: print('refused:', error)"
)


def test_what_is_fetched_at_the_start(hub: Hub, tmp_path: Path) -> None:
    assert run_code(hub, tmp_path, SHOW).stdout == "", "nothing unasked on a machine that is no Space"
    said = run_code(hub, tmp_path, SHOW, PORTRAITGEN_FETCH="vgg16, dwpose").stdout
    assert said.splitlines()[-1].startswith("Fetching dwpose: ")
    assert {file.parent.name for file in tmp_path.glob("*/fetched.json")} == {"vgg16", "dwpose"}
    assert run_code(hub, tmp_path, SHOW, PORTRAITGEN_FETCH="vgg16").stdout == "", "what is here is left alone"
    said = run_code(hub, tmp_path, SHOW, SPACE_ID="somebody/portraits", SPACES_ZERO_GPU="1").stdout
    assert "Fetching instruct-pix2pix" in said
    assert not (tmp_path / "flux2-klein").exists()
    assert run_code(hub, tmp_path, SHOW, PORTRAITGEN_FETCH="none", SPACE_ID="x/y", SPACES_ZERO_GPU="1").stdout == ""
    said = run_code(hub, tmp_path, SHOW, PORTRAITGEN_FETCH="vgg61").stdout
    assert said.startswith("refused: PORTRAITGEN_FETCH is 'vgg61'. There are no weights named vgg61.")


def test_progress_while_waiting_and_an_error_at_its_end(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[VGG.repo] = Repository(VGG.revision, {"model.safetensors": CONTENT * 10}, slow=0.03)
    said = run_code(hub, tmp_path, SHOW, PORTRAITGEN_FETCH="vgg16").stdout.splitlines()
    assert len(said) >= 3
    assert said[-1] == "Fetching vgg16: 5.1 MB of 5.1 MB"
    said = run_code(None, tmp_path, SHOW, PORTRAITGEN_FETCH="vgg19").stdout.splitlines()
    assert said[-1].startswith("refused: http://127.0.0.1:9 cannot be reached")


def test_a_full_disk_is_noticed_before_the_download(hub: Hub, tmp_path: Path) -> None:
    code = (
        "import shutil, types; shutil.disk_usage = lambda path: types.SimpleNamespace(total=9, used=9, free=1000)\n"
        "from portraitgen.__main__ import main; main(['weights', '--fetch', 'vgg16'])"
    )
    assert "There is no room for vgg16" in sentence(run_code(hub, tmp_path, code))
    assert not any("/resolve/" in path for _, path, _ in hub.requests)


def test_a_disk_that_fills_up_on_the_way(hub: Hub, tmp_path: Path) -> None:
    code = (
        "import errno, huggingface_hub.file_download as download\n"
        "def fill(url, stream, **options):\n"
        "    stream.write(b'as much as there was room for')\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "download.http_get = fill\n"
        "from portraitgen.__main__ import main; main(['weights', '--fetch', 'vgg16'])"
    )
    assert "There is no room for vgg16" in sentence(run_code(hub, tmp_path, code))
    assert not (tmp_path / "vgg16" / "fetched.json").exists()


def test_the_hubs_own_cache_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(weights, "ROOT", tmp_path / "weights")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = tmp_path / "cache" / "models--timm--vgg16.tv_in1k" / "snapshots" / VGG.revision
    snapshot.mkdir(parents=True)
    assert weights.path("vgg16") is None
    file = snapshot / "model.safetensors"
    save_file({"a.weight": torch.rand(8, 4), "b.bias": torch.rand(4)}, file, {"format": "pt"})
    assert weights.path("vgg16") == snapshot
    whole = file.read_bytes()
    for broken in (b"", whole[:6], whole[:40], whole[:-1], whole + b"\0", b"weights of another kind"):
        file.write_bytes(broken)
        assert weights.path("vgg16") is None, "what is cut off is fetched anew"
    folder = tmp_path / "cache" / "models--fashn-ai--DWPose" / "snapshots" / weights.find("dwpose").revision
    folder.mkdir(parents=True)
    (folder / "dw-ll_ucoco_384.onnx").touch()
    assert weights.path("dwpose") is None
    (folder / "dw-ll_ucoco_384.onnx").write_bytes(b"network")
    assert weights.path("dwpose") == folder
