"""Plain-torch twin of `portraitgen.rasterization.rasterize`: all Gaussians on all pixels, gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

EPS2D, NEAR_PLANE, MIN_ALPHA, MAX_ALPHA, MIN_TRANSMITTANCE = 0.3, 0.01, 1.0 / 255.0, 0.999, 1e-4


def rotation_matrices(quats: Tensor) -> Tensor:  # [..., 4] wxyz -> [..., 3, 3]
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres [B, N, 2], conics (a, b, c) [B, N, 3] and depths [B, N]; safe stand-ins nearer than the near plane."""
    rotation, translation = viewmats[:, :3, :3], viewmats[:, :3, 3]
    camera = torch.einsum("bij,bnj->bni", rotation, means) + translation[:, None]
    depths = camera[..., 2]
    x, y, z = camera.unbind(-1)
    z = torch.where(depths >= NEAR_PLANE, z, torch.ones_like(z))
    fx, fy, cx, cy = (Ks[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    margin_x, margin_y = 0.3 * 0.5 * width / fx, 0.3 * 0.5 * height / fy
    held_x = z * torch.minimum(torch.maximum(x / z, -cx / fx - margin_x), (width - cx) / fx + margin_x)
    held_y = z * torch.minimum(torch.maximum(y / z, -cy / fy - margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * held_x / z**2, zero, fy / z, -fy * held_y / z**2], -1)
    jacobian = jacobian.view(*z.shape, 2, 3)
    spread = rotation_matrices(quats) * scales[..., None, :]
    covariance = spread @ spread.transpose(-1, -2)
    screen = (
        jacobian @ rotation[:, None] @ covariance @ rotation[:, None].transpose(-1, -2) @ jacobian.transpose(-1, -2)
    )
    xx, xy, yy = screen[..., 0, 0] + EPS2D, screen[..., 0, 1], screen[..., 1, 1] + EPS2D
    determinant = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], -1) / determinant[..., None]
    return torch.stack([fx * x / z + cx, fy * y / z + cy], -1), conics, depths


def rasterize(
    means: Tensor,  # [B, N, 3]
    quats: Tensor,  # [B, N, 4] wxyz
    scales: Tensor,  # [B, N, 3]
    opacities: Tensor,  # [B, N]
    features: Tensor,  # [B, N, D] or [N, D]
    viewmats: Tensor,  # [B, 4, 4]
    Ks: Tensor,  # [B, 3, 3]
    width: int,
    height: int,
    backgrounds: Tensor | None = None,  # [B, D]
) -> tuple[Tensor, Tensor]:  # [B, H, W, D], [B, H, W, 1]
    frames, number = opacities.shape
    features = features.expand(frames, number, features.shape[-1])
    centres, conics, depths = project(means, quats, scales, viewmats, Ks, width, height)
    order = depths.argsort(dim=1, stable=True)
    opacities = torch.where(depths >= NEAR_PLANE, opacities, torch.zeros_like(opacities))

    def arranged(tensor: Tensor) -> Tensor:
        return torch.stack([rows[index] for rows, index in zip(tensor, order, strict=True)])

    centres, conics, opacities, features = (arranged(tensor) for tensor in (centres, conics, opacities, features))
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([u, v], -1).view(-1, 1, 2).to(means) + 0.5
    dx, dy = (pixels - centres[:, None]).unbind(-1)  # [B, H·W, N]
    a, b, c = conics[:, None].unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacities[:, None] * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    alpha = torch.where((sigma >= 0) & (alpha >= MIN_ALPHA), alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, dim=-1)
    alpha = torch.where(after > MIN_TRANSMITTANCE, alpha, torch.zeros_like(alpha))  # a finished pixel stays finished
    after = torch.cumprod(1 - alpha, dim=-1)
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], dim=-1)[..., :number]
    image = (alpha * before) @ features
    opaque = 1 - (after[..., -1:] if number else torch.ones(frames, len(pixels), 1).to(means))
    if backgrounds is not None:
        image = image + (1 - opaque) * backgrounds[:, None]
    return image.view(frames, height, width, -1), opaque.view(frames, height, width, 1)
