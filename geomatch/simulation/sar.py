"""The city as an imaging radar sees it: layover, shadow, double bounce and speckle, on ground range.

Geometry. The radar is far away, so that its rays are parallel at the incidence angle theta. Along one azimuth line, a
point at ground distance x and height h has slant range x sin(theta) - h cos(theta), which a flat-earth processor puts
at ground range x - h / tan(theta): heights lie over towards the sensor. A ray is the line of constant x cos(theta) + h
sin(theta), so a point is in shadow where that level was exceeded nearer to the sensor. This is the forward model of
Brunner, Lemoine, Bruzzone and Greidanus, "Building height retrieval from VHR SAR imagery based on an iterative
simulation and matching technique" (2010).

Radiometry. Each lit patch of surface returns its sigma0 times its area, a wall its gamma times the area it shows, into
the ground-range bin it falls in; what falls into one bin adds up. The foot of a lit wall returns, in addition, the
ground-wall double bounce: proportional to h tan(theta) cos(phi) (1 + tan^2(theta) sin^2(phi)) exp(-tan^2(theta)
sin^2(phi) / (2 s^2)) for a wall whose normal is turned by phi against the look, after the geometrical optics of
Franceschetti, Iodice and Riccio, "A canonical problem in electromagnetic backscattering from buildings" (2002), with s
the rms slope of the ground.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.simulation.backscatter import Scene, returns
from geomatch.simulation.relief import Array

CHUNK_LINES = 128
OVERSAMPLING = 2  # per map pixel in range and azimuth: the nearest is then never more than a quarter of a pixel away
LOBE_PX = 10
RESOLUTION_PX = 1.25


class Look(Enum):
    """The side of the flight direction to which the radar looks."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class Radar:
    """An imaging radar.

    Attributes:
        incidence_deg: angle between the rays and the vertical.
        look: side of the heading that is imaged.
        looks: equivalent number of looks, the shape of the speckle's gamma distribution; ``inf`` is without speckle.
        noise_db: noise-equivalent sigma0, in dB.
    """

    incidence_deg: float = 40.0
    look: Look = Look.RIGHT
    looks: float = 3.0
    noise_db: float = -23.0

    def __post_init__(self) -> None:
        if not 15.0 <= self.incidence_deg <= 75.0:
            raise UsageError(
                f"an incidence of {self.incidence_deg} degrees is not modelled",
                where="incidence_deg",
                hint="choose 15 to 75",
            )
        if not self.looks > 0:
            raise UsageError("the number of looks must be positive", where="looks", hint="1 is the strongest speckle")


@dataclass(frozen=True)
class Frame:
    """Where a SAR image lies: pixel corner (col, row) to map CRS, and size in pixels. Rows run against the heading."""

    transform: Affine
    width: int
    height: int

    @classmethod
    def centred(cls, centre: tuple[float, float], heading_deg: float, gsd_m: float, width: int, height: int) -> Frame:
        """Return the frame around a centre in the map's CRS whose up is ``heading_deg`` clockwise from grid north."""
        turn = Affine.translation(*centre) @ Affine.rotation(-heading_deg) @ Affine.scale(gsd_m, -gsd_m)
        return cls(turn @ Affine.translation(-width / 2, -height / 2), width, height)

    @property
    def gsd_m(self) -> float:
        """Ground sample distance in metres, the same along and across."""
        return float(np.hypot(self.transform.a, self.transform.d))

    @property
    def heading_deg(self) -> float:
        """Direction of the image's up, degrees clockwise from grid north, in [0, 360)."""
        return float(np.rad2deg(np.arctan2(-self.transform.b, -self.transform.e)) % 360.0)

    @property
    def centre(self) -> tuple[float, float]:
        """The centre in the map's CRS."""
        x, y = self.transform @ (self.width / 2, self.height / 2)
        return float(x), float(y)


def render_sar(
    scene: Scene, frame: Frame, radar: Radar, rng: np.random.Generator, sway_px: NDArray[np.float64] | None = None
) -> Array:
    """Return the radar image of a frame, linear power (sigma0), [height, width] float32.

    Only the frame and what can lay over or cast shadow into it is rendered. Rows are azimuth lines; columns run away
    from a right-looking radar and towards a left-looking one. ``sway_px`` [height x 2] is how far each row shows what
    lies across and along the flight from its place in the frame.
    """
    if sway_px is None:
        return speckled(_image(scene, frame, radar), radar, rng)
    margin = int(np.ceil(np.abs(sway_px).max())) + 2
    place = frame.transform @ Affine.translation(-margin, -margin)
    steady = _image(scene, Frame(place, frame.width + 2 * margin, frame.height + 2 * margin), radar)
    cols = np.arange(frame.width) + margin + sway_px[:, :1]
    rows = np.broadcast_to(np.arange(frame.height)[:, None] + margin + sway_px[:, 1:], cols.shape)
    swayed = cv2.remap(steady, cols.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)
    return speckled(np.asarray(swayed, np.float32), radar, rng)


def render_north_up(
    scene: Scene,
    transform: Affine,
    shape: tuple[int, int],
    radar: Radar,
    rng: np.random.Generator,
    *,
    heading_deg: float,
) -> Array:
    """Return a scene flown at a heading but gridded north up on ``transform`` and ``shape``, linear power, float32.

    The scene is rendered in the radar's own frame, where range runs along rows, and resampled before the speckle.
    """
    rows, cols = shape
    sine, cosine = (abs(float(f(np.deg2rad(heading_deg)))) for f in (np.sin, np.cos))
    width, height = int(np.ceil(cols * cosine + rows * sine)), int(np.ceil(cols * sine + rows * cosine))
    centre = transform @ (cols / 2, rows / 2)
    frame = Frame.centred((float(centre[0]), float(centre[1])), heading_deg, float(transform.a), width, height)
    matrix = pixel_matrix(~frame.transform @ transform)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    gridded = cv2.warpAffine(
        _image(scene, frame, radar), matrix, (cols, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return speckled(np.asarray(gridded, np.float32), radar, rng)


def pixel_matrix(between: Affine) -> NDArray[np.float64]:
    """Return the 2 x 3 matrix between pixel centres, as OpenCV counts, of a transform between pixel corners."""
    shifted = Affine.translation(-0.5, -0.5) @ between @ Affine.translation(0.5, 0.5)
    return np.array([[shifted.a, shifted.b, shifted.c], [shifted.d, shifted.e, shifted.f]])


def speckled(power: Array, radar: Radar, rng: np.random.Generator) -> Array:
    """Return the power plus the noise floor, times gamma speckle of shape ``looks`` and mean 1 (Goodman, 1976)."""
    noisy = power + np.float32(10.0 ** (radar.noise_db / 10.0))
    if np.isinf(radar.looks):
        return noisy
    speckle = rng.standard_gamma(radar.looks, power.shape, np.float32)
    return np.asarray(noisy * speckle / np.float32(radar.looks), np.float32)


def _image(scene: Scene, frame: Frame, radar: Radar) -> Array:
    """Return the image [height, width] of a frame, without noise and speckle."""
    power = np.concatenate(list(_lines(scene, frame, radar)))
    return _focus(power[:, ::-1] if radar.look is Look.LEFT else power)


def _lines(scene: Scene, frame: Frame, radar: Radar) -> Iterator[Array]:
    """Yield blocks [lines, width] of the noise-free image in the order of range, near to far."""
    tangent = float(np.tan(np.deg2rad(radar.incidence_deg)))
    near = int(np.ceil(scene.tallest_m * tangent / frame.gsd_m)) + 2  # what can shade the first column
    far = int(np.ceil(scene.tallest_m / tangent / frame.gsd_m)) + 2  # what can lie over the last column
    finer = OVERSAMPLING * max(round(frame.gsd_m / scene.gsd_m), 1)
    mirror = Affine.identity()
    if radar.look is Look.LEFT:
        mirror = Affine.translation(frame.width, 0) @ Affine.scale(-1, 1)
    to_scene = ~scene.transform @ frame.transform @ mirror @ Affine.translation(-near, 0)
    samples = (frame.width + near + far) * finer
    for first in range(0, frame.height, CHUNK_LINES):
        count = min(CHUNK_LINES, frame.height - first)
        sampling = to_scene @ Affine.translation(0, first) @ Affine.scale(1 / finer, 1 / finer)
        lines = scene.sample(pixel_matrix(sampling), (samples, count * finer))
        bins = returns(lines, np.deg2rad(radar.incidence_deg), frame.gsd_m, finer)
        yield bins.reshape(count, finer, -1).mean(axis=1)[:, near : near + frame.width]


def _focus(power: Array) -> Array:
    """Spread power by the impulse response: a squared sinc in range and azimuth, which crosses bright corners."""
    offset = np.arange(-LOBE_PX, LOBE_PX + 1) / RESOLUTION_PX
    taper = 0.54 + 0.46 * np.cos(np.pi * np.arange(-LOBE_PX, LOBE_PX + 1) / LOBE_PX)
    kernel = np.sinc(offset) ** 2 * taper
    kernel /= kernel.sum()
    return np.asarray(cv2.sepFilter2D(power, cv2.CV_32F, kernel, kernel), np.float32)
