"""What a Space needs before its first line runs: the README's header, the requirements, and an import that leaves CUDA alone."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from portraitgen.progress import Progress
from portraitgen.weights_table import TABLE

ROOT = Path(__file__).parent.parent
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
HARDWARE = {
    "cpu-basic",
    "cpu-upgrade",
    "t4-small",
    "t4-medium",
    "l4x1",
    "l4x4",
    "a10g-small",
    "a10g-large",
    "l40sx1",
    "a100-large",
}
ZEROGPU_PYTHON = {"3.10", "3.12"}  # with 3.10.13 and 3.12.12; see the Hub's page on ZeroGPU
ZEROGPU_TORCH = {"2.8.0", "2.9.1", "2.10.0", "2.11.0"}

# Every function of torch.cuda, and what they all end in, raises from here on.
POISON = """
import importlib, pkgutil, types
import torch
def touched(*arguments, **options):
    raise RuntimeError("CUDA was touched")
for name, value in list(vars(torch.cuda).items()):
    if isinstance(value, types.FunctionType) and not name.startswith("__"):
        setattr(torch.cuda, name, touched)
for name in ("_cuda_init", "_cuda_getDeviceCount", "_cuda_getDevice", "_cuda_setDevice"):
    setattr(torch._C, name, touched)
"""
# The libraries beneath ask whether there is a card, which ZeroGPU allows; starting it is what spoils the fork.
POISONED_START = """
import importlib, pkgutil
import torch
def touched(*arguments, **options):
    raise RuntimeError("CUDA was touched")
torch.cuda._lazy_init = torch.cuda.init = torch._C._cuda_init = torch._C._cuda_setDevice = touched
"""


@pytest.fixture(scope="module")
def header() -> dict[str, Any]:
    opening, block, _ = (ROOT / "README.md").read_text("utf-8").split("---\n", 2)
    assert opening == "", "the header comes first"
    return dict(yaml.safe_load(block))


def required(name: str) -> str:
    """The version that requirements.txt pins."""
    (version,) = re.findall(rf"^{name}==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    return str(version)


def test_the_header_fits_the_hub(header: dict[str, Any]) -> None:
    assert header["sdk"] == "gradio"
    assert (ROOT / header["app_file"]).is_file()
    assert {header["colorFrom"], header["colorTo"]} <= COLOURS
    assert 0 < len(header["short_description"]) <= 60
    assert header["suggested_hardware"] in HARDWARE
    assert re.fullmatch(r"\d+(m|h)", header["startup_duration_timeout"])
    assert header["title"]
    assert header["emoji"]


def test_versions_agree(header: dict[str, Any]) -> None:
    assert header["sdk_version"] == required("gradio")
    assert isinstance(header["python_version"], str), "3.10 without quotes is 3.1"
    assert header["python_version"] in ZEROGPU_PYTHON
    project = (ROOT / "pyproject.toml").read_text()
    low, high = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', project).groups()  # type: ignore[union-attr]
    assert int(low) <= int(header["python_version"].split(".")[1]) < int(high)
    assert required("torch") in ZEROGPU_TORCH
    assert f'license = "{header["license"]}"' in project.lower()


def test_models_are_those_of_the_weights_table(header: dict[str, Any]) -> None:
    assert sorted(header["models"]) == sorted(entry.repo for entry in TABLE)
    assert "preload_from_hub" not in header, "weights are fetched by the app itself, pinned and with progress"


def test_system_packages_are_names() -> None:
    lines = (ROOT / "packages.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", line) for line in lines), "a comment would be taken for a package"


def test_the_settings_of_the_owner_are_told() -> None:
    """Every variable that the code reads, but for those that a platform sets, is in the README's table."""
    sources = "".join(path.read_text("utf-8") for path in [*ROOT.glob("*.py"), *(ROOT / "portraitgen").rglob("*.py")])
    read = set(re.findall(r'environ\.get\(\s*"(\w+)"', sources)) - {"PYTHONPATH", "SPACE_ID", "SPACES_ZERO_GPU"}
    assert {"PORTRAITGEN_FETCH", "PORTRAITGEN_WEIGHTS", "SMPLX_DIR", "SMPLX_REPO"} <= read
    rows = [line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    assert {name for name in read if not any(f"`{name}" in row.split("|")[1] for row in rows)} == set()


def run(code: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_poison_works() -> None:
    code = POISON + "try:\n    torch.zeros(1, device='cuda')\nexcept RuntimeError as error:\n    print(error)"
    assert "CUDA was touched" in run(code)
    assert "CUDA was touched" in run(
        POISON + "try:\n    torch.cuda.is_available()\nexcept RuntimeError as error:\n    print(error)"
    )


def test_the_page_is_built_without_cuda() -> None:
    assert run(POISON + "import app\napp.build()\nprint('built')").endswith("built\n")


def test_no_module_touches_cuda_when_imported() -> None:
    code = POISONED_START + (
        "import portraitgen\n"
        "found = pkgutil.walk_packages(portraitgen.__path__, 'portraitgen.')\n"
        "names = [item.name for item in found if not item.name.endswith('__main__')]\n"
        "for name in names:\n    importlib.import_module(name)\n"
        "print(len(names), torch.cuda._initialized)"
    )
    count, initialised = run(code).split()[-2:]
    assert int(count) > 40
    assert initialised == "False"


def test_one_entry_asks_for_the_gpu() -> None:
    sources = [*ROOT.glob("*.py"), *(ROOT / "portraitgen").rglob("*.py")]
    assert sum(path.read_text("utf-8").count("@spaces.GPU(duration=gpu_seconds)") for path in sources) == 1
    assert sum(path.read_text("utf-8").count("spaces.GPU") for path in sources) == 1


def test_news_can_be_sent_back() -> None:
    news = Progress("fitting", 0.5, "Half.", np.zeros((4, 4, 3), np.uint8), ("A note.",))
    back = pickle.loads(pickle.dumps(news))
    assert (back.stage, back.fraction, back.notes) == (news.stage, news.fraction, news.notes)
    assert np.array_equal(back.preview, news.preview)
