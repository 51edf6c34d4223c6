"""The poses that FASHN VTON asks for: found, put in order, drawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pose_network import write_pose_network

from portraitgen.editors.dwpose import draw_pose, find_pose, load_network

pytestmark = pytest.mark.usefixtures("one_thread")


def test_points_are_found_where_they_are(tmp_path: Path) -> None:
    gains = np.ones(133)
    gains[[10, 30]] = 0  # right wrist, a point of the face
    write_pose_network(tmp_path / "network.onnx", gains)
    network = load_network(tmp_path / "network.onnx")
    for (x, y), box in (
        ((150, 90), (40, 30, 260, 200)),
        ((31, 170), (0, 0, 300, 220)),
        ((200, 40), (150, 10, 230, 210)),
    ):
        picture = np.zeros((220, 300, 3), np.uint8)
        cv2.circle(picture, (x, y), 3, (255, 255, 255), -1)
        points = find_pose(network, picture, np.array(box, np.float64))
        assert points.shape == (128, 2)
        missing = np.isnan(points).any(1)
        assert np.flatnonzero(missing).tolist() == [4, 25]  # right wrist; the point of the face after 7 others
        assert np.abs(points[~missing] - (x, y)).max() < 4


def test_points_come_in_drawing_order() -> None:
    """A network that finds point k at (100 + k, 200 + k) of its own picture, which the box makes the picture itself."""

    class Network:
        def get_inputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="input", shape=[1, 3, 384, 288])]

        def run(self, outputs: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
            number = np.arange(133)
            across, down = np.zeros((1, 133, 576)), np.zeros((1, 133, 768))
            across[0, number, 2 * (100 + number)], down[0, number, 2 * (200 + number)] = 0.9, 0.4
            down[0, 16] *= 0.5  # the right ankle: seen across, not down
            return [across, down]

    box = np.array([28.8, 38.4, 259.2, 345.6])  # with its margin 288 x 384
    points = find_pose(Network(), np.zeros((384, 288, 3), np.uint8), box)
    coco = points[:, 0] - 100
    assert coco[[0, 2, 3, 4, 5, 8, 11, 13, 14, 15, 16, 17]].tolist() == pytest.approx(
        [0, 6, 8, 10, 5, 12, 11, 15, 2, 1, 4, 3]
    )
    assert coco[1] == pytest.approx(5.5)  # the neck, between the shoulders
    assert np.isnan(points[10]).all()
    assert coco[18:].tolist() == pytest.approx(list(range(23, 133)))
    assert (points[~np.isnan(coco)] @ (-1, 1)).tolist() == pytest.approx([100] * 127)


def test_figures_are_drawn_as_in_training() -> None:
    """Pixels of the figure that the published code draws from the same points."""
    number = np.arange(128)
    points = np.stack([130 + 110 * np.sin(1.3 * number + 0.2), 150 + 120 * np.cos(2.1 * number)], 1)
    points[[4, 10, 13, 30, 90, 110]] = np.nan
    figure = draw_pose(points, 300, 260)
    assert figure.mean() == pytest.approx(55.198, abs=0.05)
    samples = [
        *([0, 0, 0, 0, 0], [0, 210, 0, 0, 0], [0, 0, 210, 0, 194], [0, 194, 213, 175, 105], [0, 0, 207, 0, 191]),
        *([0, 0, 160, 0, 50], [0, 0, 0, 0, 0]),
    ]
    assert figure[20::40, 15::50].tolist() == samples
    assert not draw_pose(None, 40, 30).any()
    assert not draw_pose(np.full((128, 2), np.nan), 40, 30).any()
