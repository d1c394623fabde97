"""A town as an optical map, and radar views of it through transforms made by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from drawing import write_tiff
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from geomatch.location import Location
from geomatch.simulation import make_city, render_optical

UTM33 = "EPSG:32633"
PLACE = Affine(0.5, 0.0, 595_000.0, 0.0, -0.5, 5_333_000.0)


def optical(size_px: int = 768, seed: int = 3) -> NDArray[np.uint8]:
    """[3 x size_px x size_px] bands of a town from above."""
    return np.ascontiguousarray(np.moveaxis(render_optical(make_city(size_px, seed=seed)), -1, 0))


def radar_at(bands: NDArray[np.uint8], colrow: NDArray[np.float64], *, looks: float = 4, seed: int = 0) -> NDArray[Any]:
    """Amplitude at places of the map: [H x W x 2] (column, row), corner convention -> [H x W] float32.

    Edges are where the map's are, but bright and dark are turned over and bent, and there is speckle.
    """
    grey = gaussian_filter(bands.mean(axis=0) / 255, 0.7)
    seen = map_coordinates(grey, [colrow[..., 1] - 0.5, colrow[..., 0] - 0.5], order=1, mode="reflect")
    power = 0.02 + np.abs(0.62 - seen) ** 1.5
    speckle = np.random.default_rng(seed).gamma(looks, 1 / looks, power.shape)
    return np.sqrt(power * speckle).astype("float32")


def pixel_centres(width: int, height: int) -> NDArray[np.float64]:
    """[height x width x 2] (column, row) of the centres of an image's pixels."""
    return np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)


def moved(transform: Affine, points: ArrayLike) -> NDArray[np.float64]:
    """[... x 2] points through an affine transform, written out."""
    x, y = np.moveaxis(np.asarray(points, dtype=float), -1, 0)
    a, b, c, d, e, f = tuple(transform)[:6]
    return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)


def corners(width: int, height: int) -> NDArray[np.float64]:
    """[4 x 2] outer corners of an image."""
    return np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])


def view(centre_px: tuple[float, float], turn_deg: float, scale: float, width: int, height: int) -> Affine:
    """Strip pixel -> map pixel: its centre at ``centre_px``, turned clockwise, its pixels ``scale`` wide."""
    turned = Affine.translation(*centre_px) @ Affine.rotation(turn_deg) @ Affine.scale(scale)
    return turned @ Affine.translation(-width / 2, -height / 2)


@dataclass(frozen=True)
class Town:
    """A map on disk, and its pixels.

    Attributes:
        bands: [3 x H x W].
        path: the orthomosaic.
        transform, crs: its georeference.
    """

    bands: NDArray[np.uint8]
    path: Path
    transform: Affine = PLACE
    crs: str = UTM33

    def write_strip(
        self,
        path: Path,
        to_map: Affine,
        size: tuple[int, int],
        *,
        drift: tuple[float, float] = (700.0, -1300.0),
        located: bool = True,
        looks: float = 4,
        **profile: Any,
    ) -> Affine:
        """Write a strip that claims to lie ``drift`` map units off; returns its true transform, strip pixel -> CRS."""
        truth = self.transform @ to_map
        pixels = radar_at(self.bands, moved(to_map, pixel_centres(*size)), looks=looks)
        place = Affine.translation(*drift) @ truth if located else None
        write_tiff(path, pixels, transform=place, crs=self.crs if located else None, **profile)
        return truth


def write_town(path: Path, bands: NDArray[np.uint8], transform: Affine = PLACE, crs: str = UTM33, **more: Any) -> Town:
    """Write a map of these bands."""
    options: dict[str, Any] = {"photometric": "RGB", "tiled": True, "blockxsize": 256, "blockysize": 256} | more
    return Town(bands, write_tiff(path, bands, transform=transform, crs=crs, **options), transform, crs)


def off_px(location: Location, town: Town, truth: Affine, size: tuple[int, int]) -> float:
    """Largest error of the strip's corners and centre, pixels of the map."""
    assert location.transform is not None
    points = np.vstack([corners(*size), [np.array(size) / 2]])
    found = moved(Affine(*location.transform), points)
    error = moved(~town.transform, found) - moved(~town.transform, moved(truth, points))
    return float(np.hypot(*error.T).max())
