from __future__ import annotations

from collections.abc import Iterator

import pytest

from portraitgen.streaming import feed


def test_every_item_is_written_in_order_and_reported() -> None:
    written: list[int] = []
    assert list(feed(written.extend, range(50))) == list(range(50))
    assert written == list(range(50))


def test_a_writer_that_fails_ends_the_producer_with_its_error() -> None:
    def write(items: Iterator[int]) -> None:
        next(items)
        raise OSError("no space")

    produced = []
    with pytest.raises(OSError, match="no space"):
        produced.extend(feed(write, range(10_000)))
    assert len(produced) < 100


def test_a_producer_that_fails_reaches_the_writer_as_an_error() -> None:
    cleaned = []

    def items() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    def write(stream: Iterator[int]) -> None:
        try:
            list(stream)
            cleaned.append("kept")
        except Exception:
            cleaned.append("removed")
            raise

    with pytest.raises(KeyboardInterrupt):
        list(feed(write, items()))
    assert cleaned == ["removed"]


def test_closing_the_generator_abandons_the_output() -> None:
    seen = []

    def write(stream: Iterator[int]) -> None:
        try:
            for _ in stream:
                pass
            seen.append("kept")
        except Exception:
            seen.append("removed")
            raise

    stream = feed(write, range(1000))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert seen == ["removed"]
