"""Every shipped configuration of a local network runs a step and leaves weights that are read again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from programs import geomatch
from safetensors.torch import load_file
from scipy.ndimage import map_coordinates

from geomatch.errors import InputError, UsageError
from geomatch.matching.keypoints import DETECTORS
from geomatch.matching.learned import DetectDescribe, KeypointDetector, PatchDescriptor
from geomatch.matching.samples import Sample, Warp, samples
from geomatch.matching.side import Side
from geomatch.matching.transforms import apply
from geomatch.nets.d2net import FIRST_PX, D2Net
from geomatch.nets.keypoint_detector import standard
from geomatch.nets.pixel_net import PixelNet
from geomatch.nets.shapes import D2Shape, HardNetShape, LTFormerShape, PixelShape, R2D2Shape, VggShape
from geomatch.nets.vgg import PatchVgg
from geomatch.pixel_features import LearnedPixels, standardised
from geomatch.simulation.pairs import SimulatedPairs
from geomatch.training.local import pixels, vgg
from geomatch.training.local.dense import Views
from geomatch.training.local.descriptor import (
    load_descriptor_config,
    paired_patches,
    patches_of,
    train_descriptor,
)
from geomatch.training.local.detect_describe import (
    DetectDescribeTask,
    load_detect_describe_config,
    train_detect_describe,
    with_copies,
)
from geomatch.training.local.detector import (
    DetectorTask,
    contrast_loss,
    huber_loss,
    load_detector_config,
    peak_loss,
    train_detector,
    warped_back,
    within,
)
from geomatch.training.local.pixels import PixelConfig, PixelTask, load_pixel_config, train_pixels, window_of
from geomatch.training.local.sources import CropConfig
from geomatch.training.local.vgg import load_vgg_config, train_vgg
from geomatch.weights import Weights

CONFIGS = Path(__file__).parents[3] / "configs"
SMALL = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.precision=32-true", "validation.crops=1"]
SMALL += ["data.steps_per_epoch=1", "data.batch=2", "data.workers=0", "data.side_px=96", "validation.scene=town"]
SHAPES = {"ltformer": LTFormerShape, "hardnet": HardNetShape}


def on_the_town(shipped: Path, scenes: Path, folder: Path) -> Path:
    """A shipped configuration with the drawn scenes in the place of the real ones."""
    given = OmegaConf.load(shipped)
    given["data"] |= {"root": str(scenes), "folders": [], "simulated": {"weight": 0}}
    given["data"]["scenes"] = [{"optical": "optical.tif", "sar": "sar.tif", "split": "split.csv", "scene": "town"}]
    file = folder / shipped.name
    OmegaConf.save(given, file)
    return file


@pytest.fixture(scope="module")
def sample() -> Sample:
    return next(samples(SimulatedPairs(512, 4), 1, Warp(8, (0.95, 1.1), 6), size_px=160))


@pytest.mark.parametrize("shipped", sorted((CONFIGS / "descriptor").glob("*.yaml")), ids=lambda path: path.stem)
def test_descriptor_runs_a_step(shipped: Path, scenes: Path, tmp_path: Path, sample: Sample) -> None:
    config = load_descriptor_config(on_the_town(shipped, scenes, tmp_path), [*SMALL, "points=4"])
    weights = train_descriptor(config, tmp_path / "run")
    describe = PatchDescriptor.load(str(weights), SHAPES[config.net.form])  # type: ignore[arg-type]
    found = describe(sample.sar, DETECTORS["gftt"](sample.sar, 5))
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    assert len(found) == 5
    with pytest.raises(InputError, match="weights of another network"):
        KeypointDetector.load(str(weights))


@pytest.mark.parametrize("shipped", sorted((CONFIGS / "detector").glob("*.yaml")), ids=lambda path: path.stem)
def test_detector_runs_a_step(shipped: Path, scenes: Path, tmp_path: Path, sample: Sample) -> None:
    config = load_detector_config(on_the_town(shipped, scenes, tmp_path), [*SMALL, "net.width=8"])
    detect = KeypointDetector.load(str(train_detector(config, tmp_path / "run")))
    found = detect(sample.sar, 20)
    assert 0 < len(found) <= 20
    assert (np.diff(found.score) <= 0).all()


@pytest.mark.parametrize("shipped", sorted((CONFIGS / "detect-describe").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("supervised", ["with its copies", "by the pair alone"])
def test_detect_and_describe_runs_a_step(
    shipped: Path, supervised: str, scenes: Path, tmp_path: Path, sample: Sample
) -> None:
    config = load_detect_describe_config(on_the_town(shipped, scenes, tmp_path), [*SMALL, "net.width=4"])
    if supervised == "by the pair alone":
        config.self_supervision = 0.0
    weights = train_detect_describe(config, tmp_path / "run")
    extract = DetectDescribe.load(str(weights), {"d2": D2Shape, "r2d2": R2D2Shape}[config.net.form])  # type: ignore[arg-type]
    found = extract(sample.sar, 30)
    assert 0 < len(found) <= 30
    assert (np.diff(found.keypoints.score) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)


def test_vgg_runs_a_step(scenes: Path, tmp_path: Path, sample: Sample) -> None:
    small = [*SMALL, "batch=4", "net.classes=3", "net.width=2", "net.hidden=8"]
    config = load_vgg_config(on_the_town(CONFIGS / "vgg" / "vgg.yaml", scenes, tmp_path), small)
    describe = PatchDescriptor.load(str(train_vgg(config, tmp_path / "run")), VggShape)
    found = describe(sample.sar, DETECTORS["gftt"](sample.sar, 5))
    assert found.vectors.shape == (5, 16)


@pytest.mark.parametrize("shipped", sorted((CONFIGS / "pixels").glob("*.yaml")), ids=lambda path: path.stem)
def test_features_of_pixels_run_a_step(shipped: Path, scenes: Path, tmp_path: Path, sample: Sample) -> None:
    small = [*SMALL, "start=null", "window_px=64", "net.width=4", "validation.crops=3"]
    config = load_pixel_config(on_the_town(shipped, scenes, tmp_path), small)
    features = LearnedPixels(str(train_pixels(config, tmp_path / "run")))
    assert features(sample.sar.image, sample.sar.valid, "sar").values.shape == (8, 80, 80)


def test_features_of_pixels_begin_with_weights(scenes: Path, tmp_path: Path) -> None:
    file = on_the_town(CONFIGS / "pixels" / "pixels.yaml", scenes, tmp_path)
    net = PixelTask(load_pixel_config(file, ["start=pixels1"]), 1).net
    shipped = Weights.find("pixels1", PixelShape).load_into(PixelNet())
    assert net.training
    for name, value in shipped.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)
    with pytest.raises(InputError, match="weights of another network"):
        PixelTask(load_pixel_config(file, ["start=pixels1", "net.width=4"]), 1)


@pytest.mark.parametrize("off_px", [0, -2.5])
def test_misregistration_of_nothing_is_refused(off_px: float, scenes: Path, tmp_path: Path) -> None:
    file = on_the_town(CONFIGS / "pixels" / "pixels.yaml", scenes, tmp_path)
    with pytest.raises(UsageError, match=f"misregistered by {off_px:g} px"):
        load_pixel_config(file, [f"registration_px={off_px}"])


def test_window_of_pixels_lies_where_it_says(sample: Sample) -> None:
    """The middle of the SAR window, led to the optical crop by the pair's transform, is the middle of its place."""
    config = PixelConfig(window_px=64, data=CropConfig(side_px=160))
    made = window_of(sample, config, np.random.default_rng(1))
    assert made is not None
    assert made["sar"].shape == (1, 64, 64)
    assert made["optical"].shape == (1, 160, 160)
    left, top = (int(at) for at in np.random.default_rng(1).integers(0, 160 - 64 + 1, 2))
    part = sample.sar.image[top : top + 64, left : left + 64]
    np.testing.assert_array_equal(made["sar"][0], standardised(part, np.ones(part.shape, bool)))
    x, y, depth = sample.to_optical @ (left + 32, top + 32, 1.0)
    np.testing.assert_allclose(2 * made["at"] + 32, (x / depth, y / depth), rtol=1e-5)


def test_crops_that_are_too_small_or_hardly_known_are_drawn_again(sample: Sample) -> None:
    rng = np.random.default_rng(1)
    assert window_of(sample, PixelConfig(data=CropConfig(side_px=200)), rng) is None
    holed = replace(sample.sar, valid=sample.sar.valid & (np.arange(160) > 20))
    assert window_of(replace(sample, sar=holed), PixelConfig(data=CropConfig(side_px=160)), rng) is None


def test_validation_without_a_whole_crop_is_told(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: Sample
) -> None:
    config = load_pixel_config(on_the_town(CONFIGS / "pixels" / "pixels.yaml", scenes, tmp_path), SMALL[:4])
    task = PixelTask(config, 1)
    monkeypatch.setattr(pixels, "held_out", lambda *_: [sample])
    config.validation.scene = "town"
    with pytest.raises(UsageError, match=r"no crop of 136 px .* is whole and known"):
        task.validated()


@pytest.mark.parametrize("window_px", [61, 8, 200])
def test_windows_that_do_not_fit_their_crops_are_refused(window_px: int, scenes: Path, tmp_path: Path) -> None:
    file = on_the_town(CONFIGS / "pixels" / "pixels.yaml", scenes, tmp_path)
    with pytest.raises(UsageError, match=f"windows of {window_px} px in crops of 136 px"):
        load_pixel_config(file, [f"window_px={window_px}"])


def test_unknown_names_are_refused(scenes: Path, tmp_path: Path) -> None:
    file = on_the_town(CONFIGS / "descriptor" / "hardnet.yaml", scenes, tmp_path)
    with pytest.raises(UsageError, match=r"unknown loss 'lot'.*Known are lt"):
        load_descriptor_config(file, ["loss=lot"])
    with pytest.raises(UsageError, match=r"The nearest one is points"):
        load_descriptor_config(file, ["pionts=4"])


def test_patches_of_a_pair_show_the_same_places(sample: Sample) -> None:
    """The truth is cut by hand: where the transform leads, in the other image."""
    config = load_descriptor_config(CONFIGS / "descriptor" / "hardnet.yaml", ["points=5", "net.side_px=32"])
    made = paired_patches(sample, config, np.random.default_rng(3))
    assert made is not None
    assert made["optical"].shape == made["sar"].shape == (5, 1, 32, 32)
    every = np.stack(np.meshgrid(np.arange(8, 152), np.arange(8, 152)), axis=-1).reshape(-1, 2) + 0.5
    for number in range(5):
        optical = patches_of(sample.optical, _near(every, sample, made, number), config.net)
        gaps = np.square(optical - made["optical"][number, 0]).mean(axis=(1, 2))
        assert gaps.min() < 0.2


@pytest.mark.parametrize("shift_px", [0.0, 8.0])
def test_positive_is_cut_as_far_off_the_place_as_asked_for(shift_px: float) -> None:
    """Both images are one, in which every patch is found again by looking at all places."""
    texture = cv2.GaussianBlur(np.random.default_rng(5).random((120, 120), np.float32), (0, 0), 1.5)
    known = np.ones(texture.shape, bool)
    same = Sample(Side(texture, known, "sar"), Side(texture, known, "optical"), np.eye(3))
    given = ["points=8", "net.side_px=16", "net.equalised=false", "net.shape.patch_px=16"]
    given += ["positives.exactly=true", f"positives.shift_px={shift_px}"]
    config = load_descriptor_config(CONFIGS / "descriptor" / "hardnet.yaml", given)
    made = paired_patches(same, config, np.random.default_rng(3))
    assert made is not None
    every = np.stack(np.meshgrid(np.arange(120), np.arange(120)), axis=-1).reshape(-1, 2) + 0.5
    cut = patches_of(same.sar, every, config.net)

    def place(patch: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.asarray(every[np.square(cut - patch).mean(axis=(1, 2)).argmin()])

    moves = np.array([place(made["sar"][at, 0]) - place(made["optical"][at, 0]) for at in range(8)])
    np.testing.assert_allclose(np.linalg.norm(moves, axis=1), shift_px, atol=0.8)
    assert (len(np.unique(moves, axis=0)) > 4) == (shift_px > 0)  # in a direction of its own each


def test_positive_is_turned_and_scaled_as_asked_for(sample: Sample) -> None:
    """A frame cut by hand: its corner is where the turned and enlarged corner of the upright one lies."""
    config = load_descriptor_config(CONFIGS / "descriptor" / "hardnet.yaml", ["net.side_px=32"])
    at = np.array([[80.0, 80.0]])
    quarter = 1.5 * np.array([[[0.0, -1.0], [1.0, 0.0]]])
    turned = patches_of(sample.sar, at, config.net, quarter)[0]
    config.net.side_px = 48
    np.testing.assert_allclose(turned, np.rot90(patches_of(sample.sar, at, config.net)[0]), atol=0.6)
    assert np.corrcoef(turned.ravel(), np.rot90(patches_of(sample.sar, at, config.net)[0]).ravel())[0, 1] > 0.95


def test_run_begins_with_given_weights(scenes: Path, tmp_path: Path) -> None:
    file = on_the_town(CONFIGS / "descriptor" / "ltformer.yaml", scenes, tmp_path)
    still = [*SMALL, "points=4", "start=ltformer1", "optimizer.lr=0.0"]
    weights = train_descriptor(load_descriptor_config(file, still), tmp_path / "run")
    made, shipped = (load_file(one) for one in (weights, Weights.find("ltformer1", LTFormerShape).path))
    for name, values in shipped.items():
        torch.testing.assert_close(made[name].float(), values.float())
    other = load_descriptor_config(file, [*still, "net.form=hardnet", "net.shape={}"])
    with pytest.raises(InputError, match="weights of another network"):
        train_descriptor(other, tmp_path / "other")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("net.shape.vectro=64", r"unknown key 'net.shape.vectro'.*nearest one is net.shape.vector"),
        ("optimizer.method=addam", r"unknown method 'addam'.*nearest one is adam"),
        ("positives.scale=[2,1]", r"positives.scale"),
    ],
)
def test_what_is_not_known_of_a_descriptor_is_refused(override: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_descriptor_config(CONFIGS / "descriptor" / "ltformer.yaml", [override])


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ("descriptor/hardnet", ["data.batch=0"]),
        ("descriptor/hardnet", ["data.workers=-1"]),
        ("descriptor/hardnet", ["data.scale=[0,1]"]),
        ("descriptor/hardnet", ["data.projective=0.6"]),
        ("descriptor/hardnet", ["points=1"]),
        ("descriptor/hardnet", ["temperature=0"]),
        ("descriptor/hardnet", ["net.shape.patch_px=50"]),
        ("descriptor/hardnet", ["optimizer.lr=-1"]),
        ("descriptor/hardnet", ["optimizer.lr=.nan"]),
        ("descriptor/ltformer", ["net.shape.heads=[3,2,4,8]"]),
        ("descriptor/ltformer", ["net.shape.heads=[1,2]"]),
        ("descriptor/ltformer", ["net.shape.reductions=[100,4,2,1]"]),
        ("descriptor/ltformer", ["net.shape.reductions=[8,16,2,1]"]),
        ("detector/keypoints", ["net.weights=[0,0,0]"]),
        ("detector/keypoints", ["net.weights=[0.5,-0.1,0.6]"]),
        ("detect-describe/d2", ["copies.scale=[0,1]"]),
        ("detect-describe/d2", ["copies.noise=-1"]),
        ("detect-describe/d2", ["copies.projective=1"]),
        ("detect-describe/d2", ["copies.blurred=1.5"]),
        ("detect-describe/r2d2", ["copies.turn_deg=-3"]),
        ("detector/keypoints", ["net.width=0"]),
        ("detector/keypoints", ["data.side_px=14"]),
        ("detector/keypoints", ["trainer.max_epochs=0"]),
        ("detector/keypoints", ["data.steps_per_epoch=0"]),
        ("detect-describe/r2d2", ["net.width=0"]),
        ("detect-describe/r2d2", ["data.side_px=12"]),
        ("detect-describe/r2d2", ["self_supervision=-1"]),
        ("detect-describe/r2d2", ["net.declined=never"]),
        ("vgg/vgg", ["net.classes=0"]),
        ("vgg/vgg", ["scale=[1.2,0.8]"]),
        ("pixels/pixels", ["net.channels=0"]),
    ],
)
def test_numbers_that_cannot_be_are_named_and_nothing_is_trained(
    config: str, overrides: list[str], scenes: Path, tmp_path: Path
) -> None:
    name = overrides[0].partition("=")[0]
    kind, file = config.split("/")
    jobs = {
        "descriptor": (load_descriptor_config, train_descriptor),
        "detector": (load_detector_config, train_detector),
        "detect-describe": (load_detect_describe_config, train_detect_describe),
        "vgg": (load_vgg_config, train_vgg),
        "pixels": (load_pixel_config, train_pixels),
    }
    load, train = jobs[kind]
    told = "net.shape" if name.startswith("net.shape") else name
    with pytest.raises(UsageError, match=rf"^{told}"):
        train(load(on_the_town(CONFIGS / kind / f"{file}.yaml", scenes, tmp_path), overrides), tmp_path / "run")  # type: ignore[operator]
    assert not (tmp_path / "run").exists()


def test_weights_that_are_no_numbers_are_not_written(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_detector_config(
        on_the_town(CONFIGS / "detector" / "keypoints.yaml", scenes, tmp_path), [*SMALL, "net.width=2"]
    )
    monkeypatch.setattr(DetectorTask, "validated", lambda task: 0.0)
    monkeypatch.setattr(
        DetectorTask, "on_train_epoch_start", lambda task: [one.data.fill_(torch.nan) for one in task.parameters()]
    )
    with pytest.raises(UsageError, match="infinite or no numbers"):
        train_detector(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_published_losses_are_those_of_the_papers() -> None:
    for name in ("published", "published-narrow"):
        detector = load_detector_config(CONFIGS / "detector" / f"{name}.yaml")
        assert (detector.agreement, detector.peaky) == ("huber-raw", 0.0)
    assert load_detect_describe_config(CONFIGS / "detect-describe" / "r2d2-published.yaml").net.declined == "published"
    with pytest.raises(UsageError, match=r"net.declined.*r2d2 alone"):
        load_detect_describe_config(CONFIGS / "detect-describe" / "d2.yaml", ["net.declined=published"])


def test_released_trunk_is_of_r2d2_alone() -> None:
    published = load_detect_describe_config(CONFIGS / "detect-describe" / "r2d2-published.yaml")
    assert published.net.make().shape == R2D2Shape(32, released=True)
    with pytest.raises(UsageError, match=r"net.released.*r2d2 alone"):
        load_detect_describe_config(CONFIGS / "detect-describe" / "d2.yaml", ["net.released=true"])


def test_published_d2_is_vgg16_without_batch_norm() -> None:
    published = load_detect_describe_config(CONFIGS / "detect-describe" / "d2-published.yaml")
    net = published.net.make()
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in net.modules())
    vgg = PatchVgg(VggShape(hidden=8))  # of VGG16's width
    convolutions = [
        [(layer.in_channels, layer.out_channels) for layer in one.modules() if isinstance(layer, torch.nn.Conv2d)]
        for one in (net, vgg)
    ]
    assert convolutions[0][1:] == convolutions[1][1:10]  # but for the first, which sees grey
    with pytest.raises(UsageError, match=r"net.norm.*d2 alone"):
        load_detect_describe_config(CONFIGS / "detect-describe" / "r2d2.yaml", ["net.norm=false"])


def _near(every: np.ndarray, sample: Sample, made: dict[str, np.ndarray], number: int) -> np.ndarray:  # type: ignore[type-arg]
    """Where in the optical image the place of a SAR patch lies, found again by looking at all places of the SAR one."""
    config = load_descriptor_config(CONFIGS / "descriptor" / "hardnet.yaml", ["net.side_px=32"])
    cut = patches_of(sample.sar, every[::3], config.net)
    best = int(np.square(cut - made["sar"][number, 0]).mean(axis=(1, 2)).argmin())
    around = np.stack(np.meshgrid(np.arange(-4, 5), np.arange(-4, 5)), axis=-1).reshape(-1, 2)
    return np.asarray(apply(sample.to_optical, every[::3][best : best + 1]) + around)


def test_dense_networks_are_trained_where_they_look() -> None:
    config = load_detect_describe_config(CONFIGS / "detect-describe" / "d2.yaml", ["net.width=4"])
    images = torch.randn(1, 1, 64, 64)
    for features in DetectDescribeTask(config, 1)._features([images, images]):
        assert features.middle_px == D2Net(D2Shape(4))(images).middle_px == FIRST_PX


def test_scores_warped_back_lie_where_the_transform_says() -> None:
    score = torch.zeros(1, 1, 60, 60)
    score[0, 0, 20:23, 30:33] = 1.0
    move = torch.tensor([[[1.0, 0, 7], [0, 1, -4], [0, 0, 1]]])
    back, inside = warped_back(score, move)
    row, col = divmod(int((back[0, 0] == 1).float().flatten().nonzero()[4]), 60)
    assert (row, col) == (21 - 4, 31 + 7)
    assert not inside[0, 0, :, :7].any()
    assert inside[0, 0, :55, 8:].all()


def test_flat_maps_gain_nothing() -> None:
    """The loss alone is zero for constant maps; here they agree no better than noise does, and lack all peaks."""
    torch.manual_seed(0)
    known = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    noise = torch.rand(1, 1, 64, 64)
    peaks = torch.zeros(1, 1, 64, 64)
    peaks[0, 0, 4::16, 4::16] = 1.0
    assert float(huber_loss(peaks, peaks, known)) == pytest.approx(0, abs=1e-6)
    assert float(huber_loss(noise, torch.rand(1, 1, 64, 64), known)) > 0.3
    frame = torch.zeros(2, 1, 64, 64)
    frame[..., :5, :] = 1.0
    both = torch.ones(2, 1, 64, 64, dtype=torch.bool)
    assert float(contrast_loss(frame, frame, both)) == pytest.approx(1, abs=1e-3)  # as good as no agreement
    assert float(contrast_loss(frame, frame, within(both))) == pytest.approx(1, abs=1e-3)
    apart = torch.cat([peaks, peaks.roll(8, dims=3)])
    assert float(contrast_loss(apart, apart, both)) < 0.1
    flat = torch.full((1, 1, 64, 64), 0.5)
    assert float(peak_loss(peaks)) < 0.1 < float(peak_loss(noise)) < float(peak_loss(flat))


RUNS: dict[str, tuple[str, list[str], Callable[..., Any], Callable[..., Path]]] = {
    "descriptor": ("descriptor/hardnet", ["points=4"], load_descriptor_config, train_descriptor),
    "detector": ("detector/keypoints", [], load_detector_config, train_detector),
    "detect-describe": ("detect-describe/r2d2", ["net.width=4"], load_detect_describe_config, train_detect_describe),
    "vgg": ("vgg/vgg", ["batch=4", "net.classes=3", "net.width=2", "net.hidden=8"], load_vgg_config, train_vgg),
}


@pytest.mark.parametrize("kind", RUNS)
def test_command_trains_what_a_configuration_says(kind: str, scenes: Path, tmp_path: Path) -> None:
    shipped, small, _, _ = RUNS[kind]
    file = on_the_town(CONFIGS / f"{shipped}.yaml", scenes, tmp_path)
    told = geomatch("train", kind, "--config", file, "-o", tmp_path / "run", *SMALL, *small)
    assert told.exit_code == 0, told.stderr
    (weights,) = (tmp_path / "run").glob("*.safetensors")
    assert load_file(weights)
    assert str(weights) in told.stdout
    assert geomatch("train", kind, "--config", tmp_path / "none.yaml", "-o", tmp_path / "other").exit_code == 3


def test_loss_is_between_the_modalities_and_lambda_times_each_with_its_copy(
    scenes: Path, tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = on_the_town(CONFIGS / "detect-describe" / "r2d2.yaml", scenes, tmp_path)
    config = load_detect_describe_config(file, [*SMALL, "net.width=4", "self_supervision=0.4"])
    task = DetectDescribeTask(config, 1)
    monkeypatch.setattr(task, "log", lambda *_: None)
    seen: list[Views] = []
    told = iter([5.0, 2.0, 3.0])

    def loss(first: object, second: object, views: Views) -> torch.Tensor:
        seen.append(views)
        return torch.tensor(next(told))

    monkeypatch.setattr(task, "_loss", loss)
    example = with_copies(sample, np.random.default_rng(0), copies=config.copies)
    batch = {name: torch.from_numpy(np.asarray(value))[None] for name, value in example.items()}
    assert float(task.training_step(batch, 0)) == pytest.approx(5 + 0.4 * (2 + 3))
    pairs = [("optical", "sar", "to_optical")]
    pairs += [(name, f"{name}_copy", f"to_{name}_own") for name in ("optical", "sar")]
    for views, (first, second, between) in zip(seen, pairs, strict=True):
        torch.testing.assert_close(views.first, standard(batch[first]))
        torch.testing.assert_close(views.second, standard(batch[second]))
        assert torch.equal(views.to_first, batch[between])


def test_patches_of_a_class_show_its_place(scenes: Path, tmp_path: Path) -> None:
    still = ["turn_deg=0", "scale=[1,1]", "gamma=0", "batch=12", "net.classes=3"]
    config = load_vgg_config(on_the_town(CONFIGS / "vgg" / "vgg.yaml", scenes, tmp_path), [*SMALL, *still])
    places = list(vgg._places(config))
    batch = next(vgg.PatchClasses(config, 1).drawn(np.random.default_rng(1)))
    rows, cols = np.mgrid[16:80, 16:80] + 0.5  # of 96 px, the middle 64
    shown = {"optical": 0, "sar": 0}
    for patch, number in zip(batch["patches"], batch["place"].tolist(), strict=True):
        place = places[number]
        there = apply(np.linalg.inv(place.to_optical), np.stack([cols.ravel(), rows.ravel()], axis=1))
        alike = {
            "optical": float(np.corrcoef(patch.ravel(), place.optical.bytes[16:80, 16:80].ravel())[0, 1]),
            "sar": float(np.corrcoef(patch.ravel(), map_coordinates(place.sar.bytes, there.T[::-1] - 0.5))[0, 1]),
        }
        best = max(alike, key=alike.__getitem__)
        assert alike[best] > 0.98
        shown[best] += 1
    assert min(shown.values()) > 0


@pytest.mark.parametrize("kind", RUNS)
def test_run_that_was_interrupted_goes_on(kind: str, scenes: Path, tmp_path: Path) -> None:
    shipped, small, load, train = RUNS[kind]
    file = on_the_town(CONFIGS / f"{shipped}.yaml", scenes, tmp_path)
    config = load(file, [*SMALL, "trainer.max_epochs=3", *small])
    seen: list[tuple[int, int]] = []

    def step(stage: str, done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", step)
    assert not list((tmp_path / "run").glob("*.safetensors"))
    weights = train(config, tmp_path / "run", step)
    assert seen == [(1, 3), (2, 3), (2, 3), (3, 3)]
    assert load_file(weights)
