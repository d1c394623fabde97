"""From a pair to a training example: geometry that both images share, then what may differ between them.

Shared: a scale, a turn by any multiple of 90 degrees and a small one, flips. Then the SAR image is a smaller window at
a known offset in the optical crop, turned and scaled a little against it. Photometry is independent: the optical
bands are mixed at random (inversions among the mixtures), gamma, contrast; SAR gets gamma speckle, gain, gamma, blur.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.images import log_of
from geomatch.pairs import Pair, PairSource
from geomatch.planes import CELL_PX, PLANE_PX, plane_count, planes

LARGE_PX, SMALL_PX = 200, 104
TILT_DEG = 15.0


@dataclass(frozen=True)
class AugmentOptions:
    """How far examples are from the pairs they are made of.

    Attributes:
        optical_px, sar_px: sides of the optical crop and of the SAR image in it, from which windows are cut.
        large, small: windows of LARGE_PX and of SMALL_PX cut from it.
        rescaled, max_scale: share of examples seen at another resolution, and up to how many times coarser.
        finer: and how many times finer.
        tilted: share of examples whose two images are turned together, by up to 15 degrees.
        disturbed: share of examples whose SAR image is turned and scaled against the optical one.
        turn_deg, scale: by up to how much.
        mixed, inverted: share of examples whose optical bands are mixed, and of those, inverted.
        convolved: share of examples whose optical bands go through a random 3 x 3 or 5 x 5 filter (Xu et al. 2021,
            "Robust and generalizable visual representation learning via random convolutions", ICLR).
        dropped: share of examples in whose SAR image rectangles are blanked as nodata, as much in the optical one.
        pseudo: share of examples whose SAR image is made from the optical one: brightness mapped at random, edges
            bright, under speckle of few looks; for pretraining where there is no SAR.
        speckled: share of examples with speckle.
        looks: of the gamma speckle, one is chosen.
    """

    optical_px: int = 392
    sar_px: int = 296
    large: int = 2
    small: int = 4
    rescaled: float = 0.4
    max_scale: float = 2.0
    finer: float = 1.25
    tilted: float = 0.3
    disturbed: float = 0.5
    turn_deg: float = 9.0
    scale: float = 0.13
    mixed: float = 0.6
    inverted: float = 0.3
    convolved: float = 0.15
    dropped: float = 0.15
    pseudo: float = 0.0
    speckled: float = 0.4
    looks: tuple[float, ...] = (2, 4, 8)


@dataclass(frozen=True)
class Example:
    """Input of the network, and where the SAR image lies.

    Attributes:
        optical: [6 x 98 x 98] planes.
        large: [K x 4 x 50 x 50] planes of windows, each made from its own pixels alone, as a query is.
        small: [L x 4 x 26 x 26].
        large_at, small_at: [K x 2], [L x 2] column and row of the optical features where a window's first cell lies.
    """

    optical: NDArray[np.float32]
    large: NDArray[np.float32]
    small: NDArray[np.float32]
    large_at: NDArray[np.float32]
    small_at: NDArray[np.float32]


def widest_px(options: AugmentOptions) -> int:
    """Side of the largest square of a scene that an example is made of."""
    scale = options.max_scale if options.rescaled else 1.0
    tilt = np.radians(TILT_DEG if options.tilted else 0.0)
    return int(np.ceil(options.optical_px * scale * (np.cos(tilt) + np.sin(tilt)))) + 2


def make_example(
    source: PairSource, rng: np.random.Generator, options: AugmentOptions, pose: np.random.Generator | None = None
) -> Example:
    """Draw a pair and make an example of it.

    Args:
        source: of the pair.
        rng: of all that is random.
        options: how far the example is from the pair.
        pose: of the geometry in the place of ``rng``, so that two examples may share it and no more.
    """
    o, pose = options, pose or rng
    scale = 1.0
    if pose.random() < o.rescaled:
        scale = float(np.exp(pose.uniform(-np.log(o.finer), np.log(o.max_scale))))
    tilt = float(pose.uniform(-TILT_DEG, TILT_DEG)) if pose.random() < o.tilted else 0.0
    reach = o.optical_px * scale * (abs(np.cos(np.radians(tilt))) + abs(np.sin(np.radians(tilt))))
    pair = source.draw(pose, int(np.ceil(reach)) + 2)
    pair = _turned(pair, pose)
    # Patches smaller than asked for fill the crop by being seen at a finer scale.
    side = pair.valid.shape[0]
    scale = min(scale, (side - 2) / (reach / scale))
    optical_from = _about((side / 2, side / 2), o.optical_px / 2, tilt, scale)
    optical, valid = _warp(pair.optical, pair.valid, optical_from, o.optical_px, scale)
    if rng.random() < o.pseudo:
        pair = Pair(pair.optical, _pseudo_sar(pair.optical.mean(axis=0), rng)[None], pair.valid)
    turn, ratio = 0.0, 1.0
    if pose.random() < o.disturbed:
        turn = float(pose.uniform(-o.turn_deg, o.turn_deg))
        ratio = float(np.exp(pose.uniform(-o.scale, o.scale)))
    cos, sin = abs(np.cos(np.radians(turn))), abs(np.sin(np.radians(turn)))
    half = min(o.sar_px * ratio * (cos + sin), o.optical_px - 1) / 2
    # Whole pixels: what is neither turned nor scaled is shown as it is, as most queries are, and not interpolated.
    middle = (round(pose.uniform(half, o.optical_px - half)), round(pose.uniform(half, o.optical_px - half)))
    to_optical = _about(middle, o.sar_px / 2, turn, ratio)
    sar, sar_valid = _warp(pair.sar, pair.valid, _compose(optical_from, to_optical), o.sar_px, scale * ratio)
    if rng.random() < o.dropped:
        valid, sar_valid = _blanked(valid, rng), _blanked(sar_valid, rng)
    log_sar = _sar_photometry(sar, sar_valid, rng, o)
    large, large_at = _windows(log_sar, sar_valid, to_optical, pose, (LARGE_PX, o.large))
    small, small_at = _windows(log_sar, sar_valid, to_optical, pose, (SMALL_PX, o.small))
    seen = planes(_optical_photometry(optical, valid, rng, o), valid, "optical")
    return Example(seen, large, small, large_at, small_at)


def _windows(
    image: NDArray[np.float32],
    valid: NDArray[np.bool_],
    to_optical: NDArray[np.float64],
    rng: np.random.Generator,
    kind: tuple[int, int],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Windows of (side, number) at random places of a SAR image, and where they lie in the optical features."""
    side, count = kind
    first = rng.integers(0, image.shape[0] - side + 1, size=(count, 2))
    cut = [np.s_[row : row + side, col : col + side] for col, row in first]
    made = [planes(image[part][None], valid[part], "sar") for part in cut]
    middle = (first + side / 2) @ to_optical[:, :2].T + to_optical[:, 2]
    at = ((middle - side / 2) / CELL_PX).astype(np.float32)
    cells = side // PLANE_PX
    return np.stack(made) if made else np.zeros((0, plane_count("sar"), cells, cells), np.float32), at


def _turned(pair: Pair, rng: np.random.Generator) -> Pair:
    """Turned by a multiple of 90 degrees and perhaps flipped."""
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))

    def turned(array: NDArray[np.generic]) -> NDArray[np.generic]:
        array = np.rot90(array, quarter, axes=(-2, -1))
        return np.ascontiguousarray(array[..., ::-1] if flip else array)

    return Pair(turned(pair.optical), turned(pair.sar), turned(pair.valid))  # type: ignore[arg-type]


def _about(there: tuple[float, float], here: float, turn_deg: float, scale: float) -> NDArray[np.float64]:
    """[2 x 3] affine that turns and scales about (here, here), which goes to ``there``."""
    (x, y), u, v = there, here, here
    cos, sin = scale * np.cos(np.radians(turn_deg)), scale * np.sin(np.radians(turn_deg))
    return np.array([[cos, -sin, x - cos * u + sin * v], [sin, cos, y - sin * u - cos * v]])


def _compose(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """``outer`` after ``inner``, both [2 x 3]."""
    return np.hstack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2:] + outer[:, 2:]])


def _warp(
    image: NDArray[np.float32], valid: NDArray[np.bool_], source: NDArray[np.float64], side: int, scale: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A square image whose pixels lie at ``source`` in the given one, averaged where that is finer."""
    shift = source.copy()
    if scale > 1.1:
        size = (round(image.shape[2] / scale), round(image.shape[1] / scale))
        factor = np.array([image.shape[2] / size[0], image.shape[1] / size[1]])
        image = np.stack([cv2.resize(band, size, interpolation=cv2.INTER_AREA) for band in image])
        valid = cv2.resize(valid.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.9
        shift /= factor[:, None]
    shift[:, 2] += shift[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV counts from pixel centres
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP  # linear interpolation would take half of the speckle away
    bands = [cv2.warpAffine(band, shift, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE) for band in image]
    known = cv2.warpAffine(valid.astype(np.float32), shift, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.stack(bands).astype(np.float32), known > 0.9


def _optical_photometry(
    bands: NDArray[np.float32], valid: NDArray[np.bool_], rng: np.random.Generator, o: AugmentOptions
) -> NDArray[np.float32]:
    if rng.random() < o.mixed:
        if len(bands) == 1 or rng.random() < 0.3:  # one band, as a panchromatic map has
            weights = rng.dirichlet(np.ones(len(bands))).astype(np.float32)
            bands = np.tensordot(weights, bands, axes=1)[None].repeat(3, axis=0)
        else:
            mix = rng.normal(0, 0.35, (3, len(bands))) + np.eye(3, len(bands))[rng.permutation(3)]
            mix /= np.abs(mix).sum(axis=1, keepdims=True)
            bands = np.tensordot(mix.astype(np.float32), bands, axes=1)
        if rng.random() < o.inverted:
            bands = -bands
        low, high = (float(value) for value in np.percentile(bands[:, ::4, ::4], [1, 99]))
        bands = np.clip((bands - low) / max(high - low, 0.02), 0, 1)
        bands = bands ** float(np.exp(rng.uniform(-0.6, 0.6)))
    if rng.random() < o.convolved:
        bands = _convolved(bands, rng)
    if rng.random() < 0.2:
        bands = np.stack([cv2.GaussianBlur(band, (0, 0), float(rng.uniform(0.5, 1.2))) for band in bands])
    if rng.random() < 0.2 and len(bands) != 2:  # no picture has two
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 80))]
        picture = np.rint(np.clip(np.moveaxis(bands, 0, -1), 0, 1) * 255).astype(np.uint8)
        decoded = np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_UNCHANGED))
        bands = np.asarray(decoded.reshape(picture.shape).transpose(2, 0, 1) / 255, dtype=np.float32)
    if rng.random() < 0.2:
        noise = rng.standard_normal(bands.shape, np.float32) * np.float32(rng.uniform(0.005, 0.03))
        bands = np.asarray(bands + noise, dtype=np.float32)
    return np.asarray(bands * valid, dtype=np.float32)


def _convolved(bands: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Bands through one random filter, brought back to [0, 1]."""
    side = int(rng.choice((3, 5)))
    kernel = rng.normal(0, 1 / side, (side, side)).astype(np.float32)
    kernel[side // 2, side // 2] += np.float32(rng.choice((-1, 1)))  # some of the image itself is left
    filtered = np.stack([cv2.filter2D(band, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT) for band in bands])
    low, high = (float(value) for value in np.percentile(filtered[:, ::4, ::4], [1, 99]))
    return np.asarray(np.clip((filtered - low) / max(high - low, 0.02), 0, 1), dtype=np.float32)


def _blanked(valid: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Less one to three rectangles, each up to a third of the side."""
    valid, side = valid.copy(), valid.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        (row, col), (tall, wide) = rng.integers(side, size=2), rng.integers(side // 16, side // 3, size=2)
        valid[row : row + tall, col : col + wide] = False
    return valid


def _pseudo_sar(grey: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """An amplitude of median one that has the edges of an optical image, and its areas in an order of their own."""
    levels = np.linspace(0, 1, 6)
    tone = np.interp(grey, levels, rng.normal(0, 0.5, len(levels)))
    across, down = (cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    edges = np.hypot(across, down)
    log_amplitude = tone + rng.uniform(0, 1.5) * edges / max(float(edges.mean()), 1e-3) / 4
    looks = float(rng.uniform(1, 4))
    amplitude = np.exp(log_amplitude) * np.sqrt(rng.standard_gamma(looks, grey.shape) / looks)
    return np.asarray(amplitude / max(float(np.median(amplitude)), 1e-6), dtype=np.float32)


def _sar_photometry(
    sar: NDArray[np.float32], valid: NDArray[np.bool_], rng: np.random.Generator, o: AugmentOptions
) -> NDArray[np.float32]:
    """Disturbed SAR amplitudes as log amplitude: [P x H x W] -> [H x W]."""
    sar = np.maximum(sar, 0)
    if rng.random() < o.speckled:
        looks = float(rng.choice(o.looks))
        sar = sar * np.sqrt(rng.standard_gamma(looks, sar.shape, dtype=np.float32) / np.float32(looks))
    if rng.random() < 0.3:
        sar = sar ** np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    if rng.random() < 0.2:
        sar = np.stack([cv2.GaussianBlur(band, (0, 0), float(rng.uniform(0.5, 1.5))) for band in sar])
    if rng.random() < 0.2:
        sar = np.minimum(sar, float(rng.uniform(1.5, 4)))
    gain = np.float32(np.exp(rng.uniform(-0.4, 0.4)) / max(float(np.median(sar)), 1e-3))
    return log_of(list(sar * gain), valid)
