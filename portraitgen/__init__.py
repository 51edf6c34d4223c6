"""PortraitGen: lift a portrait clip to a dynamic 3D Gaussian avatar and edit it.

Importing the package is cheap; the heavy libraries load with the submodules that need them::

    from portraitgen import pipeline
    for progress in pipeline.reconstruct(Path("clip.mp4"), Path("portrait")):
        print(progress.stage, progress.fraction)
"""

import os

# OpenMP's threads spin while they wait. On two cores a second job, or anything else that wants one of them, then stalls every parallel
# region: optimiser steps were measured at 2.4 to 4 s spinning and 0.35 s sleeping. Read once, when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
