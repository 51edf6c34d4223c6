"""Four people, three jobs each, one GPU: everybody is served, in order, and gets what they asked for."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradio_client.utils import Status
from serving import Page, serving
from test_app import wait_for

from portraitgen.progress import Progress

PEOPLE, JOBS = 4, 3
LOOKS = ("bronze statue", "pencil sketch", "red hair")
NAMES = ("zombie", "robot", "vampire", "elf")


def sign(page: Page, gate: threading.Event) -> list[str]:
    """Make edits wait for a gate and write what they were asked for behind their clip; the texts, in the order in which they were done."""
    done: list[str] = []
    edit = page.pipeline.edit

    def signed(source: Path, output: Path, **options: Any) -> Iterator[Progress]:
        assert gate.wait(120)
        yield from edit(source, output, **options)
        text = options["request"].text.encode()
        output.write_bytes(output.read_bytes() + struct.pack(">I4s", 8 + len(text), b"free") + text)
        done.append(options["request"].text)

    page.pipeline.edit = signed  # type: ignore[method-assign]
    return done


def signature(result: Any) -> str:
    clip = Path(result["video"] if isinstance(result, dict) else result).read_bytes()
    return clip[clip.rindex(b"free") + 4 :].decode()


def test_all_are_served_in_order_and_none_mixed_up(tmp_path: Path) -> None:
    with serving(tmp_path) as page:
        gate = threading.Event()
        done = sign(page, gate)
        people = [page.client() for _ in range(PEOPLE)]
        asked, jobs = [], []
        for look in LOOKS:
            for name, client in zip(NAMES, people, strict=True):
                text = f"{name} with {look}"
                job = page.edit(client, text, page.clip if name == "zombie" else page.other_clip)
                wait_for(
                    lambda job=job: job.status().code in (Status.IN_QUEUE, Status.PROCESSING, Status.ITERATING), 60
                )
                asked.append(text)
                jobs.append(job)
        gate.set()
        results = [job.result(timeout=240)[0] for job in jobs]
        assert [signature(result) for result in results] == asked, "everybody gets what they asked for"
        assert done == asked, "in the order in which they came"
        assert page.pipeline.most_active == 1
        folders = [source.parent for source in page.pipeline.folders("edit")]
        assert len(set(folders)) == PEOPLE
        assert folders == folders[:PEOPLE] * JOBS, "each in their own folder"
        learned = page.pipeline.folders("reconstruct")
        assert len(set(learned)) == PEOPLE, "nobody's clip is learned for somebody else"
