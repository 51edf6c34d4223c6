"""Landmarks of a grown-up of average build standing upright, from the base of the neck: the origin of every body model here at rest."""

from __future__ import annotations

# Metres from the base of the neck, x to one side, y down.
NECK, SHOULDER, ARMPIT = 0.066, 0.185, (0.165, 0.155)
SHOULDER_LINE = ((0.0, 0.066, 0.08, 0.10, 0.13, 0.16, 0.185), (-0.012, -0.004, 0.004, 0.015, 0.025, 0.036, 0.055))
ELBOW = ((0.342, 0.228), (0.296, 0.288))  # outer and inner side
CHEST = (0.165, 0.115, -0.02)  # half width, half depth, z of the middle
