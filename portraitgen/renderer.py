"""The 2D neural renderer that turns splatted features into a picture (PortraitGen, Eq. 8-9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .avatar import Avatar
from .poses import PosedMesh
from .precision import mixed
from .rasterization import rasterize


class NeuralRenderer(nn.Module):
    """Small U-shaped network: feature map to a colour residual on top of the map's first three channels.

    The official renderer is a plain stack of 3x3 convolutions; here half of the work happens at half resolution and the first three
    channels pass through, so that an untrained renderer already shows the Gaussians' own colours (Eq. 12 keeps them a colour image).

    What the rasteriser gives lies in memory pixel by pixel (channels last), and all layers keep that: with two windows of `preview` and one
    thread of a CPU, a step takes 0.53 of the time that it takes channel by channel. Weights in that order change nothing more (1.05).

    Args:
        channels: feature channels D of the splatted map.
        hidden: channels at full resolution; twice as many are used at half resolution. 0 leaves the network out: plain coloured Gaussians,
            which the ablation compares with.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        if not hidden:
            return
        self.enter = nn.Conv2d(channels + 1, hidden, 3, padding=1)
        self.down = nn.Conv2d(hidden, 2 * hidden, 3, padding=1)
        self.middle = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1)
        self.up = nn.Conv2d(2 * hidden, hidden, 1)
        self.merge = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.leave = nn.Conv2d(hidden, 3, 3, padding=1)
        self.forget()

    @torch.no_grad()
    def forget(self) -> None:
        """Show the Gaussians' own colours again; the inner layers stay as they are."""
        if self.hidden:
            self.leave.weight.zero_()
            self.leave.bias.zero_()  # type: ignore[union-attr]

    def forward(self, features: Tensor, alpha: Tensor) -> Tensor:
        """Premultiplied colour ``[B, 3, H, W]`` from features ``[B, D, H, W]`` splatted over zero and alpha ``[B, 1, H, W]``; even H, W."""
        if not self.hidden:
            return features[:, :3]
        with mixed(features.device):  # the pass-through stays exact
            x = F.relu(self.enter(torch.cat([features, alpha], 1)))
            y = F.relu(self.middle(F.relu(self.down(F.avg_pool2d(x, 2)))))
            y = F.interpolate(self.up(y), scale_factor=2.0, mode="bilinear", align_corners=False)
            residual = self.leave(F.relu(self.merge(x + y)))
        # The residual is confined to the person, so that the background behind never leaks into the picture.
        return features[:, :3] + residual.float() * alpha


@dataclass(frozen=True)
class Rendering:
    """A rendered batch.

    Attributes:
        color: premultiplied colour ``[B, 3, H, W]``.
        alpha: coverage ``[B, 1, H, W]`` in [0, 1].
        color_features: the first three splatted channels ``[B, 3, H, W]``, premultiplied.
    """

    color: Tensor
    alpha: Tensor
    color_features: Tensor

    def over(self, background: Tensor) -> Tensor:
        """The picture over ``background`` (broadcastable to ``[B, 3, H, W]``), not clamped."""
        return self.color + (1 - self.alpha) * background

    def straight(self) -> Tensor:
        """Straight (not premultiplied) colour ``[B, 3, H, W]`` in [0, 1]."""
        return (self.color / self.alpha.clamp_min(1e-3)).clamp(0, 1)

    def exposed(self, gain: Tensor) -> Rendering:
        """The same taken with another gain ``[B, 3]``."""
        gain = gain[..., None, None]
        return Rendering(self.color * gain, self.alpha, self.color_features * gain)


def render(
    avatar: Avatar,
    renderer: NeuralRenderer,
    mesh: PosedMesh,
    viewmats: Tensor,  # [B, 4, 4] world to camera
    Ks: Tensor,  # [B, 3, 3] pixels
    width: int,
    height: int,
) -> Rendering:
    """Splat the avatar posed on ``mesh`` and run the neural renderer. ``width`` and ``height`` are even.

    A window of a larger picture is rendered by shifting the principal points in ``Ks``.
    """
    gaussians = avatar(mesh)
    features, alpha = rasterize(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.features,
        viewmats,
        Ks,
        width,
        height,
        backgrounds=None,
    )
    features, alpha = features.permute(0, 3, 1, 2), alpha.permute(0, 3, 1, 2)
    color = renderer(features, alpha)
    return Rendering(color, alpha, features[:, :3])
