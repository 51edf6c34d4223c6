"""Which engine does an edit, with its weights at hand, and the built-in one that takes over where they cannot be had."""

from __future__ import annotations

import functools
from collections.abc import Generator
from dataclasses import replace

from . import weights
from .editors import ENGINES, EditRequest, choose_engine, load_editor
from .errors import InputError
from .progress import Progress
from .streaming import aside
from .wording import cannot_use, took_over


def settle_engine(
    request: EditRequest, device: str, *, stand_in: bool = False
) -> Generator[Progress, None, EditRequest]:
    """Settle which engine does ``request`` on ``device``, and fetch its weights if they are not here yet.

    "auto" takes what is here. A named engine is insisted on: whoever names one on the command line wants that one or the reason why not.
    With ``stand_in``, as on the page, whose visitor can install nothing, the built-in engine takes over. Whenever it does, the progress
    says so by name, and why.

    Returns:
        The request with the engine that will do it.

    Raises:
        InputError: as `choose_engine`; the weights cannot be had; or the built-in engine, taking over, cannot do what is asked.
    """
    chosen = choose_engine(request, device)
    if request.engine == "auto" and chosen.engine == "builtin" and device.startswith("cuda"):
        wanted = ENGINES[request.kind][1]
        return (yield from _take_over(chosen, wanted, weights.not_here(wanted)))
    try:
        for step in weights.fetching(weights.missing(chosen.engine)):
            yield Progress("edit", step.done / max(step.total, 1), str(step))
    except InputError as error:
        if not stand_in:
            raise
        return (yield from _take_over(replace(chosen, engine="builtin"), chosen.engine, str(error)))
    return chosen


def _take_over(request: EditRequest, wanted: str, why: str) -> Generator[Progress, None, EditRequest]:
    """Let the built-in engine do ``request``, if it can, in place of ``wanted``."""
    try:
        aside(functools.partial(load_editor, request, "cpu"))
    except InputError as error:
        raise InputError(f"{cannot_use(wanted, why)} {error}") from None
    said = f"{cannot_use(wanted, why)} {took_over(request.kind)}"
    yield Progress("edit", 0.0, said, notes=(said,))
    return request
