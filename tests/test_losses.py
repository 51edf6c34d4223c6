from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from portraitgen import losses, weights
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


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trunk of random weights under the names of timm's vgg16.tv_in1k, with a little of what is not read."""
    from torchvision.models import vgg

    generator = torch.Generator().manual_seed(0)
    tensors = {"head.fc.weight": torch.zeros(10, 8), "pre_logits.fc1.bias": torch.zeros(8)}
    for index, layer in enumerate(vgg.make_layers(vgg.cfgs["D"])):
        if isinstance(layer, torch.nn.Conv2d):
            shape = layer.weight.shape
            tensors[f"features.{index}.weight"] = torch.randn(shape, generator=generator) * (2 / (9 * shape[1])) ** 0.5
            tensors[f"features.{index}.bias"] = 0.05 * torch.randn(shape[0], generator=generator)
    path = tmp_path_factory.mktemp("weights") / "vgg16"
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    return path


@pytest.fixture
def with_vgg16(vgg16: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(weights, "path", lambda name: vgg16 if name == "vgg16" else None)
    losses._lpips_vgg.cache_clear()
    yield vgg16
    losses._lpips_vgg.cache_clear()


def test_with_its_trunk_here_the_distance_is_lpips(with_vgg16: Path) -> None:
    import lpips

    network = PerceptualLoss()
    assert network.name == "LPIPS-VGG"
    assert not any(parameter.requires_grad for parameter in network.parameters())
    torch.manual_seed(2)
    target = torch.rand(2, 3, 48, 64)
    assert float(network(target, target)) == 0
    image = torch.nn.functional.avg_pool2d(target, 3, 1, 1).requires_grad_()
    distance = network(image, target)
    distance.backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().amax((1, 2, 3)).min() > 0, "of every picture"

    stored = load_file(with_vgg16 / "model.safetensors")
    indices = sorted(int(name.split(".")[1]) for name in stored if name.startswith("features.") and "bias" in name)
    reference = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    layers = [layer for layer in reference.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    for layer, index in zip(layers, indices, strict=True):
        state = {kind: stored[f"features.{index}.{kind}"] for kind in ("weight", "bias")}
        layer.load_state_dict(state)
    with torch.no_grad():
        wanted = reference(image, target, normalize=True)
    assert wanted.shape == (2, 1, 1, 1)
    assert float(distance.detach()) == pytest.approx(float(wanted.mean()), rel=1e-4)


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
