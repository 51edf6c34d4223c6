"""The whole way in a real Chromium with the real pipeline: upload, look, learn, edit, edit again, turn around, download."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from browsing import NEEDED, edit, playwright_api, status, tab
from media import frames_of
from quick import quicken

import app
from portraitgen import editing, reconstruction, sessions
from portraitgen.clip import probe

pytestmark = NEEDED
EXAMPLE = Path(__file__).parent.parent / "examples" / "portrait.mp4"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The page with everything behind it, at few steps; and a second of a clip with a tone."""
    folder = tmp_path_factory.mktemp("real")
    clip = folder / "clip.mp4"
    # fmt: off
    command = [
        "ffmpeg", "-v", "error", "-i", str(EXAMPLE), "-f", "lavfi", "-i", "sine=440", "-t", "1", "-map", "0:v", "-map", "1:a",
        "-vf", "fps=10,scale=-2:320", "-c:v", "libx264", "-c:a", "aac", str(clip),
    ]
    # fmt: on
    subprocess.run(command, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        patch.setattr(sessions, "ROOT", folder / "sessions")
        quicken(patch, reconstruction.PRESETS, {"steps": 4}, views=3, frames=8, texel_pixels=5.0, realign=())
        quicken(patch, editing.PRESETS, {"steps": 8, "coarse_steps": 0}, key_frames=3)
        demo = app.build()
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
        try:
            yield SimpleNamespace(url=url, clip=clip)
        finally:
            demo.close()


def saved(view: Any, target: Path) -> Path:
    """The result, as the browser saves it."""
    with view.expect_download() as download:
        view.locator("#download").click()
    download.value.save_as(target)
    return target


def test_a_clip_goes_the_whole_way(browser: Any, real: SimpleNamespace, tmp_path: Path) -> None:
    hosts: set[str] = set()
    faults: list[str] = []
    with tab(browser, real, accept_downloads=True) as view:
        view.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
        view.on("pageerror", lambda fault: faults.append(str(fault)))
        view.locator("#clip input[type=file]").set_input_files(str(real.clip))
        about = playwright_api.expect(view.locator("#about"))
        about.to_contain_text("One face in view.")
        about.to_contain_text("1.0 s used")
        edit(view, "turn him into a bronze statue")
        status(view).to_contain_text("Learning the person in 3D")
        playwright_api.expect(view.locator("#preview img")).to_be_visible()
        status(view).to_contain_text("Done in")
        view.wait_for_function("document.querySelector('.player .after')?.readyState >= 2")
        bronze = saved(view, tmp_path / "bronze.mp4")

        view.get_by_role("tab", name="Relighting").click()
        view.get_by_label("Light", exact=True).fill("warm sunset from the left")
        view.get_by_role("button", name="Edit the clip").click()
        status(view).to_contain_text("Carrying the edit over")
        status(view).to_contain_text("Done in")
        playwright_api.expect(view.locator("#earlier img")).to_have_count(2)
        sunset = saved(view, tmp_path / "sunset.mp4")

        view.get_by_role("button", name="Look from all sides").click()
        view.get_by_role("button", name="Prepare the turntable").click()
        playwright_api.expect(view.locator(".turntable")).to_be_visible()
    assert hosts <= {"127.0.0.1", ""}
    assert faults == []

    source, facts = frames_of(real.clip).astype(float), probe(real.clip)
    for path in (bronze, sunset):
        made = probe(path)
        assert (made.width, made.height, made.frame_count, made.rate) == (
            facts.width,
            facts.height,
            facts.frame_count,
            facts.rate,
        )
        assert made.has_audio
    bronze_frames, sunset_frames = (frames_of(path).astype(float) for path in (bronze, sunset))
    middle = (slice(None), slice(80, 240), slice(source.shape[2] // 2 - 60, source.shape[2] // 2 + 60))
    assert np.abs(bronze_frames - source)[middle].mean() > 12
    assert np.abs(sunset_frames - source)[middle].mean() > 6
    assert np.abs(bronze_frames - sunset_frames)[middle].mean() > 12
