from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import write_smirk
from torch import Tensor

from portraitgen import smirk
from portraitgen.clip import probe, read_frames
from portraitgen.errors import InputError
from portraitgen.expression import (
    ExpressionCorrection,
    ExpressionLoss,
    FaceMesh,
    Features,
    crop_faces,
    expression_of,
    face_squares,
)
from portraitgen.tflite import Network

CLIP = Path(__file__).parent.parent / "examples" / "portrait.mp4"
GRAPH = """
input_stream: "image"
output_stream: "points"
output_stream: "score"
node {
  calculator: "ImageToTensorCalculator" input_stream: "IMAGE:image" output_stream: "TENSORS:tensors"
  options { [mediapipe.ImageToTensorCalculatorOptions.ext] {
    output_tensor_width: 192 output_tensor_height: 192 output_tensor_float_range { min: 0.0 max: 1.0 } } }
}
node {
  calculator: "InferenceCalculator" input_stream: "TENSORS:tensors" output_stream: "TENSORS:results"
  options { [mediapipe.InferenceCalculatorOptions.ext] { model_path: "FILE" delegate { xnnpack { num_threads: 1 } } } }
}
node {
  calculator: "SplitTensorVectorCalculator" input_stream: "results" output_stream: "first" output_stream: "second"
  options { [mediapipe.SplitVectorCalculatorOptions.ext] { ranges { begin: 0 end: 1 } ranges { begin: 1 end: 2 } } }
}
node { calculator: "TensorsToFloatsCalculator" input_stream: "TENSORS:first" output_stream: "FLOATS:points" }
node { calculator: "TensorsToFloatsCalculator" input_stream: "TENSORS:second" output_stream: "FLOATS:score" }
"""


def model_file() -> Path:
    import mediapipe

    return Path(mediapipe.__file__).parent / "modules" / "face_landmark" / "face_landmark.tflite"


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    return next(iter(read_frames(CLIP, probe(CLIP))))


@pytest.fixture(scope="module")
def face(frame: np.ndarray) -> np.ndarray:
    """FaceMesh's own points [468, 2] of the frame, in pixels, from the crop that follows from the points themselves."""
    return follow(frame)[-1]


def follow(frame: np.ndarray) -> list[np.ndarray]:
    """What MediaPipe finds when it sees the same picture again and again, each time around the points of the time before."""
    from mediapipe.python.solutions.face_mesh import FaceMesh as Solution

    height, width = frame.shape[:2]
    with Solution(static_image_mode=False, max_num_faces=1, refine_landmarks=False) as solution:
        found = [solution.process(frame).multi_face_landmarks[0].landmark for _ in range(4)]
    return [np.array([(p.x * width, p.y * height) for p in points], np.float32) for points in found]


def tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255


def test_network_is_mediapipes_own(frame: np.ndarray) -> None:
    """Against MediaPipe's TensorFlow Lite interpreter, on noise, a picture and black: within 2e-4 pixels of the crop."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    from mediapipe import CalculatorGraph, ImageFormat
    from mediapipe.python import packet_creator, packet_getter

    noise = np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    pictures = [noise, np.ascontiguousarray(frame[:192, :192]), np.zeros_like(noise)]
    graph = CalculatorGraph(graph_config=GRAPH.replace("FILE", str(model_file())))
    found: dict[str, list[list[float]]] = {"points": [], "score": []}
    for name, values in found.items():
        graph.observe_output_stream(name, lambda _, packet, to=values: to.append(packet_getter.get_float_list(packet)))
    graph.start_run()
    for time, picture in enumerate(pictures):
        packet = packet_creator.create_image_frame(image_format=ImageFormat.SRGB, data=picture)
        graph.add_packet_to_input_stream("image", packet.at(time))
    graph.close_all_packet_sources()
    graph.wait_until_done()
    with torch.no_grad():
        points, score = Network(model_file())(torch.cat([tensor(picture) for picture in pictures]))
    assert torch.allclose(points.flatten(1), torch.tensor(found["points"]), atol=2e-4, rtol=0)
    assert torch.allclose(score.flatten(), torch.tensor(found["score"]).flatten(), atol=2e-4, rtol=0)
    assert float(points.std()) > 20


def test_crop_is_mediapipes_own(frame: np.ndarray) -> None:
    """The crop that follows from one set of points gives the next set that MediaPipe finds, turned faces included."""
    for turned in (frame, turn(frame, 17.0)):
        before, after = follow(turned)[-2:]
        squares = face_squares(torch.from_numpy(before)[None])
        mesh = FaceMesh()
        with torch.no_grad():
            points, presence = mesh.points(crop_faces(tensor(turned), squares, mesh.size))
        centre_x, centre_y, side, angle = squares[0]
        x, y = (points[0, :, :2] / mesh.size - 0.5).unbind(1)
        ours = torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], 1) * side
        ours = ours + torch.stack([centre_x, centre_y])
        apart = (ours - torch.from_numpy(after)).norm(dim=1) / float(side)
        assert float(apart.max()) < 0.004, float(apart.max())  # of the crop; MediaPipe warps 8-bit pictures
        assert float(presence) > 0.9
    assert abs(float(squares[0, 3])) > 0.2


def turn(frame: np.ndarray, degrees: float) -> np.ndarray:
    import cv2

    height, width = frame.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def test_gradients_of_the_network_are_right() -> None:
    network = Network(model_file()).double()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 192, 192, generator=generator, dtype=torch.double, requires_grad=True)
    weight = torch.randn(1404, generator=generator, dtype=torch.double)

    def total(picture: Tensor) -> Tensor:
        return (network(picture)[0].flatten() * weight).sum()

    (slope,) = torch.autograd.grad(total(image), image)
    assert torch.isfinite(slope).all()
    assert float((slope != 0).double().mean()) > 0.95
    direction = torch.randn(image.shape, generator=generator, dtype=torch.double)
    step = 1e-7  # small, for PReLU and pooling have kinks; some are still crossed
    with torch.no_grad():
        measured = (total(image + step * direction) - total(image - step * direction)) / (2 * step)
    assert float(measured) == pytest.approx(float((slope * direction).sum()), rel=2e-3)


def test_gradient_of_the_loss_is_right(frame: np.ndarray, face: np.ndarray) -> None:
    loss = ExpressionLoss()
    loss.mesh.network = Network(model_file()).double().requires_grad_(False)
    points = torch.from_numpy(face)[None].double()
    source = tensor(frame).double()
    image = (source * 0.8 + 0.1 * torch.rand(source.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    wanted = loss.features(source, points)
    wanted = Features(wanted.values.detach(), wanted.presence)

    def total(picture: Tensor) -> Tensor:
        found = loss.features(picture, points)
        return loss.compare(Features(found.values, torch.ones(1)), wanted)

    (slope,) = torch.autograd.grad(total(image), image)
    direction = slope / slope.norm()
    with torch.no_grad():
        measured = (total(image + 1e-5 * direction) - total(image - 1e-5 * direction)) / 2e-5
    assert float(slope.norm()) > 1e-4
    assert float(measured) == pytest.approx(float(slope.norm()), rel=1e-3)


def test_loss_is_zero_for_the_same_face_and_sees_mouth_and_eyes(frame: np.ndarray, face: np.ndarray) -> None:
    loss = ExpressionLoss()
    points = torch.from_numpy(face)[None]
    source = tensor(frame)
    assert float(loss(source, source, points)) == 0
    dimmed = float(loss(source * 0.8, source, points))
    moved = float(loss(squeezed(source, points), source, points))
    assert moved > 4 * dimmed
    assert moved > 0.05


def squeezed(image: Tensor, face: Tensor) -> Tensor:
    """The mouth a third narrower and its corners lower."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centre, unit = face[0, [61, 291]].mean(0), float((face[0, 61] - face[0, 291]).norm())
    u, v = (x - centre[0]) / unit, (y - centre[1]) / unit
    weight = torch.exp(-(u * u + v * v) / 0.5)
    x, y = x + weight * unit * 0.4 * u, y - weight * unit * 0.5 * u * u
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)[None]
    return torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=False)


def test_descent_restores_a_mouth(frame: np.ndarray, face: np.ndarray) -> None:
    """Steps down the gradient on the picture alone bring the landmarks back."""
    loss = ExpressionLoss()
    points, source = torch.from_numpy(face)[None], tensor(frame)
    image = squeezed(source, points).requires_grad_()
    first = float(loss(image.detach(), source, points))
    optimizer = torch.optim.Adam([image], lr=5e-3)
    for _ in range(12):
        optimizer.zero_grad()
        loss(image, source, points).backward()
        optimizer.step()
    assert float(loss(image.detach(), source, points)) < 0.5 * first


def test_expression_is_independent_of_place_size_and_roll(face: np.ndarray) -> None:
    points = torch.from_numpy(face)[None]
    own = expression_of(points)
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    assert torch.allclose(expression_of(points @ turn.T * 0.37 + 40), own, atol=2e-4)
    opened = points.clone()
    opened[:, 14] += torch.tensor([0.0, 20.0])
    assert float((expression_of(opened) - own).abs().max()) > 0.1


def test_no_face_weighs_nothing(frame: np.ndarray, face: np.ndarray) -> None:
    loss = ExpressionLoss()
    points, source = torch.from_numpy(face)[None], tensor(frame)
    noise = torch.rand(source.shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    found = loss.features(noise, points)
    assert float(found.presence) < 0.05
    unknown = torch.full_like(points, torch.nan)
    value = loss(noise, source, unknown)
    value.backward()
    assert float(value.detach()) == 0
    assert noise.grad is not None
    assert torch.isfinite(noise.grad).all()
    both = loss.features(torch.cat([source, source]), torch.cat([points, unknown]))
    assert both.presence[0] > 0.9
    assert both.presence[1] == 0
    assert torch.isfinite(both.values).all()


def test_crops(face: np.ndarray) -> None:
    """A square of the picture's own size gives the picture back; beyond its edge the border is repeated."""
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(crop_faces(image, torch.tensor([[16.0, 16.0, 32.0, 0.0]]), 32), image, atol=1e-5)
    quarter = crop_faces(image, torch.tensor([[16.0, 16.0, 32.0, torch.pi / 2]]), 32)
    assert torch.allclose(quarter, torch.rot90(image, 1, (2, 3)), atol=1e-4)
    outside = crop_faces(image, torch.tensor([[-100.0, 16.0, 8.0, 0.0]]), 8)
    assert torch.allclose(outside, outside[..., :1].expand_as(outside), atol=1e-5)


def test_correction_brings_an_expression_back_and_nothing_else(frame: np.ndarray, face: np.ndarray) -> None:
    loss = ExpressionLoss()
    correct = ExpressionCorrection(loss)
    points, source = torch.from_numpy(face)[None], tensor(frame)
    edited = squeezed(source, points)
    bent = correct(edited, source, points)
    assert float(loss(bent, source, points)) < 0.6 * float(loss(edited, source, points))
    assert 0 <= float(bent.min()) <= float(bent.max()) <= 1
    centre_x, centre_y, side, _ = face_squares(points)[0].tolist()
    y, x = torch.meshgrid(torch.arange(frame.shape[0]), torch.arange(frame.shape[1]), indexing="ij")
    outside = ((x - centre_x).abs() > 0.6 * side) | ((y - centre_y).abs() > 0.6 * side)
    assert outside.any()
    assert float((bent - edited).abs()[0, :, outside].max()) < 1e-3  # sampling where the pixels are, to rounding
    assert torch.equal(bent, correct(edited, source, points))
    assert float((correct(source, source, points) - source).abs().mean()) < 1e-4


def test_correction_leaves_alone_what_is_no_face(frame: np.ndarray, face: np.ndarray) -> None:
    correct = ExpressionCorrection(ExpressionLoss(), steps=3)
    points, source = torch.from_numpy(face)[None], tensor(frame)
    noise = torch.rand(source.shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(correct(noise, source, points), noise)
    unknown = torch.full_like(points, torch.nan)
    edited = squeezed(source, points)
    assert torch.equal(correct(edited, source, unknown), edited)
    both = correct(torch.cat([edited, noise]), torch.cat([source, source]), torch.cat([points, points]))
    assert torch.equal(both[1:], noise)
    assert not torch.equal(both[:1], edited)


def test_smirk(tmp_path: Path, frame: np.ndarray, face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = write_smirk(tmp_path / smirk.CHECKPOINT)
    monkeypatch.setattr(smirk.weights, "ROOT", tmp_path)
    encoder = smirk.at_hand()
    assert encoder is not None
    assert torch.equal(
        encoder.trunk.state_dict()["conv_stem.weight"],
        stored["smirk_encoder.expression_encoder.encoder.conv_stem.weight"],
    )
    points, source = torch.from_numpy(face)[None], tensor(frame)
    squares = encoder.squares(points)
    low, high = points[0].amin(0), points[0].amax(0)
    assert squares[0, 2] == pytest.approx(float(1.4 * (high - low).mean()))
    assert squares[0, 3] == 0
    loss = ExpressionLoss(encoder=encoder)
    assert float(loss(source, source, points)) == 0
    image = squeezed(source, points).requires_grad_()
    value = loss(image, source, points)
    value.backward()
    assert float(value.detach()) > 0
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert float(image.grad.abs().max()) > 0
    features = encoder.features(torch.rand(2, 3, 224, 224))
    assert features.shape == (2, 55)
    assert (features[:, 50:53] >= 0).all()
    monkeypatch.setattr(smirk.weights, "ROOT", tmp_path / "nothing")
    assert smirk.at_hand() is None


def test_smirk_files_that_are_not(tmp_path: Path) -> None:
    path = tmp_path / "some.pt"
    with pytest.raises(InputError, match="There is no file"):
        smirk.Smirk(path)
    for content in (b"", b"not a checkpoint", b"half of it", struct.pack("<Q", 7) * 30):
        path.write_bytes(content)
        with pytest.raises(InputError, match="can be read safely"):
            smirk.Smirk(path)
    torch.save({"weights": Path}, path)  # a pickle that names a class
    with pytest.raises(InputError, match="can be read safely"):
        smirk.Smirk(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="no expression encoder"):
        smirk.Smirk(path)
    for change in ("shape", "missing"):
        write_smirk(path, change)
        with pytest.raises(InputError, match="does not fit"):
            smirk.Smirk(path)


def test_files_that_are_no_graphs(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x00" * 64)
    with pytest.raises(ValueError, match="not a TensorFlow Lite file"):
        Network(path)
    attention = model_file().with_name("face_landmark_with_attention.tflite")
    with pytest.raises(ValueError, match="of TensorFlow Lite is not known here"):
        Network(attention)
