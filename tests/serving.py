"""The real page over a stand-in for the pipeline."""

from __future__ import annotations

import contextlib
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from gradio_client import Client, handle_file
from media import write_portrait

import app
import portraitgen
from portraitgen import sessions
from portraitgen.progress import Progress


def write_clip(path: Path, tint: int = 0) -> Path:
    """A second of moving colour, h264, with a tone as sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=12)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for index in range(12):
            picture = np.full((120, 160, 3), (tint, 20 * index, 128), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        tone = np.sin(np.arange(16000) / 8).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return path


class FakePipeline(types.ModuleType):
    """Takes as long as a test wants, remembers what it was asked and who worked at the same time."""

    def __init__(self, result: Path) -> None:
        super().__init__("portraitgen.pipeline")
        self.result = result.read_bytes()
        self.reset()

    def reset(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.failure: BaseException | None = None
        self.pause = 0.0  # seconds per step
        self.steps = 2
        self.notes: tuple[str, ...] = ()
        self.active = self.most_active = self.closed = 0

    def work(self, stage: str) -> Iterator[Progress]:
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            for index in range(self.steps):
                time.sleep(self.pause)
                if self.failure is not None:
                    raise self.failure
                picture = np.full((64, 64, 3), 40 * index, np.uint8)
                yield Progress(stage, (index + 1) / self.steps, "Working on it.", picture, self.notes)
        except GeneratorExit:
            self.closed += 1
            raise
        finally:
            self.active -= 1

    def reconstruct(self, clip: Path, directory: Path, **options: Any) -> Iterator[Progress]:
        self.calls.append(("reconstruct", (clip, directory), options))
        if not directory.is_dir():
            yield from self.work("reconstruction")
            write_portrait(directory, clip)

    def edit(self, source: Path, output: Path, **options: Any) -> Iterator[Progress]:
        self.calls.append(("edit", (source, output), options))
        yield from self.work("fitting")
        write_portrait(options["save"], source / "source.mp4")
        output.write_bytes(self.result)

    def render(self, source: Path, output: Path, **options: Any) -> Iterator[Progress]:
        self.calls.append(("render", (source, output), options))
        yield from self.work("render")
        output.write_bytes(self.result)

    def resolve_device(self, name: str) -> str:
        return name

    def folders(self, verb: str) -> list[Path]:
        return [args[1] if verb == "reconstruct" else args[0] for name, args, _ in self.calls if name == verb]


@dataclass
class Page:
    url: str
    pipeline: FakePipeline
    clip: Path
    other_clip: Path
    sessions: Path
    queue: Any

    def client(self) -> Client:
        return Client(self.url, verbose=False)

    def edit(self, client: Client, text: str = "give him red hair", clip: Path | None = None, **more: Any) -> Any:
        return client.submit(clip=handle_file(str(clip or self.clip)), text=text, api_name="/edit_text", **more)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Page]:
    """The real page over a fake pipeline, with every file below `folder`."""
    clip, other = write_clip(folder / "clip.mp4", 60), write_clip(folder / "other.mp4", 200)
    fake = FakePipeline(write_clip(folder / "result.mp4", 120))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        patch.setattr(sessions, "ROOT", folder / "sessions")
        patch.setitem(sys.modules, "portraitgen.pipeline", fake)
        patch.setattr(portraitgen, "pipeline", fake, raising=False)
        demo = app.build()
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
        try:
            yield Page(url, fake, clip, other, folder / "sessions", demo._queue)
        finally:
            demo.close()
