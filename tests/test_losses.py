from __future__ import annotations

import pytest
import torch

from portraitgen import losses
from portraitgen.losses import PerceptualLoss

TERMS = [
    losses.reconstruction_loss,
    losses.mask_loss,
    losses.stable_loss,
    losses.gradient_loss,
    lambda a, b: 1 - losses.ssim(a, b),
]


@pytest.mark.parametrize("term", TERMS)
def test_terms_vanish_for_equal_pictures_and_grow_with_the_difference(term) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    picture = torch.rand(2, 3, 24, 20)
    noise = torch.randn_like(picture)
    values = [float(term((picture + amount * noise).clamp(0, 1), picture)) for amount in (0.0, 0.05, 0.2)]
    assert values[0] == pytest.approx(0, abs=1e-5)
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("term", TERMS)
def test_terms_have_finite_gradients_on_flat_pictures(term) -> None:  # type: ignore[no-untyped-def]
    picture = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    term(picture, torch.full((1, 3, 16, 16), 0.25)).backward()
    assert picture.grad is not None
    assert torch.isfinite(picture.grad).all()


def test_scale_penalty_of_nothing_is_zero_and_not_nan() -> None:
    scales = torch.full((10, 3), 0.001, requires_grad=True)
    loss = losses.excess_scale_loss(scales, torch.full((10, 1), 0.06))
    loss.backward()
    assert float(loss) == 0
    assert scales.grad is not None
    assert torch.equal(scales.grad, torch.zeros(10, 3))


def test_psnr_of_known_noise() -> None:
    assert losses.psnr(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.01)) == pytest.approx(40, abs=1e-3)
    assert losses.psnr(torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8)) == 100


def test_embedded_perceptual_distance_ranks_blur_and_reaches_the_picture() -> None:
    from skimage import data

    face = torch.from_numpy(data.astronaut()[:192, 128:320].copy()).permute(2, 0, 1)[None].float() / 255
    network = PerceptualLoss()
    assert network.name == "EfficientNet-Lite0"
    blurred = [torch.nn.functional.avg_pool2d(face, k, 1, k // 2) for k in (1, 3, 9)]
    distances = [float(network(image, face)) for image in blurred]
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances[0] < distances[1] < distances[2]
    image = blurred[2].clone().requires_grad_()
    network(image, face).backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in network.parameters())


def test_ssim_agrees_with_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    torch.manual_seed(1)
    a = torch.rand(1, 3, 40, 52)
    b = (a + 0.1 * torch.randn_like(a)).clamp(0, 1)
    reference = structural_similarity(
        a[0].permute(1, 2, 0).numpy(),
        b[0].permute(1, 2, 0).numpy(),
        win_size=7,
        channel_axis=2,
        data_range=1.0,
        use_sample_covariance=False,
        gaussian_weights=False,
    )
    assert float(losses.ssim(a, b)) == pytest.approx(reference, abs=2e-3)


def test_texture_asks_for_as_much_detail_wherever_it_lies() -> None:
    noise = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    shifted = noise.roll((3, 5), (2, 3))
    blurred = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    assert losses.texture_loss(noise, noise) == 0
    assert losses.texture_loss(shifted, noise) < 0.15 * losses.texture_loss(blurred, noise)
    flat = torch.full((1, 1, 16, 16), 0.5, requires_grad=True)
    losses.texture_loss(flat, noise[..., :16, :16]).backward()  # type: ignore[no-untyped-call]
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all(), "a flat picture has no direction to sharpen, but no NaN either"
