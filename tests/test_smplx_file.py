"""Finding and reading the SMPL-X file that a person brings: places, a private repository on a stand-in for the Hub, wrong files."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import synthetic_smplx
from hub_server import Repository, serve

from portraitgen import smplx_file, weights
from portraitgen.errors import InputError
from portraitgen.smplx_data import KEYS, read_file

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "examples" / "portrait.mp4"
FILE = "SMPLX_NEUTRAL.npz"


def test_places_that_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "ROOT", tmp_path / "weights")
    monkeypatch.delenv("SMPLX_DIR", raising=False)
    monkeypatch.delenv("SMPLX_REPO", raising=False)
    with pytest.raises(InputError, match=r"no SMPLX_NEUTRAL.npz. Register at https://smpl-x.is.tue.mpg.de.*weights"):
        smplx_file.find_smplx()
    for folder in (tmp_path / "weights" / "smplx", tmp_path / "weights"):  # the second one is looked at first
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(b"mine")
        assert smplx_file.find_smplx() == folder / FILE
    for place in ("elsewhere", "elsewhere/smplx", "elsewhere/models/smplx"):
        monkeypatch.setenv("SMPLX_DIR", str(tmp_path / "elsewhere"))
        (tmp_path / place).mkdir(exist_ok=True, parents=True)
        (tmp_path / place / FILE).write_bytes(b"mine")
        assert smplx_file.find_smplx() == tmp_path / place / FILE
        (tmp_path / place / FILE).rename(tmp_path / "my model.npz")
    monkeypatch.setenv("SMPLX_DIR", str(tmp_path / "my model.npz"))
    assert smplx_file.find_smplx() == tmp_path / "my model.npz"
    monkeypatch.setenv("SMPLX_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"SMPLX_DIR is .*nowhere, where there is no SMPLX_NEUTRAL.npz"):
        smplx_file.find_smplx()


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SMPLX_"))}
    own |= {"PYTHONPATH": str(ROOT), "PORTRAITGEN_WEIGHTS": str(folder / "weights"), "HF_HOME": str(folder / "hub")}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=own | environment, check=False
    )


def test_the_command_line_says_where_to_register_before_any_work(tmp_path: Path) -> None:
    command = ("-m", "portraitgen", "reconstruct", str(CLIP), "-o", str(tmp_path / "portrait"), "--body", "smplx")
    done = run(tmp_path, *command)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: There is no SMPLX_NEUTRAL.npz. Register at https://smpl-x.is.tue.mpg.de")
    assert not (tmp_path / "portrait").exists()


def test_a_private_repository_is_read_with_the_token(tmp_path: Path) -> None:
    code = (
        "from portraitgen import smplx_file\n"
        "from portraitgen.errors import InputError\n"
        "try: print(smplx_file.find_smplx().read_bytes())\n"
        "except InputError as error: print(error)"
    )
    private = Repository("1" * 40, {FILE: b"my own model"}, gated=True)
    empty = Repository("2" * 40, {"README.md": b"nothing"})
    with serve({"me/private": private, "me/empty": empty}) as hub:

        def answer(repo: str, **environment: str) -> str:
            endpoint = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DOWNLOAD_TIMEOUT": "5", "SMPLX_REPO": repo}
            done = run(tmp_path, "-c", code, **(endpoint | environment))
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        refused = "The repository me/{} in SMPLX_REPO cannot be read. Check its name, and set HF_TOKEN"
        assert answer("me/private").startswith(refused.format("private"))
        assert answer("me/unknown", HF_TOKEN="hf_test").startswith(refused.format("unknown"))
        assert "me/empty in SMPLX_REPO holds no SMPLX_NEUTRAL.npz" in answer("me/empty")
        assert "SMPLX_REPO is what/is/this, which is no repository" in answer("what/is/this")
        assert "cannot be reached" in answer("me/private", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_test")
        assert answer("me/private", HF_TOKEN="hf_test") == "b'my own model'"
        private.status = 500
        assert answer("me/private", HF_TOKEN="hf_test", HF_HUB_OFFLINE="1") == "b'my own model'", "kept in the cache"


class Trap:
    """Unpickling it raises."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (pytest.fail, ("the file was unpickled",))


def small(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """Arrays of the right shapes, as small as can be; None leaves one out."""
    lengths = {"vt": 11313, "shapedirs": 20}
    made = {key: np.zeros([n or lengths[key] for n in shape], np.int8) for key, shape in KEYS.items()}
    made["kintree_table"] = np.array([synthetic_smplx.PARENTS, range(55)])
    return {key: array for key, array in (made | changes).items() if array is not None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"posedirs": None}, "posedirs is missing"),
        ({"vt": None}, "vt is missing"),
        ({"v_template": np.zeros((6890, 3))}, r"v_template has the shape 6890 × 3, not 10475 × 3"),
        ({"shapedirs": np.zeros((10475, 3, 16), np.int8)}, "16 components, not 400 or 20"),
        ({"J_regressor": np.array({"sparse": 1}, dtype=object)}, "not an npz file of plain arrays"),
        ({"weights": np.full((10475, 55), np.nan, np.float16)}, "weights holds numbers that are not finite"),
        ({"f": np.full((20908, 3), 10475)}, "f points outside of the mesh"),
        ({"kintree_table": np.zeros((2, 55), int)}, "joints hang together in another way"),
        ({"vt": np.zeros((11313, 2), bool)}, "vt holds no numbers"),
    ],
)
def test_arrays_that_are_not_smplx(changes: dict[str, np.ndarray | None], words: str, tmp_path: Path) -> None:
    path = synthetic_smplx.write(tmp_path / FILE, small(**changes))
    with pytest.raises(InputError, match=words) as error:
        read_file(path)
    assert "\n" not in str(error.value)
    assert "Download SMPLX_NEUTRAL.npz again from https://smpl-x.is.tue.mpg.de." in str(error.value)


def test_the_right_shapes_are_read_and_nothing_else(tmp_path: Path) -> None:
    extra = {"part2num": np.array(Trap(), dtype=object)}
    assert set(read_file(synthetic_smplx.write(tmp_path / FILE, small(**extra)))) == set(KEYS)
    with pytest.raises(InputError, match="plain arrays"):
        read_file(synthetic_smplx.write(tmp_path / FILE, small(weights=np.array(Trap(), dtype=object))))


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    path = tmp_path / FILE
    whole = synthetic_smplx.write(path, small()).read_bytes()
    spoiled = bytearray(whole)
    spoiled[whole.index(b"NUMPY") - 1 : whole.index(b"NUMPY") + 40] = bytes(41)
    contents = (b"", b"PK\x03\x04 no zip", whole[:5000], bytes(spoiled), pickle.dumps(Trap()), b"<html>Log in</html>")
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged or not an npz file"):
            read_file(path)
    with open(path, "wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(InputError, match="holds a single array"):
        read_file(path)
