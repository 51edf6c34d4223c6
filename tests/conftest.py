from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from threads import torch_threads

from portraitgen.cores import usable_cores

if TYPE_CHECKING:
    from serving import Page

# Side by side, each process has one core: threads of several that wait for one another cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else str(usable_cores()))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many at once as there are cores that may be used, within 4 GB of memory each on a small machine."""
    return min(4, usable_cores())


@pytest.fixture(autouse=True)
def unchanged_priority() -> Iterator[None]:
    """No test may leave the process with another priority: the tests after it, or all else on the machine, would stand still."""
    yield
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "a library made this thread a real-time one"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A visitor of the page with a folder."""
    from portraitgen import sessions

    monkeypatch.setattr(sessions, "ROOT", tmp_path / "sessions")
    return sessions.open_session(sessions.Session())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(scope="module")
def smplx_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A made-up SMPL-X file whose pose correctives are several millimetres large; SMPLX_DIR names its folder."""
    import synthetic_smplx

    path = tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz"
    synthetic_smplx.write(path, synthetic_smplx.make_arrays(0.003))
    patch = pytest.MonkeyPatch()
    patch.setenv("SMPLX_DIR", str(path.parent))
    patch.delenv("SMPLX_REPO", raising=False)
    yield path
    patch.undo()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread: tiny models only lose by more, a lot where the cores are shared."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page over a stand-in for the pipeline."""
    from serving import serving

    with serving(tmp_path_factory.mktemp("page")) as page:
        yield page


@pytest.fixture
def page(served: Page) -> Page:
    """The same, with nothing asked of it yet."""
    served.pipeline.reset()
    return served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    from browsing import playwright_api
    from chromium import CHROMIUM, FLAGS

    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
