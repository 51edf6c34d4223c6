"""Estimates: what they follow, and that a running job corrects them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from portraitgen.estimates import expected_seconds, finished_stages, seconds_left, share_done

LEARN = ("clip", "tracking", "matting", "reconstruction")
EDIT = ("edit", "fitting", "render")


def test_the_measured_job_is_predicted() -> None:
    """The job of benchmarks/results/whole_job.json: 75 frames, preview, two cores."""
    rows = json.loads((Path(__file__).parent.parent / "benchmarks/results/whole_job.json").read_text())["rows"]
    measured = {row["stage"]: row["seconds"] for row in rows}
    learn = sum(expected_seconds(LEARN, 75, "preview", cores=2).values())
    edit = sum(expected_seconds(EDIT, 75, "preview", cores=2).values())
    assert learn == pytest.approx(sum(measured[stage] for stage in LEARN), rel=0.2)
    assert edit == pytest.approx(sum(measured[stage] for stage in EDIT), rel=0.2)


def test_a_long_clip_costs_more_for_the_frames_in_between_too() -> None:
    """The job of benchmarks/results/preview_driving_d18_whole.json: 216 frames, of which 150 are learned from, preview, two cores."""
    results = Path(__file__).parent.parent / "benchmarks/results/preview_driving_d18_whole.json"
    (row,) = json.loads(results.read_text())["rows"]
    assert row["frames"] + row["held out"] == 216
    expected = expected_seconds(("reconstruction",), 216, "preview", cores=2)["reconstruction"]
    assert expected == pytest.approx(row["reconstruction s"], rel=0.2)
    steps = [expected_seconds(("reconstruction",), count, "preview", cores=2)["reconstruction"] for count in (150, 216)]
    assert steps[1] - steps[0] == pytest.approx(14.5, rel=0.1), "66 frames in between"


def test_each_preset_learns_from_as_many_frames_as_it_says() -> None:
    from portraitgen.reconstruction import PRESETS

    for preset, config in PRESETS.items():
        few, some, many = (
            expected_seconds(("reconstruction",), config.frames + change, preset, cores=2)["reconstruction"]
            for change in (-10, 0, 10)
        )
        assert some - few == pytest.approx(4.8), "these are learned from"
        assert many - some == pytest.approx(2.2), "these only aligned"


def test_more_frames_a_finer_preset_and_fewer_cores_take_longer() -> None:
    base = sum(expected_seconds(LEARN, 75, "preview", cores=2).values())
    assert sum(expected_seconds(LEARN, 150, "preview", cores=2).values()) > base
    assert sum(expected_seconds(LEARN, 75, "standard", cores=2).values()) > base
    assert sum(expected_seconds(LEARN, 75, "preview", cores=1).values()) == pytest.approx(2 * base)
    larger = sum(expected_seconds(LEARN, 75, "preview", cores=2, size=768).values())
    assert 1.5 * base < larger < 2 * base, "an upright clip to the waist: measured 1.7"
    assert expected_seconds((), 75, "preview") == {}


def test_the_share_follows_the_seconds_not_the_stages() -> None:
    expected = {"a": 1.0, "b": 9.0}
    assert share_done(expected, {}) == 0
    assert share_done(expected, {"a": 1.0}) == pytest.approx(0.1)
    assert share_done(expected, {"b": 0.5}) == pytest.approx(0.55), "a stage passed over is done"
    assert share_done(expected, {"a": 1.0, "b": 1.0}) == 1
    assert share_done({}, {}) == 0


def test_the_share_never_sinks_where_stages_take_turns() -> None:
    expected, done, shares = {"edit": 2.0, "fitting": 6.0, "render": 2.0}, {}, []
    for stage, fraction in (("edit", 0.5), ("fitting", 0.5), ("edit", 1.0), ("fitting", 1.0), ("render", 1.0)):
        done[stage] = fraction
        shares.append(share_done(expected, done))
    assert shares == pytest.approx([0.1, 0.4, 0.5, 0.8, 1.0])


def test_a_job_corrects_its_own_estimate() -> None:
    assert seconds_left({"a": 100.0}, 0.0, 0.0) == 100
    assert seconds_left({"a": 100.0}, 0.5, 200.0) == 200, "twice as slow as expected"
    assert seconds_left(None, 0.0, 3.0) is None
    assert seconds_left(None, 0.5, 3.0) == 3


def test_finished_stages_are_read_from_the_folder(tmp_path: Path) -> None:
    assert finished_stages(tmp_path) == frozenset()
    (tmp_path / "portrait.json").write_text('{"stages": {"clip": 1.0, "tracking": 2.0}}')
    assert finished_stages(tmp_path) == {"clip", "tracking"}
    (tmp_path / "portrait.json").write_text("{")
    assert finished_stages(tmp_path) == frozenset()
