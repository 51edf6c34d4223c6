"""`rasterize` against its plain-torch twin, finite differences, and the promises in its docstring."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import rasterization_reference
import torch
from torch import Tensor

from portraitgen import rasterization
from portraitgen.rasterization import backend_name, rasterize

NAMES = ("means", "quats", "scales", "opacities", "features", "backgrounds")
WIDTH, HEIGHT = 33, 21


def random_scene(
    frames: int = 1,
    number: int = 200,
    channels: int = 3,
    *,
    shared: bool = False,
    scale: float = 0.1,
    seed: int = 0,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """(differentiable inputs by name, cameras): a cloud around the view axis, partly outside the image or behind."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = {
        "means": normal(frames, number, 3) * torch.tensor([0.8, 0.6, 0.9]),
        "quats": normal(frames, number, 4) * 3,
        "scales": 0.01 + scale * uniform(frames, number, 3),
        "opacities": uniform(frames, number),
        "features": normal(number, channels) if shared else normal(frames, number, channels),
        "backgrounds": normal(frames, channels),
    }
    angles = 0.2 * normal(frames)
    viewmats = torch.eye(4).repeat(frames, 1, 1)
    viewmats[:, 0, 0] = viewmats[:, 2, 2] = angles.cos()
    viewmats[:, 0, 2], viewmats[:, 2, 0] = angles.sin(), -angles.sin()
    viewmats[:, :3, 3] = 0.1 * normal(frames, 3) + torch.tensor([0.0, 0.0, 2.0])
    intrinsics = torch.tensor([[1.2 * width, 0, 0.47 * width], [0, 1.3 * width, 0.52 * height], [0, 0, 1]])
    inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    return inputs, [viewmats, intrinsics.repeat(frames, 1, 1)]


def call(
    function: Callable[..., tuple[Tensor, Tensor]],
    inputs: dict[str, Tensor],
    cameras: list[Tensor],
    width: int = WIDTH,
    height: int = HEIGHT,
) -> tuple[Tensor, Tensor]:
    gaussians = [inputs[name] for name in NAMES[:5]]
    return function(*gaussians, *cameras, width, height, inputs.get("backgrounds"))


def assert_same_as_twin(
    inputs: dict[str, Tensor], cameras: list[Tensor], width: int = WIDTH, height: int = HEIGHT, tolerance: float = 1e-4
) -> None:
    """Forward and all gradients, each within `tolerance` of its largest entry."""
    image, alpha = call(rasterize, inputs, cameras, width, height)
    expected_image, expected_alpha = call(rasterization_reference.rasterize, inputs, cameras, width, height)
    assert image.shape == expected_image.shape
    assert alpha.shape == (len(image), height, width, 1)
    torch.testing.assert_close(image, expected_image, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alpha, expected_alpha, atol=1e-5, rtol=1e-4)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(tensor.shape, generator=generator) for tensor in (image, alpha)]
    values = list(inputs.values())
    gradients = torch.autograd.grad([image, alpha], values, weights)
    expected = torch.autograd.grad([expected_image, expected_alpha], values, weights)
    for name, gradient, reference in zip(inputs, gradients, expected, strict=True):
        assert gradient.isfinite().all(), name
        if gradient.numel():
            error = (gradient - reference).abs().max() / reference.abs().max().clamp_min(1e-6)
            assert error < tolerance, f"{name}: relative error {error:.2e}"


@pytest.mark.parametrize("shared", [False, True], ids=["per-frame", "shared"])
@pytest.mark.parametrize("channels", [1, 3, 16, 24, 37])
@pytest.mark.parametrize("frames", [1, 3])
def test_equals_twin(frames: int, channels: int, shared: bool) -> None:
    assert_same_as_twin(*random_scene(frames, 200, channels, shared=shared, seed=frames + channels))


def test_dense_scene_saturates_like_the_twin() -> None:
    inputs, cameras = random_scene(2, 3000, 4, scale=0.15, seed=3)
    _, alpha = call(rasterize, inputs, cameras)
    assert (alpha > 0.9995).float().mean() > 0.3  # many pixels stop early
    assert_same_as_twin(inputs, cameras, tolerance=1e-3)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 16), (17, 5), (50, 49)])
def test_any_image_size(width: int, height: int) -> None:
    assert_same_as_twin(*random_scene(1, 150, 3, width=width, height=height), width, height)


def test_huge_gaussians() -> None:
    inputs, cameras = random_scene(2, 40, 3, scale=5.0, seed=5)
    assert_same_as_twin(inputs, cameras, tolerance=1e-3)


@pytest.mark.parametrize("channels", [5, 37])
def test_the_kernels_used_on_cuda(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compositing as on a GPU, with its small tiles, on the CPU."""
    from portraitgen import _warp_rasterizer

    method = (_warp_rasterizer.CUDA_TILE, _warp_rasterizer.compositing_kernels)
    monkeypatch.setattr(_warp_rasterizer, "_method", lambda device: method)
    assert_same_as_twin(*random_scene(2, 300, channels, shared=True))
    assert_same_as_twin(*random_scene(2, 40, channels, scale=5.0, seed=5), tolerance=1e-3)


@pytest.mark.parametrize("shared", [False, True])
def test_a_window_that_most_gaussians_miss(shared: bool) -> None:
    inputs, (viewmats, intrinsics) = random_scene(2, 2000, 8, scale=0.03, shared=shared)
    intrinsics = intrinsics.clone()
    intrinsics[:, :2, 2] += torch.tensor([23.0, -9.0])
    assert_same_as_twin(inputs, [viewmats, intrinsics])


def test_thin_gaussians_beside_the_window() -> None:
    """Needles whose centres lie far outside reach in; what is left out must be what leaves no trace."""
    inputs, cameras = random_scene(1, 300, 3)
    with torch.no_grad():
        inputs["means"].mul_(2.5)
        inputs["scales"].copy_(torch.tensor([0.6, 0.05, 0.05]))
    assert_same_as_twin(inputs, cameras, tolerance=1e-3)


@pytest.mark.parametrize("frozen", NAMES)
def test_only_the_gradients_that_are_wanted(frozen: str) -> None:
    inputs, cameras = random_scene(2, 150, 5, shared=True)

    def gradients() -> dict[str, Tensor]:
        outputs = call(rasterize, inputs, cameras)
        wanted = [name for name in NAMES if inputs[name].requires_grad]
        loss = outputs[0].square().sum() + outputs[1].sum()
        return dict(zip(wanted, torch.autograd.grad(loss, [inputs[name] for name in wanted]), strict=True))

    everything = gradients()
    inputs[frozen].requires_grad_(False)
    rest = gradients()
    assert set(rest) == set(NAMES) - {frozen}
    assert all(torch.equal(gradient, everything[name]) for name, gradient in rest.items())
    for name in NAMES:
        inputs[name].requires_grad_(name == frozen)
    assert torch.equal(gradients()[frozen], everything[frozen])


def test_a_batch_equals_its_frames() -> None:
    inputs, cameras = random_scene(3, 300, 16)
    image, alpha = call(rasterize, inputs, cameras)
    for frame in range(3):
        one = {name: tensor[frame : frame + 1] for name, tensor in inputs.items()}
        alone = call(rasterize, one, [camera[frame : frame + 1] for camera in cameras])
        assert torch.equal(alone[0][0], image[frame])
        assert torch.equal(alone[1][0], alpha[frame])


def test_without_background() -> None:
    inputs, cameras = random_scene(2, 100, 5)
    del inputs["backgrounds"]
    assert_same_as_twin(inputs, cameras)


def test_a_window_is_a_shifted_principal_point() -> None:
    inputs, (viewmats, intrinsics) = random_scene(1, 200, 3, scale=0.03)
    whole, _ = call(rasterize, inputs, [viewmats, intrinsics])
    shifted = intrinsics.clone()
    shifted[:, 0, 2] -= 10
    shifted[:, 1, 2] -= 7
    window, _ = call(rasterize, inputs, [viewmats, shifted], 12, 9)
    near = whole[:, 7:16, 10:22]  # the jacobian of far-off Gaussians is held within the field of view, which differs
    assert ((window - near).abs() < 1e-3).float().mean() > 0.95


@pytest.mark.parametrize("shared", [False, True])
def test_no_gaussians(shared: bool) -> None:
    inputs, cameras = random_scene(2, 0, 3, shared=shared)
    image, alpha = call(rasterize, inputs, cameras)
    assert torch.equal(image, inputs["backgrounds"][:, None, None].expand_as(image))
    assert not alpha.any()
    gradients = torch.autograd.grad(image.sum() + alpha.sum(), list(inputs.values()))
    assert [gradient.shape for gradient in gradients] == [tensor.shape for tensor in inputs.values()]
    assert (gradients[-1] == WIDTH * HEIGHT).all()


def test_everything_behind_the_camera() -> None:
    inputs, (viewmats, intrinsics) = random_scene(2, 50, 3)
    viewmats[:, 2, 3] = -20
    image, alpha = call(rasterize, inputs, [viewmats, intrinsics])
    assert not alpha.any()
    gradients = torch.autograd.grad(image.square().sum(), list(inputs.values()))
    assert all(not gradient.any() for gradient in gradients[:5])


def test_degenerate_gaussians_do_no_harm() -> None:
    """Zero, infinite, NaN or point-like Gaussians, on the camera or behind it: images and gradients stay finite."""
    inputs, cameras = random_scene(1, 60, 3)
    with torch.no_grad():
        inputs["quats"][0, 0] = 0
        inputs["scales"][0, 1] = 0
        inputs["scales"][0, 2] = 1e15
        inputs["scales"][0, 3] = torch.nan
        inputs["means"][0, 4] = torch.nan
        inputs["means"][0, 5] = torch.inf
        inputs["means"][0, 6] = -torch.linalg.inv(cameras[0])[0, :3, 3]
        inputs["means"][0, 7] = torch.linalg.inv(cameras[0])[0, :3, 3]
        inputs["opacities"][0, 8] = 0
        inputs["opacities"][0, 9] = 1
        inputs["opacities"][0, 10] = torch.nan
        inputs["scales"][0, 11] = torch.tensor([10.0, 0, 0])
    image, alpha = call(rasterize, inputs, cameras)
    assert image.isfinite().all()
    assert alpha.isfinite().all()
    for name, gradient in zip(
        inputs, torch.autograd.grad(image.square().sum() + alpha.sum(), list(inputs.values())), strict=True
    ):
        assert gradient.isfinite().all(), name


def test_finite_differences() -> None:
    """Few, broad Gaussians, so that no pixel crosses the 1/255 threshold within the step."""
    inputs, cameras = random_scene(1, 3, 2, scale=0.0, seed=2, width=8, height=6)
    with torch.no_grad():
        inputs["means"].mul_(0.2)
        inputs["scales"].copy_(torch.tensor([1.0, 1.5, 0.8]) * (0.9 + 0.1 * torch.arange(3)[:, None]))
        inputs["opacities"].mul_(0.3).add_(0.4)
    weights = torch.randn(1, 6, 8, 2, generator=torch.Generator().manual_seed(0))

    def loss() -> Tensor:
        image, alpha = call(rasterize, inputs, cameras, 8, 6)
        return (image * weights).double().sum() + alpha.double().square().sum()

    gradients = torch.autograd.grad(loss(), list(inputs.values()))
    for (name, tensor), gradient in zip(inputs.items(), gradients, strict=True):
        flat, numeric = tensor.data.view(-1), torch.empty(tensor.numel())
        for index in range(tensor.numel()):
            value, step = flat[index].item(), 3e-3
            flat[index] = value + step
            above = loss().item()
            flat[index] = value - step
            numeric[index] = (above - loss().item()) / (2 * step)
            flat[index] = value
        torch.testing.assert_close(
            gradient.flatten(), numeric, atol=5e-3, rtol=2e-2, msg=lambda text, name=name: name + text
        )


def test_same_result_every_time_and_from_two_threads() -> None:
    scenes = [random_scene(2, 500, 16, shared=True, seed=seed) for seed in range(2)]

    def run(scene: tuple[dict[str, Tensor], list[Tensor]]) -> list[Tensor]:
        outputs = call(rasterize, *scene)
        return [*outputs, *torch.autograd.grad(outputs[0].square().sum() + outputs[1].sum(), list(scene[0].values()))]

    alone = [run(scene) for scene in scenes]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, scenes * 4))
    for index, results in enumerate(together):
        assert all(torch.equal(a, b) for a, b in zip(results, alone[index % 2], strict=True))


def test_inputs_may_be_views() -> None:
    inputs, cameras = random_scene(3, 80, 3)
    inputs["opacities"] = inputs["opacities"][:1].detach().expand(3, -1).requires_grad_()
    inputs["means"] = inputs["means"].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    assert_same_as_twin(inputs, cameras)


def test_wrong_shapes_and_types_are_named() -> None:
    inputs, cameras = random_scene(2, 10, 3)
    with pytest.raises(ValueError, match=r"quats has shape"):
        call(rasterize, inputs | {"quats": inputs["quats"][:, :5]}, cameras)
    with pytest.raises(ValueError, match=r"backgrounds has shape"):
        call(rasterize, inputs | {"backgrounds": torch.zeros(3)}, cameras)
    with pytest.raises(ValueError, match=r"means is torch.float64"):
        call(rasterize, inputs | {"means": inputs["means"].double()}, cameras)
    with pytest.raises(ValueError, match=r"0 x 21 pixels"):
        call(rasterize, inputs, cameras, 0)


def test_import_is_light_and_stdout_stays_clean() -> None:
    """Importing loads neither Warp nor gsplat and touches no CUDA; rendering prints nothing on stdout."""
    program = """
import sys, torch
import portraitgen, portraitgen.kernels, portraitgen.mesh
from portraitgen.rasterization import backend_name, rasterize
assert not {"warp", "gsplat"} & set(sys.modules) and not torch.cuda.is_initialized()
assert backend_name("cpu") == "Warp (CPU)" and "warp" not in sys.modules
eye = torch.eye(4)[None]
ones = torch.ones(1, 1, 3)
rasterize(ones, eye[:, :1], ones, ones[..., 0], ones[0], eye, eye[:, :3, :3], 4, 4)
assert "gsplat" not in sys.modules and not torch.cuda.is_initialized()
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""


def install_gsplat(folder: Path, monkeypatch: pytest.MonkeyPatch, *, compiled: bool) -> None:
    """A gsplat that says so when it is imported, with a file in the place of its compiled kernels or without."""
    (folder / "gsplat").mkdir()
    (folder / "gsplat" / "__init__.py").write_text('print("gsplat was imported")')
    (folder / "gsplat" / "cuda").mkdir()
    (folder / "gsplat" / "cuda" / "_backend.py").write_text('raise SystemExit("this would build the kernels")')
    if compiled:
        (folder / "gsplat" / f"csrc{EXTENSION_SUFFIXES[0]}").write_bytes(b"not a library")
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
        monkeypatch.delitem(sys.modules, name)
    rasterization._gsplat_runs.cache_clear()


@pytest.fixture
def _forget_gsplat() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
        del sys.modules[name]
    rasterization._gsplat_runs.cache_clear()


@pytest.mark.usefixtures("_forget_gsplat")
def test_gsplat_without_compiled_kernels_is_not_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_gsplat(tmp_path, monkeypatch, compiled=False)
    assert not rasterization._gsplat_runs(torch.device("cuda", 0))
    assert "gsplat" not in sys.modules
    assert capsys.readouterr().out == ""
    assert not torch.cuda.is_initialized()


@pytest.mark.usefixtures("_forget_gsplat")
def test_gsplat_whose_library_does_not_load_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_gsplat(tmp_path, monkeypatch, compiled=True)
    assert not rasterization._gsplat_runs(torch.device("cpu"))
    assert "gsplat.cuda._backend" not in sys.modules


@pytest.mark.usefixtures("_forget_gsplat")
@pytest.mark.parametrize("supported", [True, False])
def test_gsplat_is_used_where_its_kernels_run(supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a gsplat that calls the plain-torch twin: shapes in and out, features shared and not, and a missing kernel."""
    install_gsplat(tmp_path, monkeypatch, compiled=True)

    def splat(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor,
              Ks: Tensor, width: int, height: int, backgrounds: Tensor | None, packed: bool):  # fmt: skip
        if not supported:
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        assert colors.shape[:2] == means.shape[:2]
        assert viewmats.shape[1:] == (1, 4, 4)
        backgrounds = None if backgrounds is None else backgrounds[:, 0]
        cameras = viewmats[:, 0], Ks[:, 0]
        arguments = (means, quats, scales, opacities, colors, *cameras, width, height, backgrounds)
        image, alpha = rasterization_reference.rasterize(*arguments)
        return image[:, None], alpha[:, None], {}

    fake = SimpleNamespace(rasterization=splat, __spec__=find_spec("gsplat"))
    monkeypatch.setitem(sys.modules, "gsplat", fake)
    monkeypatch.setitem(sys.modules, "gsplat.csrc", SimpleNamespace())
    assert rasterization._gsplat_runs(torch.device("cpu")) is supported
    monkeypatch.setattr(rasterization, "backend_name", lambda device: "gsplat" if supported else "Warp (CPU)")
    for shared in (False, True):
        assert_same_as_twin(*random_scene(2, 50, 3, shared=shared))


def test_backend_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for runs, name in ((True, "gsplat"), (False, "Warp (CUDA)")):
        monkeypatch.setattr(rasterization, "_gsplat_runs", lambda device, runs=runs: runs)
        assert backend_name(torch.device("cuda", 0)) == name
        assert backend_name("cpu") == "Warp (CPU)"


def test_a_gpu_that_warp_does_not_know_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import warp

    from portraitgen._warp_start import start

    monkeypatch.setattr(warp, "is_cuda_available", lambda: False)
    start(torch.device("cpu"))
    with pytest.raises(RuntimeError, match="first in the process that has the GPU"):
        start(torch.device("cuda", 0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("gsplat", [False, True], ids=["warp", "gsplat"])
def test_cuda_equals_cpu(gsplat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if gsplat and not rasterization._gsplat_runs(torch.device("cuda", 0)):
        pytest.skip("gsplat has no compiled kernels here")
    monkeypatch.setattr(rasterization, "_gsplat_runs", lambda device: gsplat)
    inputs, cameras = random_scene(3, 400, 16, shared=True, seed=7)
    outputs = call(rasterize, inputs, cameras)
    gradients = torch.autograd.grad(outputs[0].square().sum() + outputs[1].sum(), list(inputs.values()))
    moved = {name: tensor.detach().cuda().requires_grad_() for name, tensor in inputs.items()}
    on_gpu = call(rasterize, moved, [camera.cuda() for camera in cameras])
    gpu_gradients = torch.autograd.grad(on_gpu[0].square().sum() + on_gpu[1].sum(), list(moved.values()))
    for expected, result in zip((*outputs, *gradients), (*on_gpu, *gpu_gradients), strict=True):
        assert (result.cpu() - expected).abs().max() < 1e-3 * expected.abs().max()
