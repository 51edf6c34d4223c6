"""What the page says."""

from __future__ import annotations

import pytest

from portraitgen import wording


@pytest.mark.parametrize(
    ("title", "message", "words"),
    [
        ("ZeroGPU illegal duration", "The requested GPU duration (180s) is larger than the maximum allowed", "fewer"),
        (
            "ZeroGPU quota exceeded",
            "You have exceeded your free ZeroGPU quota (90s requested vs. 12s left). Try again in 3:04:05. ",
            "Try again in 3:04:05,",
        ),
        ("ZeroGPU quota exceeded", "Space app has reached its GPU limit. Retry", "Try again later"),
        ("ZeroGPU quota exceeded", "No GPU was available after 60s. Retry later", "in a minute"),
        ("ZeroGPU pending credits exceeded", "You have too many ZeroGPU credits allocated", "Wait until one"),
        ("ZeroGPU worker error", "RuntimeError", wording.BROKEN),
        ("Error", "Something else.", "Something else."),
    ],
)
def test_refusals_of_the_shared_gpu_say_what_to_do(title: str, message: str, words: str) -> None:
    assert words in wording.explain_gpu(title, message)
    assert not wording.is_overrun(message)


def test_costs_are_said_as_people_say_them() -> None:
    told = wording.describe_cost(215, 105, cores=2, gpu=False)
    assert "about 4 min to learn the clip, once, and 2 min for each edit" in told
    assert "learned already" in wording.describe_cost(0, 42, cores=1, gpu=False)
    told = wording.describe_price((40, 25))
    assert "40 s to learn the clip, once, and 25 s for each edit" in told
    assert "takes 25 s for each edit" in wording.describe_price((25,))
    assert [wording.roughly(s) for s in (3, 42, 100, 7000)] == ["5 s", "40 s", "2 min", "1.9 h"]


def test_the_message_area_escapes() -> None:
    shown = wording.note("<script>", "<i>", "", value=0.5, bad=True)
    assert "<script>" not in shown
    assert "<i>" not in shown
    assert 'value="0.500"' in shown
