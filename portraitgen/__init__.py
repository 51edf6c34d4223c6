"""PortraitGen: lift a portrait clip to a dynamic 3D Gaussian avatar and edit it.

Importing the package is cheap; the heavy libraries load with the submodules that need them::

    from portraitgen import pipeline
    for progress in pipeline.reconstruct("clip.mp4", "portrait"):
        print(progress.stage, progress.fraction)
"""

__version__ = "0.1.0"
