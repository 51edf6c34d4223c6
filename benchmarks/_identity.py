"""Whether an edited face is still the same person's, by a network that was trained to tell people apart.

The network is dlib's face descriptor (Boost licence, weights CC0): 128 numbers a face; two faces less than `SAME_PERSON` apart are taken
for one person's. Faces are cut out by the clip's own landmarks in the edit too: an edit keeps the face where it is, and no detector that
knows photographs only can then leave a painted face out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np

SAME_PERSON = 0.6
# FaceMesh's points for dlib's five: outer and inner corners of the eyes, base of the nose.
_CORNERS_AND_NOSE = (263, 362, 33, 133, 2)


class Faces:
    """Descriptors of faces."""

    def __init__(self) -> None:
        import dlib

        package = importlib.util.find_spec("face_recognition_models")  # importing it asks for setuptools
        if package is None or not package.submodule_search_locations:
            raise ModuleNotFoundError("face_recognition_models is missing: pip install -r tests/requirements.txt")
        folder = Path(package.submodule_search_locations[0]) / "models"
        self._network = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))

    def describe(self, frame: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The descriptor ``[128]`` of the face at FaceMesh's ``points`` ``[478, 2]``, pixels of ``frame`` ``[H, W, 3]`` uint8."""
        import dlib

        low, high = (edge.round().astype(int).tolist() for edge in (points.min(0), points.max(0)))
        marks = [dlib.point(*points[index].round().astype(int).tolist()) for index in _CORNERS_AND_NOSE]
        found = dlib.full_object_detection(dlib.rectangle(*low, *high), marks)
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(frame), found))

    def describe_all(self, frames: Iterable[np.ndarray], points: np.ndarray, every: int) -> np.ndarray:
        """Descriptors ``[N, 128]`` of every ``every``-th of the frames; NaN where its ``points`` ``[T, 478, 2]`` are."""
        return np.stack(
            [
                self.describe(frame, place) if np.isfinite(place).all() else np.full(128, np.nan)
                for number, (frame, place) in enumerate(zip(frames, points, strict=False))
                if number % every == 0
            ]
        )


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """Mean distance of the same frames' descriptors ``[N, 128]``."""
    return float(np.nanmean(np.linalg.norm(first - second, axis=1)))


def spread(faces: np.ndarray) -> float:
    """Mean distance between the different frames' descriptors ``[N, 128]``: what one person's own movement comes to."""
    return float(np.nanmean([np.linalg.norm(one - other) for one, other in combinations(faces, 2)]))
