"""Landmarks of a garment's silhouette: neck, shoulders, armpits, sleeves and hem, found in its outline."""

from __future__ import annotations

import cv2
import numpy as np

LEFT, RIGHT = -1, 1


class Silhouette:
    """Landmarks of a silhouette [h, w] bool, in its pixels."""

    def __init__(self, solid: np.ndarray, neck: np.ndarray | None = None) -> None:
        self.solid = solid
        rows = np.flatnonzero(solid.any(1))
        columns = np.flatnonzero(solid.any(0))
        self.top, self.bottom = int(rows[0]), int(rows[-1])
        self.left, self.right = int(columns[0]), int(columns[-1])
        self.height, self.width = self.bottom - self.top + 1, self.right - self.left + 1
        self.first = np.array([np.argmax(row) for row in solid])
        self.last = solid.shape[1] - 1 - np.array([np.argmax(row[::-1]) for row in solid])
        self.axis = float(np.median((self.first + self.last)[rows] / 2))
        self.profile = np.where(solid.any(0), np.argmax(solid, 0), solid.shape[0]).astype(np.float64)
        pits = [self._pit(side) for side in (LEFT, RIGHT)]
        self.has_sleeves = pits[0] is not None and pits[1] is not None
        if self.has_sleeves:
            self.armpits = np.array(pits, np.float64)
            half = np.abs(self.armpits[:, 0] - self.axis).mean()
            tips = self.axis + np.array([LEFT, RIGHT]) * 1.06 * half
            self.shoulders = np.array([[x, self._ridge(x)] for x in tips])
        else:
            self.shoulders = np.array([self._bare_shoulder(side) for side in (LEFT, RIGHT)])
            start, reach = int(self.shoulders[:, 1].mean()), np.ptp(self.shoulders[:, 0]) / 2
            below = np.arange(
                min(start + int(0.6 * reach), self.bottom), min(start + int(1.4 * reach), self.bottom) + 1
            )
            row = int(below[int(np.argmax((self.last - self.first)[below]))])  # the bust
            self.armpits = np.array([[self.first[row], row], [self.last[row], row]], np.float64)
        self.neck = self._neck() if neck is None else neck
        self.neck_width = float(np.ptp(self.neck[:, 0]))
        middle = self.profile[int(self.axis) - 1 : int(self.axis) + 2].mean()
        self.neck_height = float(self.neck[:, 1].mean() - middle)  # negative: the top dips in the middle
        self.hem = self._hem()
        self.sleeves = np.array([self._sleeve(side) for side in (LEFT, RIGHT)]) if self.has_sleeves else None

    @property
    def chest(self) -> float:
        return float(np.ptp(self.armpits[:, 0]))

    def _ridge(self, x: float) -> float:
        return float(self.profile[int(np.clip(round(x), self.left, self.right))])

    def _pit(self, side: int) -> np.ndarray | None:
        """The armpit: the deepest notch of the outline on one side, if what lies outside of it hangs down or out as a sleeve does."""
        contours, _ = cv2.findContours(self.solid.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = max(contours, key=len)
        hull = cv2.convexHull(outline, returnPoints=False)
        hull[::-1].sort(axis=0)
        notches = cv2.convexityDefects(outline, hull)
        best, depth = None, 0.05 * self.width
        for start, end, far, distance in [] if notches is None else notches[:, 0]:
            pit = outline[far, 0]
            ends = outline[[start, end], 0]
            outward = (pit[0] - self.axis) * side
            tip = ends[np.argmax(ends[:, 0] * side)]
            reach = (tip[0] - pit[0]) * side
            below = ends[np.argmax(ends[:, 1])][1] > pit[1]
            if outward < 0.08 * self.width or not below or reach < 0.03 * self.width or tip[1] < pit[1] - 0.6 * reach:
                continue
            if pit[1] > self.top + 0.62 * self.height or self._is_hem(tip, pit):
                continue
            if distance / 256 > depth:
                best, depth = self._apex(outline[:, 0], far), distance / 256
        return best

    def _apex(self, outline: np.ndarray, far: int) -> np.ndarray:
        """Where the two sides of a notch of ``outline`` [N, 2] meet: above its deepest pixel ``far``, where it is too thin to be seen."""
        pit, span = outline[far].astype(np.float64), max(6, round(0.12 * self.height))
        sides = []
        for way in (-1, 1):
            side = outline[(far + way * np.arange(span // 4, span)) % len(outline)].astype(np.float64)
            middle = side.mean(0)
            direction = np.linalg.svd(side - middle)[2][0]
            if np.abs((side - middle) @ (-direction[1], direction[0])).mean() > 0.03 * span:  # not straight
                return pit
            sides.append((middle, direction))
        (start, along), (other, across) = sides
        matrix = np.stack([along, -across], 1)
        if abs(np.linalg.det(matrix)) < 0.05:
            return pit
        apex = start + np.linalg.solve(matrix, other - start)[0] * along
        return apex if np.linalg.norm(apex - pit) < 0.6 * span and apex[1] <= pit[1] + 1 else pit

    def _is_hem(self, tip: np.ndarray, pit: np.ndarray) -> bool:
        """Whether the end of a notch is the corner of a wide hem, below a waist, and not the end of a sleeve."""
        row = self.solid[max(int(tip[1]) - max(2, int(0.02 * self.height)), 0)]
        between = row[min(int(tip[0]), int(self.axis)) : max(int(tip[0]), int(self.axis)) + 1]
        return bool(tip[1] > pit[1] + 0.15 * self.height and between.mean() > 0.9)

    def _bare_shoulder(self, side: int) -> list[float]:
        """The outer end of a shoulder without sleeve: where the side turns from going out to going down."""
        rows = np.arange(self.top, self.top + max(4, int(0.3 * self.height)))
        reach = ((self.first if side == LEFT else self.last)[rows] - self.axis) * side
        step = max(2, int(0.035 * self.height))
        for index in range(len(rows) - step):
            if reach[index + step] - reach[index] < 0.35 * step and reach[index] > 0.15 * self.width:
                return [self.axis + side * float(reach[index]), float(rows[index])]
        return [self.axis + side * float(reach.max()), float(rows[int(reach.argmax())])]

    def _neck(self) -> np.ndarray:
        """Where shoulders end and neck or collar begins: from each shoulder inwards, before the outline rises steeply or falls."""
        points = []
        for side, (x, _) in zip((LEFT, RIGHT), self.shoulders, strict=True):
            reach = abs(x - self.axis)
            way = np.arange(0.16 * reach, 0.97 * reach)[::-1]  # distances from the axis, inwards
            ridge = np.array([self._ridge(self.axis + side * distance) for distance in way])
            step = max(3, int(0.07 * reach))
            found = int(np.argmin(ridge))  # a neckline that dips: its rim
            for index in range(len(way) - step):
                if way[index] < 0.85 * reach and ridge[index] - ridge[index + step] > 1.3 * step:
                    found = min(found, index)
                    break
            points.append([self.axis + side * way[found], ridge[found]])
        return np.array(points)

    def _hem(self) -> np.ndarray:
        middle = self.solid[:, int(self.armpits[0, 0]) : int(self.armpits[1, 0]) + 1]
        row = int(np.flatnonzero(middle.sum(1) > 0.5 * middle.shape[1])[-1])
        line = self.solid[max(row - max(1, int(0.02 * self.height)), 0)]
        ends = []
        for side in (LEFT, RIGHT):
            x = int(self.axis)
            if not line[x]:  # open at the front
                x += side * int(np.argmax(line[x::side]))
            run = line[x::side]
            ends.append([x + side * (int(np.argmin(run)) - 1 if not run.all() else len(run) - 1), row])
        return np.array(ends, np.float64)

    def _sleeve(self, side: int) -> np.ndarray:
        """Outer and inner end of a sleeve [2, 2]."""
        index = 0 if side == LEFT else 1
        shoulder, pit = self.shoulders[index], self.armpits[index]
        y, x = np.nonzero(self.solid)
        across = pit - shoulder
        beyond = ((x - shoulder[0]) * across[1] - (y - shoulder[1]) * across[0]) * side > 0
        outside = beyond & ((x - pit[0]) * side > 0)
        limb = np.zeros_like(self.solid, np.uint8)
        limb[y[outside], x[outside]] = 1
        count, labels, stats, _ = cv2.connectedComponentsWithStats(limb, connectivity=8)
        if count > 2:
            limb = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
        y, x = np.nonzero(limb)
        points, start = np.stack([x, y], 1).astype(np.float64), (shoulder + pit) / 2
        if len(points) < 8:
            return np.stack([shoulder, pit])
        away = np.linalg.norm(points - start, axis=1)
        direction = points[away >= np.quantile(away, 0.9)].mean(0) - start
        direction /= np.linalg.norm(direction)
        normal = np.array([direction[1], -direction[0]]) * side  # outer side of a hanging sleeve
        along = (points - start) @ direction
        end = np.quantile(along, 0.99)
        aside = ((points - start) @ normal)[along > 0.92 * end]
        return np.stack([start + end * direction + value * normal for value in (aside.max(), aside.min())])
