from __future__ import annotations

import torch
from test_text_editor import portrait as drawn
from torch import Tensor

from portraitgen.body import LABELS
from portraitgen.editors import EditBatch
from portraitgen.editors.face_aware import crop_batch, edit_face_aware, head_boxes


class Recorder:
    """An editor that turns everything red in whole frames and green in the heads that it is shown as crops."""

    name, understood = "recorder", ""
    reads_render = edits_background = False

    def __init__(self, face_aware: bool) -> None:
        self.face_aware = face_aware
        self.batches: list[EditBatch] = []

    def edit(self, batch: EditBatch) -> Tensor:
        self.batches.append(batch)
        colour = torch.tensor([1.0, 0.0, 0.0] if len(self.batches) == 1 else [0.0, 1.0, 0.0])
        return colour.view(1, 3, 1, 1).expand_as(batch.source)


def batch(head: tuple[int, int, int] = (60, 50, 24)) -> EditBatch:
    """One frame of 160 pixels with a head (column, row, radius) and one without."""
    made = drawn()
    y, x = torch.meshgrid(torch.arange(160), torch.arange(160), indexing="ij")
    inside = (x - head[0]) ** 2 + (y - head[1]) ** 2 < head[2] ** 2
    parts = torch.where(inside, LABELS.index("face"), -1)[None, None]
    layers = {name: torch.cat([value, value]) for name, value in vars(made).items() if isinstance(value, Tensor)}
    layers["parts"] = torch.cat([parts, torch.full_like(parts, -1)])
    layers["alpha"] = torch.ones_like(layers["alpha"])
    return EditBatch(**(vars(made) | layers | {"regions": {}}))


def test_a_head_is_edited_again_where_it_is_large() -> None:
    editor = Recorder(face_aware=True)
    edited = edit_face_aware(editor, batch())
    assert len(editor.batches) == 2
    assert editor.batches[1].source.shape == (1, 3, 160, 160), "only the frame with a head, at full size"
    assert (editor.batches[1].parts == LABELS.index("face")).float().mean() > 0.2, "the head is large in it"
    green = edited[0, 1]
    assert green[50, 60] > 0.99
    assert green[140, 140] == 0
    assert ((green[:, 1:] - green[:, :-1]).abs() < 0.4).all(), "no seam"
    assert (edited[1, 1] == 0).all()


def test_an_editor_that_sees_no_more_in_a_crop_is_asked_once() -> None:
    editor = Recorder(face_aware=False)
    edit_face_aware(editor, batch())
    assert len(editor.batches) == 1
    close = Recorder(face_aware=True)
    edit_face_aware(close, batch((80, 80, 70)))
    assert len(close.batches) == 1, "a head that fills the frame gains nothing"


def test_crops_show_the_same_place_in_every_layer() -> None:
    whole = batch()
    box = head_boxes(whole)[0]
    assert box is not None
    left, top, side = box
    assert 0 <= left <= 160 - side
    assert 0 <= top <= 160 - side
    crop = crop_batch(whole, {0: box})
    back = torch.nn.functional.interpolate(crop.source, (side, side), mode="area")
    assert (back - whole.source[:1, :, top : top + side, left : left + side]).abs().mean() < 0.02
    assert torch.isfinite(crop.uv).any()
    assert torch.isnan(crop.uv).any()
    near = head_boxes(batch((10, 150, 24)))[0]
    assert near is not None, "a head at the corner"
    assert near[0] == 0
    assert near[1] + near[2] == 160
