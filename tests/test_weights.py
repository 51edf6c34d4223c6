"""Downloads, checked against a local stand-in for the Hub.

The Hub's client reads ``HF_ENDPOINT`` when it is imported, so each test that talks to the server does it in a
subprocess: the command line itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, Repository, serve

from portraitgen import weights
from portraitgen.errors import InputError

ROOT = Path(__file__).parent.parent
IP2P = weights.find("instruct-pix2pix")
VGG = weights.find("vgg16")
CONTENT = bytes(range(256)) * 2000


def small_ip2p(precision: str = ".fp16") -> Repository:
    files = {choice[0]: f"content of {choice[0]}".encode() for choice in IP2P.parts if len(choice) == 1}
    files |= {choice[0].replace(".fp16", precision): CONTENT[:9000] for choice in IP2P.parts if len(choice) == 2}
    return Repository(IP2P.revision, files | {"instruct-pix2pix-00-22000.ckpt": b"never fetch a pickle"})


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve({VGG.repo: Repository(VGG.revision, {"model.safetensors": CONTENT}), IP2P.repo: small_ip2p()}) as hub:
        yield hub


def run(hub: Hub | None, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own |= {"PYTHONPATH": str(ROOT), "PORTRAITGEN_WEIGHTS": str(folder), "HF_HOME": str(folder / "hub-home")}
    own |= {"HF_ENDPOINT": hub.endpoint if hub else "http://127.0.0.1:9", "HF_HUB_DOWNLOAD_TIMEOUT": "5"} | environment
    command = [sys.executable, "-m", "portraitgen", "weights", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=own, check=False)


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
        assert all(file.endswith((".json", ".txt", ".safetensors")) for choice in entry.parts for file in choice)
    assert len({entry.name for entry in weights.TABLE}) == len(weights.TABLE)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="instruct-pix2pix, vgg16"):
        weights.path("none")


def test_an_empty_folder_lists_what_is_missing(tmp_path: Path) -> None:
    done = run(None, tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("missing: python -m portraitgen weights --fetch") == len(weights.TABLE)
    assert "OpenRAIL" in done.stdout
    assert "553.5 MB" in done.stdout


def test_fetch_all(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(hub, tmp_path, "--all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("here: ") == 2
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
    (tmp_path / "vgg16" / "model.safetensors").write_bytes(b"short")
    assert weights.path("vgg16") is None


def test_full_precision_is_taken_where_there_is_no_half(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[IP2P.repo] = small_ip2p("")
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


def test_each_failure_has_its_own_sentence(hub: Hub, tmp_path: Path) -> None:
    fetch = ("--fetch", "vgg16")
    assert "switched off by HF_HUB_OFFLINE" in sentence(run(hub, tmp_path, *fetch, HF_HUB_OFFLINE="1"))
    assert "cannot be reached" in sentence(run(None, tmp_path, *fetch))
    repository = hub.repositories[VGG.repo]
    repository.gated = True
    assert "is gated. Accept its licence" in sentence(run(hub, tmp_path, *fetch))
    assert run(hub, tmp_path, *fetch, HF_TOKEN="hf_test").returncode == 0
    assert "no weights named none" in sentence(run(hub, tmp_path, "--fetch", "none"))


def test_what_is_gone_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    fetch = ("--fetch", "vgg16")
    hub.repositories[VGG.repo].status = 403
    assert "answered with error 403" in sentence(run(hub, tmp_path, *fetch))
    hub.repositories[VGG.repo] = Repository("0" * 40, {"model.safetensors": CONTENT})
    assert "its commit b8d8aa2dd860 is not at" in sentence(run(hub, tmp_path, *fetch))
    hub.repositories[VGG.repo] = Repository(VGG.revision, {"model.bin": b"a pickle"})
    assert "no longer holds model.safetensors" in sentence(run(hub, tmp_path, *fetch))
    del hub.repositories[VGG.repo]
    assert "is not at http://127.0.0.1" in sentence(run(hub, tmp_path, *fetch))


def test_a_full_disk_is_noticed_before_the_download(hub: Hub, tmp_path: Path) -> None:
    code = (
        "import shutil, types; shutil.disk_usage = lambda path: types.SimpleNamespace(total=9, used=9, free=1000)\n"
        "from portraitgen.__main__ import main; main(['weights', '--fetch', 'vgg16'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PORTRAITGEN_WEIGHTS": str(tmp_path)}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hub-home")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "There is no room for vgg16" in sentence(done)
    assert not any("/resolve/" in path for _, path, _ in hub.requests)


def test_the_hubs_own_cache_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(weights, "ROOT", tmp_path / "weights")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = tmp_path / "cache" / "models--timm--vgg16.tv_in1k" / "snapshots" / VGG.revision
    snapshot.mkdir(parents=True)
    assert weights.path("vgg16") is None
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert weights.path("vgg16") == snapshot
