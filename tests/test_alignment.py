"""Alignment on pictures that a known avatar in known poses has rendered."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from threads import torch_threads
from toy_body import ToyBody, toy_intrinsics, toy_parameters

from portraitgen import _warp_start, alignment
from portraitgen.alignment import Alignment, align_frames, steady_frames
from portraitgen.avatar import Avatar, sample_texels
from portraitgen.fitting import Fitted
from portraitgen.frames import TrainingFrames
from portraitgen.losses import psnr
from portraitgen.poses import Poses
from portraitgen.renderer import NeuralRenderer

SIZE, FRAMES = 256, 4
EVERYWHERE = torch.ones(FRAMES, SIZE, SIZE, dtype=torch.bool)


@pytest.fixture(scope="module")
def truth() -> tuple[Fitted, TrainingFrames]:
    return rendered(FRAMES)


def rendered(count: int) -> tuple[Fitted, TrainingFrames]:
    """A toy with a pattern that never repeats, and its own renders."""
    torch.manual_seed(0)
    body = ToyBody()
    rest = body.vertices(toy_parameters(1))[0]
    spacing = torch.full((len(body.faces),), 0.002)
    avatar = Avatar(body.faces, sample_texels(rest, body.faces, body.uvs[body.face_uvs], spacing), channels=4)
    u, v = avatar.uvs.T
    waves = [torch.sin(40 * u + 9 * v), torch.sin(31 * v - 13 * u), torch.sin(23 * u * v + 47 * v)]
    with torch.no_grad():
        avatar.features[:, :3] = 0.5 + 0.4 * torch.stack(waves, 1)
    fitted = Fitted(body, avatar, NeuralRenderer(4, 8), Poses.start(body, toy_parameters(count)))
    nothing = torch.zeros(count, 3, SIZE, SIZE), torch.zeros(count, 1, SIZE, SIZE)
    heads = torch.full((count, 2), SIZE / 2)
    return fitted, shown(
        fitted,
        TrainingFrames(
            torch.arange(count), *nothing, toy_intrinsics(SIZE), heads, EVERYWHERE[:1].expand(count, -1, -1)
        ),
    )


@torch.no_grad()
def shown(fitted: Fitted, data: TrainingFrames) -> TrainingFrames:
    """The frames as the toy is rendered in them."""
    rendering = fitted.render(data.frames, data.K.expand(len(data), 3, 3), SIZE, SIZE)
    pictures = (rendering.straight() * 255).byte(), (rendering.alpha.clamp(0, 1) * 255).byte()
    return dataclasses.replace(data, images=pictures[0], alphas=pictures[1])


def misplaced(fitted: Fitted) -> Fitted:
    """The same avatar where tracking has gone wrong by a few pixels."""
    wrong = toy_parameters(FRAMES)
    generator = torch.Generator().manual_seed(2)
    wrong.rotations += 0.04 * torch.randn(wrong.rotations.shape, generator=generator)
    wrong.translation[:, :2] += 0.004
    wrong.expression += 0.2
    return Fitted(fitted.body, fitted.avatar, fitted.renderer, Poses.start(fitted.body, wrong))


@torch.no_grad()
def quality(fitted: Fitted, data: TrainingFrames) -> list[float]:
    rendering = fitted.render(data.frames, data.K.expand(len(data), 3, 3), SIZE, SIZE)
    batch = data.whole(torch.arange(len(data)), 1)
    target = batch.image * batch.alpha + 1 - batch.alpha
    return [psnr(*pair) for pair in zip(rendering.over(torch.ones(3, 1, 1)), target, strict=True)]


def test_a_wrong_pose_is_found_again(truth: tuple[Fitted, TrainingFrames]) -> None:
    original, data = truth
    fitted = misplaced(original)
    before = quality(fitted, data)
    assert list(align_frames(fitted, data, data.pictures(range(FRAMES)), 3, seed=0)) == [1, 2, 3, 4]
    after = quality(fitted, data)
    assert all(new > old + 6 for new, old in zip(after, before, strict=True)), (before, after)
    errors = [
        (poses.mesh(fitted.body, data.frames).vertices - original.mesh(data.frames).vertices)[..., :2]
        .norm(dim=-1)
        .mean()
        for poses in (Poses.start(fitted.body, fitted.poses.tracked), fitted.poses)
    ]
    assert errors[1] < errors[0] / 3, "the mesh itself must go back to its place"


def test_what_the_clip_does_not_show_moves_nothing(truth: tuple[Fitted, TrainingFrames]) -> None:
    original, data = truth
    inside = EVERYWHERE.clone()
    inside[:, SIZE * 5 // 8 :] = False  # a bar across the toy, which its render goes on behind
    barred = dataclasses.replace(
        data, images=data.images * inside[:, None], alphas=data.alphas * inside[:, None], inside=inside
    )
    fitted = dataclasses.replace(original, poses=Poses.start(original.body, toy_parameters(FRAMES)))
    for _ in align_frames(fitted, barred, barred.pictures(range(FRAMES)), 3, seed=0):
        pass
    moved = (fitted.mesh(data.frames).vertices - original.mesh(data.frames).vertices)[..., :2].norm(dim=-1)
    pixel = 0.5 / (2 * SIZE)  # metres, at the toy's distance
    assert moved.mean() < 0.1 * pixel
    assert moved.max() < 0.5 * pixel


def test_the_result_does_not_depend_on_the_number_of_threads(truth: tuple[Fitted, TrainingFrames]) -> None:
    original, data = truth
    results = []
    for threads in (1, 3):
        with torch_threads(threads):
            fitted = misplaced(original)
            for _ in align_frames(fitted, data, data.pictures(range(FRAMES)), 2, seed=0):
                pass
        results.append(fitted.poses.nodes.clone())
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)


def test_each_frame_has_one_thread_and_torch_has_its_own_back_afterwards(
    truth: tuple[Fitted, TrainingFrames], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, data = truth
    during = []
    look = Alignment._look

    def watched(*arguments: Any) -> Any:
        during.append((threading.current_thread().name, torch.get_num_threads()))
        return look(*arguments)

    monkeypatch.setattr(Alignment, "_look", watched)
    with torch_threads(2):
        for _ in align_frames(misplaced(original), data, data.pictures(range(FRAMES)), 1, seed=0):
            pass
        left = align_frames(misplaced(original), data, data.pictures(range(FRAMES)), 1, seed=0)
        next(left)
        left.close()
        assert torch.get_num_threads() == 2
    assert {threads for _, threads in during} == {1}
    assert all(name.startswith("align") for name, _ in during)


def test_the_blocks_of_the_normal_equations_are_those_of_the_whole_product() -> None:
    generator = torch.Generator().manual_seed(0)
    body = torch.randn(5, 7, 2, generator=generator)
    across, down = torch.randn(2, 3, 7, generator=generator)
    moved, weight = torch.randn(7, 2, generator=generator), torch.rand(7, generator=generator)
    nothing = torch.zeros_like(across)
    whole = torch.cat([body, torch.stack([across, nothing], -1), torch.stack([nothing, down], -1)]).flatten(1)
    weights = weight.repeat_interleave(2)
    matrix, right = alignment._normal_equations(body, across, down, moved, weight)
    torch.testing.assert_close(matrix, (whole * weights) @ whole.T)
    torch.testing.assert_close(right, whole @ (weights * moved.flatten()))


def test_with_a_gpu_several_frames_are_worked_on_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow is measured on the CPU there too."""
    for cores, wanted in ((1, 1), (2, 2), (64, 8)):
        monkeypatch.setattr(alignment, "usable_cores", lambda cores=cores: cores)
        assert alignment._at_once(torch.device("cuda")) == wanted
    with torch_threads(3):
        assert alignment._at_once(torch.device("cpu")) == 3


@pytest.mark.gpu
def test_on_a_gpu_the_result_does_not_depend_on_the_number_of_threads(
    truth: tuple[Fitted, TrainingFrames], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, data = truth
    moved = {name: getattr(data, name).cuda() for name in ("frames", "images", "alphas", "K", "inside")}
    on_gpu, results = dataclasses.replace(data, **moved), []
    for cores in (1, 4, 4):
        monkeypatch.setattr(alignment, "usable_cores", lambda cores=cores: cores)
        wrong, body = misplaced(original), ToyBody().to("cuda")
        avatar = copy.deepcopy(wrong.avatar).cuda()
        fitted = Fitted(body, avatar, wrong.renderer, Poses.start(body, wrong.poses.tracked.to("cuda")))
        for _ in align_frames(fitted, on_gpu, on_gpu.pictures([*range(FRAMES)]), 3, seed=0):
            pass
        results.append(fitted.poses.nodes.cpu())
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(results[2], results[0], atol=1e-5, rtol=0)


def test_threads_take_turns_with_warps_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device has one in Warp, whichever thread set it."""
    inside, most = [0], [0]

    @contextlib.contextmanager
    def scoped(stream: object) -> Iterator[None]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        yield
        inside[0] -= 1

    monkeypatch.setattr(
        _warp_start, "wp", SimpleNamespace(ScopedStream=scoped, stream_from_torch=lambda stream: stream)
    )
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)

    def work() -> None:
        for _ in range(3):
            with _warp_start.stream(torch.device("cuda")):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_stop_ends_the_threads(truth: tuple[Fitted, TrainingFrames]) -> None:
    original, data = truth
    steps = align_frames(misplaced(original), data, data.pictures([0, 1, 2, 3] * 50), 2, seed=0)
    next(steps)
    started = threading.active_count()
    steps.close()
    assert threading.active_count() < started


def test_nodes_carry_what_no_joint_can(truth: tuple[Fitted, TrainingFrames]) -> None:
    original, data = truth
    stretched = Fitted(
        original.body, original.avatar, original.renderer, Poses.start(original.body, toy_parameters(FRAMES))
    )
    widths = original.mesh(data.frames).skinned[0, :, 0]
    node_places = torch.linalg.lstsq(stretched.poses.basis, 0.06 * widths[:, None]).solution
    stretched.poses.nodes[..., 0] = node_places[:, 0]
    before = quality(stretched, data)
    left = Alignment(stretched, data.K, SIZE, seed=0).align(
        0, data.images[0] / 255, data.alphas[0] / 255, data.inside[0], 3
    )
    after = quality(stretched, data)
    assert left < 0.5
    assert after[0] > before[0] + 4
    assert after[1:] == pytest.approx(before[1:]), "other frames stay as they are"


def test_a_frame_in_place_stays_there(truth: tuple[Fitted, TrainingFrames]) -> None:
    original, data = truth
    fitted = Fitted(
        original.body, original.avatar, original.renderer, Poses.start(original.body, toy_parameters(FRAMES))
    )
    for _ in align_frames(fitted, data, data.pictures(range(FRAMES)), 2, seed=0):
        pass
    assert fitted.poses.nodes.abs().mean() < 2e-4, "a fifth of a pixel, which the blur of half-size pictures costs"
    assert min(quality(fitted, data)) > 27, "from 40 dB and more: the pattern is far finer than a face"


def test_a_frame_gets_no_more_looks_than_it_needs(
    truth: tuple[Fitted, TrainingFrames], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, data = truth
    looks, look = [0], Alignment._look

    def counted(*arguments: Any) -> Any:
        looks[0] += 1
        return look(*arguments)

    monkeypatch.setattr(Alignment, "_look", counted)
    counts, found = [], []
    for shift in (0.0, 0.004, 0.02):  # metres: none, 4 and 20 pixels
        fitted = Fitted(
            original.body, original.avatar, original.renderer, Poses.start(original.body, toy_parameters(FRAMES))
        )
        fitted.poses.refined.translation[:, 0] += shift
        looks[0] = 0
        found.append(
            Alignment(fitted, data.K, SIZE, seed=0).align(
                0, data.images[0] / 255, data.alphas[0] / 255, data.inside[0], 3
            )
        )
        counts.append(looks[0])
    assert 1 == counts[0] < counts[1] <= counts[2] <= 3
    assert max(found) < 0.75


def test_the_points_are_where_the_avatar_poses_them(truth: tuple[Fitted, TrainingFrames]) -> None:
    original, data = truth
    poses = copy.deepcopy(original.poses)
    poses.nodes += 0.01 * torch.randn(poses.nodes.shape, generator=torch.Generator().manual_seed(0))
    avatar = copy.deepcopy(original.avatar)
    with torch.no_grad():
        avatar.offsets += 0.003 * torch.randn(avatar.offsets.shape, generator=torch.Generator().manual_seed(1))
    fitted = Fitted(original.body, avatar, original.renderer, poses)
    points, mesh = Alignment(fitted, data.K, SIZE, seed=0), fitted.mesh(data.frames)
    with torch.no_grad():
        found = points._means(mesh.skinned[:, points.vertices], mesh.vertices[:, points.vertices])
        torch.testing.assert_close(found, avatar(mesh).means[:, points.points])


def test_poses_that_tremble_are_steadied_and_follow_the_motion(one_thread: None) -> None:
    count = 12
    original, data = rendered(count)
    drift = torch.linspace(0, 0.02, count)  # metres, a pixel and a half a frame
    original.poses.refined.translation[:, 0] += drift
    data = shown(original, data)
    fitted = Fitted(original.body, original.avatar, original.renderer, copy.deepcopy(original.poses))
    generator = torch.Generator().manual_seed(4)
    fitted.poses.refined.translation[:, :2] += 0.001 * torch.randn(count, 2, generator=generator)
    fitted.poses.nodes += 0.0005 * torch.randn(fitted.poses.nodes.shape, generator=generator)
    left_out = 6

    def errors() -> torch.Tensor:
        apart = fitted.mesh(data.frames).vertices - original.mesh(data.frames).vertices
        return apart[..., :2]

    before, place = errors(), fitted.poses.refined.translation[left_out].clone()
    frames = [frame for frame in range(count) if frame != left_out]
    assert list(steady_frames(fitted, data, data.pictures(frames), seed=0)) == list(range(2, count))
    after = errors()
    torch.testing.assert_close(fitted.poses.refined.translation[left_out], place)
    linked = [(a, a + 1) for a in range(count - 1) if left_out not in (a, a + 1)]
    trembling = [float(sum((e[b] - e[a]).norm(dim=-1).mean() for a, b in linked)) for e in (before, after)]
    assert trembling[1] < 0.6 * trembling[0]
    assert after[frames].norm(dim=-1).mean() < before[frames].norm(dim=-1).mean()
    assert after[frames].mean(1).norm(dim=-1).max() < 0.0015, "nothing lags"


def test_what_lies_beyond_the_clips_frame_moves_nothing(truth: tuple[Fitted, TrainingFrames]) -> None:
    """There the frame's edge is repeated, whatever the person does."""
    original, data = truth
    edge = 2 * SIZE // 5
    images, alphas = data.images.clone(), data.alphas.clone()
    for pictures in (images, alphas):
        pictures[..., :edge] = pictures[..., edge : edge + 1]
    moved = []
    for seen in (True, False):
        inside = data.inside.clone()
        inside[..., :edge] = seen
        poses = Poses.start(original.body, toy_parameters(FRAMES))
        fitted = Fitted(original.body, original.avatar, original.renderer, poses)
        cut = dataclasses.replace(data, images=images, alphas=alphas, inside=inside)
        for _ in align_frames(fitted, cut, cut.pictures(range(FRAMES)), 2, seed=0):
            pass
        moved.append(
            float((fitted.mesh(data.frames).vertices - original.mesh(data.frames).vertices).norm(dim=-1).mean())
        )
    assert moved[1] < 0.5 * moved[0]


def test_a_camera_that_adjusts_itself_is_followed(truth: tuple[Fitted, TrainingFrames]) -> None:
    original, data = truth
    gains = torch.tensor([[1.0, 1.0, 1.0], [0.75, 0.8, 0.7], [1.08, 1.1, 1.05], [1.004, 0.997, 1.003]])
    taken = data.replaced((data.images * gains[..., None, None]).round().clamp(0, 255).byte())
    fitted = misplaced(original)
    for _ in range(6):  # one look each, once the frames are in place
        for _ in align_frames(fitted, data, taken.pictures(range(FRAMES)), 3, seed=0):
            pass
    assert fitted.poses.gain(torch.arange(3)).numpy() == pytest.approx(gains[:3].numpy(), abs=0.03)
    torch.testing.assert_close(fitted.poses.gain(torch.tensor([3])), torch.ones(1, 3), msg="that much is noise")
    unexposed = misplaced(original)
    unexposed.poses.refined, unexposed.poses.nodes = fitted.poses.refined, fitted.poses.nodes
    assert all(
        followed > still + 3
        for followed, still in zip(quality(fitted, taken)[1:3], quality(unexposed, taken)[1:3], strict=True)
    )


@pytest.mark.parametrize("content", ["black", "white", "noise", "nobody"])
def test_a_picture_that_shows_nothing_known_leaves_sane_poses(
    truth: tuple[Fitted, TrainingFrames], content: str
) -> None:
    original, data = truth
    fitted = Fitted(
        original.body, original.avatar, original.renderer, Poses.start(original.body, toy_parameters(FRAMES))
    )
    image = {
        "black": torch.zeros(3, SIZE, SIZE),
        "white": torch.ones(3, SIZE, SIZE),
        "noise": torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)),
        "nobody": torch.zeros(3, SIZE, SIZE),
    }[content]
    alpha = torch.zeros(1, SIZE, SIZE) if content == "nobody" else torch.ones(1, SIZE, SIZE)
    Alignment(fitted, data.K, SIZE, seed=0).align(1, image, alpha, data.inside[1], 3)
    mesh = fitted.mesh(data.frames)
    assert torch.isfinite(mesh.vertices).all()
    moved = (mesh.vertices - original.mesh(data.frames).vertices).norm(dim=-1)
    assert moved.max() < 0.08, "priors hold the body"
