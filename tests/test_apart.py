"""Work in a process of its own: its news, its errors, its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from portraitgen.apart import apart
from portraitgen.errors import InputError
from portraitgen.progress import Progress


def count(steps: int, *, word: str = "") -> Iterator[Progress]:
    for number in range(steps):
        yield Progress("count", (number + 1) / steps, f"{word}{number}", np.full((2, 2, 3), number, np.uint8), (word,))


def facts() -> Iterator[Progress]:
    import torch

    yield Progress("facts", 1.0, f"{os.getpid()} {torch.cuda.is_available()}")


def refuse() -> Iterator[Progress]:
    yield Progress("refuse", 0.0, "")
    raise InputError("The clip is too long. Cut it.")


def fail() -> Iterator[Progress]:
    yield Progress("fail", 0.0, "")
    raise ValueError("secret")


def die() -> Iterator[Progress]:
    yield Progress("die", 0.0, "")
    os.kill(os.getpid(), signal.SIGKILL)


def dawdle(folder: Path) -> Iterator[Progress]:
    (folder / "process").write_text(str(os.getpid()))
    yield Progress("dawdle", 0.0, "")
    time.sleep(60)
    (folder / "finished").touch()


@pytest.fixture(autouse=True)
def _findable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def test_all_news_arrives_in_order() -> None:
    steps = list(apart(count, 5, word="number "))
    assert [step.message for step in steps] == [f"number {number}" for number in range(5)]
    assert [int(step.preview[0, 0, 0]) for step in steps if step.preview is not None] == [0, 1, 2, 3, 4]
    assert steps[-1].notes == ("number ",)


def test_it_is_another_process_without_a_gpu() -> None:
    process, cuda = next(apart(facts)).message.split()
    assert int(process) != os.getpid()
    assert cuda == "False"


def test_a_refusal_stays_a_refusal() -> None:
    with pytest.raises(InputError, match=r"The clip is too long\. Cut it\."):
        list(apart(refuse))


def test_other_errors_keep_their_words_to_the_log() -> None:
    with pytest.raises(RuntimeError, match="ValueError in fail") as caught:
        list(apart(fail))
    assert "secret" not in str(caught.value)


def test_a_killed_process_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="was killed"):
        list(apart(die))


def test_a_stop_ends_it_within_two_seconds(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    work = apart(dawdle, tmp_path)
    assert next(work) == next(work), "news is repeated while there is none"
    process = int((tmp_path / "process").read_text())
    began = time.monotonic()
    work.close()
    assert time.monotonic() - began < 2
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert not (tmp_path / "finished").exists()
    assert len(os.listdir("/proc/self/fd")) == before
