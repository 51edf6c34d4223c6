"""What visitors own: folders, jobs, results. No gradio, no pipeline."""

from __future__ import annotations

import os
import pickle
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from media import write_clip, write_portrait
from PIL import Image

from portraitgen import results, sessions
from portraitgen.editors import EditRequest
from portraitgen.errors import InputError


def test_a_job_can_be_sent_to_a_worker() -> None:
    job = sessions.Job(Path("c"), Path("p"), "preview", 10.0, verb="edit", options={"text": "a", "save": Path("s")})
    assert pickle.loads(pickle.dumps(job)) == job
    assert job.stages[0] == "clip"
    assert job.stages[-1] == "render"


def finished_edit(own: sessions.Session, text: str) -> sessions.Session:
    """The visitor after one more edit, as a job leaves it."""
    clip = write_clip(Path(own.folder) / "upload.mp4", size=(160, 120))
    job = sessions.make_job(str(clip), "preview", 0.0, 10.0, own)
    return finish(own, sessions.make_edit(job, own, EditRequest("text", text, engine="builtin"), "auto"))


def finish(own: sessions.Session, job: sessions.Job) -> sessions.Session:
    """The visitor after an edit, as a job leaves it."""
    if not job.portrait.is_dir():
        write_portrait(job.portrait, job.clip)
    write_portrait(job.options["save"], job.clip)
    shutil.copyfile(job.clip, job.output)
    return results.finish_edit(own, job)


def test_old_folders_are_swept_and_closed_ones_deleted(own: sessions.Session) -> None:
    os.utime(own.folder, (0, 0))
    kept = sessions.open_session(sessions.Session())
    assert not Path(own.folder).exists()
    assert sessions.open_session(kept) == kept
    assert sessions.open_session(own).folder not in (own.folder, kept.folder)
    sessions.close_session(kept)
    assert Path(kept.folder).exists(), "who came back within the hour still uses it"
    an_hour_ago = time.time() - 3600
    os.utime(kept.folder, (an_hour_ago, an_hour_ago))
    sessions.close_session(kept)
    assert not Path(kept.folder).exists()
    sessions.close_session(sessions.Session())


def test_edits_are_kept_in_order_and_the_earliest_go(own: sessions.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "KEPT_RESULTS", 2)
    for text in ("red hair", "bronze", "pencil sketch"):
        own = finished_edit(own, text)
    rows = sessions.history(own)
    assert [row.title for row in rows] == ["bronze", "pencil sketch"]
    assert own.edited == rows[-1].portrait
    assert Image.open(rows[0].picture).size == (320, 240)
    assert len(list(Path(own.folder).glob("edited-*.mp4"))) == 2
    assert len([path for path in Path(own.folder).glob("edited-*") if path.is_dir()]) == 2


def test_someone_who_closed_the_page_gets_the_latest_result_back(own: sessions.Session) -> None:
    assert sessions.resume_session(Path(own.folder).name) is None, "nothing is finished yet"
    own = finished_edit(own, "bronze")
    again = sessions.resume_session(Path(own.folder).name)
    assert again is not None
    assert (again.folder, again.edited) == (own.folder, own.edited)
    secret = Path(own.folder).name
    for name in ("", "..", "../sessions", f"../sessions/{secret}", secret[:-1], secret + "/", "x" * 32):
        assert sessions.resume_session(name) is None, name


def test_someone_who_closed_the_page_gets_a_learned_clip_back(own: sessions.Session) -> None:
    name = Path(own.folder).name
    job = sessions.make_job(str(write_clip(Path(own.folder) / "a.mp4")), "preview", 0.0, 10.0, own)
    job.portrait.mkdir()
    assert sessions.resume_session(name) is None, "it is not learned yet"
    job.portrait.rmdir()
    write_portrait(job.portrait, job.clip)
    assert sessions.resume_session(name) == sessions.replace(own, learned=str(job.portrait))
    own = finished_edit(own, "bronze")
    assert sessions.resume_session(name) == sessions.show(own, sessions.history(own)[-1]), "the edit is later"
    soon = time.time() + 5
    os.utime(job.portrait / "portrait.json", (soon, soon))
    assert sessions.resume_session(name) == sessions.replace(own, learned=str(job.portrait), edited=""), "learned since"


def test_a_running_job_keeps_its_files(own: sessions.Session, tmp_path: Path) -> None:
    names = ("clip.mp4", "style.png", "behind.png")
    clip, style, behind = paths = [tmp_path / name for name in names]
    for path in paths:
        path.touch()
    request = EditRequest("style", picture=style)
    job = sessions.Job(clip, Path("p"), "preview", 10.0, options={"request": request, "background": str(behind)})
    for path in (*paths, Path(own.folder)):
        os.utime(path, (0, 0))
    sessions.touch(own, job)
    assert all(path.stat().st_mtime > 0 for path in (*paths, Path(own.folder)))
    sessions.touch(own, sessions.Job(tmp_path / "gone.mp4", Path("p"), "preview", 10.0, options={"background": "auto"}))


def test_what_can_be_taken_away_needs_a_result(own: sessions.Session) -> None:
    for what in ("webm", "orbit", "ply", "zip", "views"):
        with pytest.raises(InputError, match="no result yet"):
            sessions.make_export(what, own)
    own = finished_edit(own, "bronze")
    jobs = {what: sessions.make_export(what, own) for what in ("webm", "orbit", "ply", "zip", "views")}
    suffixes = [job.output.suffix for job in jobs.values()]
    assert suffixes == [".webm", ".mp4", ".ply", ".zip", ".jpg"]
    assert {job.source for job in jobs.values()} == {Path(own.edited)}
    assert jobs["webm"].stages == ("render",)
    assert jobs["webm"].options == {"background": "transparent", "mark": False}
    assert sessions.make_export("orbit", own, mark=True).options["mark"] is True


def test_another_part_of_a_clip_is_another_portrait(own: sessions.Session) -> None:
    clip = write_clip(Path(own.folder) / "upload.mp4", count=50)

    def job(start: float, seconds: float = 1.0) -> sessions.Job:
        return sessions.make_job(str(clip), "preview", start, seconds, own)

    assert job(0.5).portrait not in (job(0).portrait, job(0.6).portrait, job(0.5, 2).portrait)
    assert job(0.49).portrait == job(0.52).portrait, "the same frames"
    assert (job(0.49).start, job(0.49).frame_count) == (0.52, 25)
    request = EditRequest("text", "bronze", engine="builtin")
    edit = sessions.make_edit(job(0.5), own, request, "transparent")
    assert edit.output.name.endswith("-from-0.520.webm")
    whole = finish(own, sessions.make_edit(job(0), own, request, "auto"))
    again = sessions.make_edit(job(0.5), whole, request, "auto", again=True)
    assert "-from-" not in again.output.name, "the earlier edit is of the whole clip"


def test_an_edit_of_an_edit_learns_nothing_and_a_view_is_of_the_clip_asked_for(own: sessions.Session) -> None:
    clip, other = (write_clip(Path(own.folder) / f"{name}.mp4", count=count) for name, count in (("a", 50), ("b", 30)))
    request = EditRequest("text", "bronze", engine="builtin")

    def job(path: Path, preset: str = "preview", start: float = 0.0) -> sessions.Job:
        return sessions.make_job(str(path), preset, start, 10.0, own)

    shown = finish(own, sessions.make_edit(job(clip), own, request, "auto"))
    again = sessions.make_edit(job(other, "high"), shown, request, "auto", again=True)
    assert not again.learns
    assert (again.source, again.portrait, again.frame_count) == (Path(shown.edited), job(clip).portrait, 50)
    assert sessions.make_edit(job(other), shown, request, "auto").learns
    for asked, edited in (
        (job(clip), True),
        (job(other), False),
        (job(clip, start=0.48), False),
        (job(clip, "high"), False),
    ):
        render = sessions.make_render(asked, shown)
        assert render.source == (Path(shown.edited) if edited else asked.portrait)
        assert render.learns is not edited
    further = finish(shown, again)
    assert sessions.make_render(job(clip, "high"), further).source == Path(further.edited), "the quality asked for last"
    assert sessions.make_render(job(other), further).source == job(other).portrait


@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), "7", [1]])
def test_what_is_no_number_is_refused(own: sessions.Session, odd: Any) -> None:
    assert sessions.number(0.5, "strength") == 0.5
    with pytest.raises(InputError, match="The strength is not a number"):
        sessions.number(odd, "strength")
    with pytest.raises(InputError, match="length to use is not a number"):
        sessions.make_job("clip.mp4", "preview", 0.0, odd, own)
    with pytest.raises(InputError, match="start is not a number"):
        sessions.make_job("clip.mp4", "preview", odd, 1.0, own)


def test_an_upload_that_is_gone_is_said_without_its_path(own: sessions.Session) -> None:
    gone = Path(own.folder) / "gone.mp4"
    with pytest.raises(InputError, match="The clip is no longer on this machine"):
        sessions.make_job(str(gone), "preview", 0.0, 10.0, own)
    job = sessions.make_job(str(write_clip(gone)), "preview", 0.0, 10.0, own)
    for request, behind in ((EditRequest("style", picture=Path("gone.png")), ""), (EditRequest("text", "a"), "gone")):
        with pytest.raises(InputError, match="The picture is no longer on this machine"):
            sessions.make_edit(job, own, request, "auto", behind=behind)


def test_a_file_made_before_is_replaced(own: sessions.Session) -> None:
    own = finished_edit(own, "bronze")
    first = sessions.make_export("zip", own).output
    first.write_bytes(b"x")
    assert sessions.make_export("zip", own).output != first
    assert not first.exists()


def test_a_result_is_named_in_few_words() -> None:
    assert results.edit_title(EditRequest("text", "bronze")) == "bronze"
    assert results.edit_title(EditRequest("style", picture=Path("a/starry_night.jpg"))) == "Style: starry night"
    assert len(results.edit_title(EditRequest("relight", "warm light " * 20))) < 50


def test_a_view_of_another_part_is_what_is_shown_then(own: sessions.Session) -> None:
    own = finished_edit(own, "bronze")
    clip = str(Path(own.folder) / "upload.mp4")
    of_the_edit = sessions.make_render(sessions.make_job(clip, "preview", 0.0, 10.0, own), own)
    shown = results.conclude(own, of_the_edit)
    assert (shown.learned, shown.edited, shown.result) == (own.learned, own.edited, str(of_the_edit.output))
    assert shown.source == sessions.source_of(own.edited)
    of_the_clip = sessions.make_render(sessions.make_job(clip, "high", 0.0, 10.0, own), own)
    shown = results.conclude(own, of_the_clip)
    assert (shown.learned, shown.edited, shown.source) == (str(of_the_clip.portrait), "", clip), "not the edit"


def test_an_edit_that_was_cut_off_is_gone_on_with_and_any_other_left_is_deleted(
    own: sessions.Session, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", size=(160, 120))
    job = sessions.make_job(str(clip), "preview", 0.0, 10.0, own)
    style = Path(shutil.copyfile(Path(__file__).parent.parent / "examples/styles/starry_night.jpg", tmp_path / "a.jpg"))

    def asked(clip_job: sessions.Job = job, **changes: Any) -> sessions.Job:
        request = EditRequest(**{"kind": "style", "picture": style, "engine": "builtin"} | changes)
        return sessions.make_edit(clip_job, own, request, "auto")

    def cut_off(edit: sessions.Job) -> Path:
        save: Path = edit.options["save"]
        save.mkdir()
        (save / "portrait.json").write_text('{"pending": "x"}')
        return save

    first = asked()
    assert asked().options["save"] != first.options["save"], "nothing is there yet"
    left = cut_off(first)
    again = asked(picture=Path(shutil.copyfile(style, tmp_path / "the_same.jpg")))
    assert again.options["save"] == left
    assert again.output != first.output, "the page keeps what it has shown"
    for changes in ({"seed": 1}, {"strength": 0.5}, {"key_frames": 9}, {"keep_colors": True}):
        assert asked(**changes).options["save"] != left
        assert not left.exists()
        left = cut_off(asked())
    assert asked(replace(job, preset="standard")).options["save"] != left
    left = cut_off(asked())
    (left / "portrait.json").write_text('{"stages": {"edit": 1.0}, "pending": ""}')
    assert asked().options["save"] != left
    assert left.is_dir(), "a finished one stays"
