"""The optimisation loop on data with known truth: an avatar renders itself, a fit has to find it again."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from threads import torch_threads
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from toy_body import ToyBody, toy_intrinsics, toy_parameters

from portraitgen import fitting, frames, renderer
from portraitgen.avatar import Avatar, sample_texels
from portraitgen.body import LABELS
from portraitgen.fitting import Course, FitConfig, Fitted, fit
from portraitgen.frames import TrainingFrames
from portraitgen.losses import PerceptualLoss, psnr
from portraitgen.poses import Poses
from portraitgen.renderer import NeuralRenderer

SIZE, FRAMES = 64, 8


def make_fitted() -> Fitted:
    body = ToyBody()
    texels = sample_texels(
        body.vertices(toy_parameters(1))[0], body.faces, body.uvs[body.face_uvs], torch.full((len(body.faces),), 0.004)
    )
    avatar = Avatar(body.faces, texels, channels=8)
    return Fitted(body, avatar, NeuralRenderer(8, 8), Poses.start(body, toy_parameters(FRAMES)))


@pytest.fixture(scope="module")
def truth() -> tuple[Fitted, TrainingFrames]:
    torch.manual_seed(0)
    fitted = make_fitted()
    u, v = fitted.avatar.uvs.T
    pattern = torch.stack([0.5 + 0.5 * (18 * u).sin(), 0.5 + 0.5 * (14 * v).cos(), u], 1)
    with torch.no_grad():
        fitted.avatar.features[:, :3] = pattern
        K = toy_intrinsics(SIZE)
        rendering = fitted.render(torch.arange(FRAMES), K.expand(FRAMES, 3, 3), SIZE, SIZE)
    data = TrainingFrames(
        torch.arange(FRAMES),
        (rendering.straight() * 255).byte(),
        (rendering.alpha.clamp(0, 1) * 255).byte(),
        K,
        torch.full((FRAMES, 2), SIZE / 2),
        torch.ones(FRAMES, SIZE, SIZE, dtype=torch.bool),
    )
    return fitted, data


@torch.no_grad()
def quality(fitted: Fitted, data: TrainingFrames) -> float:
    rendering = fitted.render(data.frames, data.K.expand(len(data), 3, 3), SIZE, SIZE)
    batch = data.whole(torch.arange(len(data)), 1)
    return psnr(rendering.over(torch.ones(3, 1, 1)), batch.image * batch.alpha + 1 - batch.alpha)


CONFIG = FitConfig(steps=120, coarse_steps=30, batch=2, window=48)


def test_a_fit_recovers_the_appearance(truth: tuple[Fitted, TrainingFrames]) -> None:
    _, data = truth
    torch.manual_seed(1)
    fitted = make_fitted()
    before = quality(fitted, data)
    losses = [loss for _, loss in fit(fitted, data, CONFIG, seed=0)]
    assert len(losses) == CONFIG.steps
    assert before < 15
    assert quality(fitted, data) > 28
    assert all(torch.isfinite(p).all() for p in fitted.avatar.parameters())


def test_a_fit_that_was_left_ends_as_if_it_had_not_been(truth: tuple[Fitted, TrainingFrames]) -> None:
    _, data = truth
    config = dataclasses.replace(CONFIG, steps=14, coarse_steps=3)
    torch.manual_seed(1)
    through, left = make_fitted(), make_fitted()
    left.avatar.load_state_dict(through.avatar.state_dict())
    left.renderer.load_state_dict(through.renderer.state_dict())
    losses = [float(loss) for _, loss in fit(through, data, config, seed=3)]
    course = Course.begin(left, data, config, 3)
    steps = fit(left, data, config, seed=3, course=course)
    seen = [float(next(steps)[1]) for _ in range(5)]
    steps.close()  # type: ignore[attr-defined]
    written = save({name: value.clone().contiguous() for name, value in course.tensors().items()})
    torch.manual_seed(2)
    again = make_fitted()
    again.avatar.load_state_dict(left.avatar.state_dict())
    again.renderer.load_state_dict(left.renderer.state_dict())
    resumed = Course.resume(again, config, load(written))
    seen += [float(loss) for _, loss in fit(again, data, config, seed=9, course=resumed)]
    assert seen == losses
    for kept, wanted in ((again.avatar, through.avatar), (again.renderer, through.renderer)):
        for name, value in wanted.state_dict().items():
            assert torch.equal(kept.state_dict()[name], value), name


def test_without_a_network_the_gaussians_are_plain_colours(truth: tuple[Fitted, TrainingFrames]) -> None:
    _, data = truth
    torch.manual_seed(1)
    fitted = make_fitted()
    fitted.renderer = NeuralRenderer(8, 0)
    before = quality(fitted, data)
    for _ in fit(fitted, data, CONFIG, seed=0):
        pass
    assert quality(fitted, data) > before + 8
    rendering = fitted.render(torch.tensor([0]), data.K[None], SIZE, SIZE)
    assert torch.equal(rendering.color, rendering.color_features)


def test_the_perceptual_term_leaves_colours_alone(truth: tuple[Fitted, TrainingFrames]) -> None:
    """It sees grey pictures: a hue of equal luminance costs nothing there, whatever network asks."""

    class Spread(PerceptualLoss):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.seen = 0.0

        def forward(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            self.seen = max(self.seen, float((image.amax(1) - image.amin(1)).abs().max().detach()))
            return (image - target).square().mean()

    spread = Spread()
    config = FitConfig(steps=4, coarse_steps=0, batch=1, window=32, perceptual=1.0, perceptual_start=0.0)
    for _ in fit(make_fitted(), truth[1], config, seed=0, perceptual=spread):
        pass
    assert spread.seen < 1e-6


def test_what_lies_beyond_the_clips_frame_is_not_learned(truth: tuple[Fitted, TrainingFrames]) -> None:
    _, data = truth
    cut = SIZE // 2
    smeared = data.images.clone()
    smeared[..., :cut] = torch.tensor([255, 0, 255], dtype=torch.uint8)[:, None, None]
    shares = []
    for seen in (True, False):
        inside = data.inside.clone()
        inside[..., :cut] = seen
        torch.manual_seed(1)
        fitted = make_fitted()
        for _ in fit(fitted, dataclasses.replace(data, images=smeared, inside=inside), CONFIG, seed=0):
            pass
        with torch.no_grad():
            rendering = fitted.render(data.frames, data.K.expand(FRAMES, 3, 3), SIZE, SIZE)
        red, green, blue = rendering.straight().unbind(1)
        beyond = (data.alphas[:, 0] > 200)[..., : cut - 4]
        shares.append(float((torch.minimum(red, blue) - green)[..., : cut - 4][beyond].mean()))
    assert shares[0] > 0.5, "where it is asked for, it is learned"
    assert shares[1] < 0.2


def test_same_seed_same_result(truth: tuple[Fitted, TrainingFrames]) -> None:
    _, data = truth
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        fitted = make_fitted()
        config = FitConfig(steps=6, coarse_steps=2, batch=2, window=32)
        for _ in fit(fitted, data, config, seed=5):
            pass
        results.append(fitted.avatar.features.detach().clone())
    assert torch.equal(*results)


def test_pictures_in_threads_of_their_own_give_the_gradients_of_the_whole_batch(
    truth: tuple[Fitted, TrainingFrames], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, data = truth
    found, seen = [], []
    picture_loss = fitting._picture_loss

    def watched(*arguments: Any) -> torch.Tensor:
        seen.append((threading.current_thread().name.partition("_")[0], torch.get_num_threads(), len(arguments[1])))
        return picture_loss(*arguments)

    monkeypatch.setattr(fitting, "_picture_loss", watched)
    for threads in (1, 2, 4):
        torch.manual_seed(3)
        fitted = make_fitted()
        with torch.no_grad():
            fitted.renderer.leave.weight.normal_(0, 0.1)  # type: ignore[operator]
        config = FitConfig(steps=1, coarse_steps=0, batch=3, window=32, perceptual=0.1, perceptual_start=0.0)
        with torch_threads(threads):
            steps = fit(fitted, data, config, seed=5, perceptual=PerceptualLoss())
            _, loss = next(steps)
            assert torch.get_num_threads() == threads
        parameters = [*fitted.avatar.parameters(), *fitted.renderer.parameters()]
        found.append((loss, [parameter.grad for parameter in parameters]))
    assert seen[0] == ("MainThread", 1, 3)
    assert sorted(seen[1:3]) == [("fit", 1, 1), ("fit", 1, 2)]  # in whichever order they began
    assert seen[3:] == [("fit", 1, 1)] * 3
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, found[0][0])
        for ours, whole in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))


class NoResults(TorchDispatchMode):
    """Refuses what would wait for a GPU's results: their values, or shapes that depend on them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"), name
        if name in ("index", "index_put", "index_put_"):
            assert not any(index is not None and index.dtype == torch.bool for index in args[1]), (
                "an index of unknown length"
            )
        return func(*args, **(kwargs or {}))


class NoTransfers(TorchFunctionMode):
    """Refuses copies between the CPU and what stands for a GPU here, also of an index: a list, or one of the CPU into ``stored``."""

    def __init__(self, stored: list[torch.Tensor], sent: list[torch.Tensor]) -> None:
        super().__init__()
        self.stored, self.sent = [id(tensor) for tensor in stored], sent

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        assert name not in ("cpu", "cuda"), name
        assert not (name in ("tensor", "as_tensor", "from_numpy") and "device" in kwargs), name
        parts = args[1] if name == "__getitem__" and isinstance(args[1], tuple) else args[1:2]
        assert not (name == "__getitem__" and any(isinstance(part, list) for part in parts)), "an index that is a list"
        if name == "__getitem__" and id(args[0]) in self.stored and isinstance(args[1], torch.Tensor):
            assert any(args[1] is tensor for tensor in self.sent), "an index that is on the CPU"
        return func(*args, **kwargs)


def test_no_step_waits_for_a_gpu_but_in_the_rasteriser(
    truth: tuple[Fitted, TrainingFrames], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a CPU can tell: no value is read back, and nothing goes over but by `sent`."""
    _, data = truth
    arrived: list[torch.Tensor] = []
    real_sent, real_rasterize, real_step = frames.sent, renderer.rasterize, torch.optim.Adam.step

    def sent(*arguments: Any) -> torch.Tensor:
        arrived.append(real_sent(*arguments).clone())
        return arrived[-1]

    def apart(work: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            with _disable_current_modes():
                return work(*arguments, **options)

        return run

    monkeypatch.setattr(frames, "sent", sent)
    monkeypatch.setattr(fitting, "sent", sent)
    monkeypatch.setattr(renderer, "rasterize", apart(real_rasterize))
    monkeypatch.setattr(torch.optim.Adam, "step", apart(real_step))  # counts its steps on the CPU everywhere
    config = FitConfig(steps=6, coarse_steps=2, batch=2, window=32, perceptual=0.1, perceptual_start=0.5)
    with torch_threads(1):  # all in this thread, as with a GPU, which is the one that is watched
        steps = fit(make_fitted(), data, config, seed=5, perceptual=PerceptualLoss())
        next(steps)  # prepares
        assert data.cells.shape == (FRAMES, 256)
        with NoTransfers([data.frames, data.images, data.alphas], arrived), NoResults():
            assert len(list(steps)) == 5
    assert len(arrived) > 5


@pytest.mark.gpu
def test_no_step_waits_for_the_gpu_but_in_the_rasteriser(
    truth: tuple[Fitted, TrainingFrames], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, data = on_cuda(make_fitted(), truth[1])
    real = renderer.rasterize

    def rasterize(*arguments: Any, **options: Any) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        try:
            return real(*arguments, **options)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    config = FitConfig(steps=8, coarse_steps=4, batch=2, window=32, perceptual=0.1, perceptual_start=0.0)
    steps = fit(fitted, data, config, seed=5, perceptual=PerceptualLoss("cuda"))
    next(steps)  # builds kernels
    assert data.cells.shape == (FRAMES, 256)
    monkeypatch.setattr(renderer, "rasterize", rasterize)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [loss for _, loss in steps]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(losses).isfinite().all()


def on_cuda(fitted: Fitted, data: TrainingFrames) -> tuple[Fitted, TrainingFrames]:
    """The same on a GPU."""
    body = fitted.body.to("cuda")  # type: ignore[attr-defined]
    poses = Poses.start(body, fitted.poses.tracked.to("cuda"))
    tensors = {name: getattr(data, name).cuda() for name in ("frames", "images", "alphas", "K", "inside")}
    moved = Fitted(body, fitted.avatar.cuda(), fitted.renderer.cuda(), poses)
    return moved, dataclasses.replace(data, **tensors)


def test_an_untrained_renderer_shows_the_gaussians_own_colours() -> None:
    torch.manual_seed(0)
    fitted = make_fitted()
    with torch.no_grad():
        fitted.avatar.features[:, :3] = torch.tensor([0.9, 0.2, 0.1])
        K = toy_intrinsics(SIZE)
        rendering = fitted.render(torch.tensor([0]), K[None], SIZE, SIZE)
    centre = rendering.straight()[0, :, SIZE // 2, SIZE // 2]
    torch.testing.assert_close(centre, torch.tensor([0.9, 0.2, 0.1]), atol=1e-3, rtol=0)
    assert torch.equal(rendering.color, rendering.color_features)


def test_eyeballs_stay_where_the_body_has_them(truth: tuple[Fitted, TrainingFrames]) -> None:
    """Displaced, what is learned of an open eye sticks out of the lid that closes over it in a frame that was not learned from."""
    _, data = truth
    fitted = make_fitted()
    below = fitted.body.faces.float().mean(1) < fitted.body.faces.max() / 2
    fitted.body.face_labels = torch.where(below, LABELS.index("eye_left"), LABELS.index("face"))
    for _ in fit(fitted, data, dataclasses.replace(CONFIG, steps=10), seed=0):
        pass
    moved = (fitted.avatar.offsets - fitted.avatar.rest_offsets).detach().norm(dim=1) > 0
    eyes = below[fitted.avatar.texel_faces]
    assert not moved[eyes].any()
    assert moved[~eyes].float().mean() > 0.3


def test_a_surface_seen_edge_on_keeps_its_colours(truth: tuple[Fitted, TrainingFrames]) -> None:
    """At the silhouette pictures show a rim of what is behind; learned, it would be specks on a turned head."""
    _, data = truth
    opaque = (data.alphas > 250).float()
    rim = (opaque > 0) & (torch.nn.functional.avg_pool2d(opaque, 3, 1, 1) < 0.999)
    images = torch.where(
        rim, torch.tensor([255, 0, 0]).view(1, 3, 1, 1), torch.tensor([128, 128, 128]).view(1, 3, 1, 1)
    )
    rimmed, moved = data.replaced(images.byte()), []
    for weight in (0.0, FitConfig.tether):
        torch.manual_seed(1)
        fitted = make_fitted()
        with torch.no_grad():
            fitted.avatar.features[:, :3] = 0.5
        config = dataclasses.replace(CONFIG, steps=60, coarse_steps=0, tether=weight)
        for _ in fit(fitted, rimmed, config, seed=0):
            pass
        facing = torch.stack([fitted.avatar.facing(fitted.mesh(data.frames[i : i + 1]))[0] for i in range(FRAMES)])
        edge = (facing.amax(0) > 0) & (facing.amax(0) < 0.3)
        assert edge.sum() > 50
        moved.append(float((fitted.avatar.features[edge, 0].detach() - 0.5).abs().mean()))
    assert moved[1] < 0.5 * moved[0], moved
