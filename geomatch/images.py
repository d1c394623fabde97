"""Radiometry in one place: what a raster's numbers mean, and how they become the images that everything else works on.

The same functions serve the index, the query and the training, so that the three see the same thing. Optical bands
are stretched between percentiles; SAR becomes the logarithm of amplitude over its median, in which speckle is additive
and a change of calibration disappears.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geomatch.errors import IndexFormatError, InputError, UsageError
from geomatch.imagery import Orthomosaic
from geomatch.raster import Patch, Raster

FIT_SIZE_PX = 1024
FIT_LEAST_PX = 10_000
FIT_DECODED_PX = 1 << 24  # of a file without overviews: more would take a tenth of the time of a build
COLOR_BANDS = 3
_LOOKED_UP = (np.dtype(np.uint8), np.dtype(np.uint16))  # kinds of so few values that a table of all is quicker

# 99th percentile over median. One-look speckle alone gives 6.6 in power and 2.6 in amplitude; where the brightest
# hundredth is 13 to 16 dB above the middle, as in a city, it is 20 to 40 in power and 4.5 to 6.3 in amplitude.
POWER_TAIL = 10.0
DB_RANGE = 150.0  # beyond any sensor; keeps a fill value that was not declared from overflowing
DEFAULT_FLOOR = 0.1
DARK_BORDER_PX = 9
LOOKS_PX = 3
PICTURE_WHITE = 3.0  # amplitude over its median that is drawn white

_AMPLITUDE: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "power": lambda data: np.sqrt(np.maximum(data, 0)),
    "amplitude": lambda data: np.maximum(data, 0),
    "db": lambda data: np.power(10.0, np.clip(data, -DB_RANGE, DB_RANGE) / 20),
    "complex": np.abs,
}


@dataclass(frozen=True)
class OpticalStretch:
    """Linear stretch of optical bands between percentiles of the whole raster.

    Attributes:
        bands: 1-based numbers of the bands used.
        low: per band, the value that becomes 0.
        high: per band, the value that becomes 1; where it equals ``low`` the band is drawn as 0.5.
    """

    bands: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def fit(
        cls,
        raster: Orthomosaic,
        *,
        bands: Sequence[int] | None = None,
        low_percent: float = 1.0,
        high_percent: float = 99.0,
    ) -> OpticalStretch:
        """The stretch of a map, from valid pixels spread over it, at most 1024 along its longer side.

        Args:
            raster: optical image.
            bands: 1-based; default the first three data bands, or all where there are fewer.
            low_percent: percentile that becomes 0.
            high_percent: percentile that becomes 1.

        Raises:
            InputError: no valid pixel, or complex numbers.
            UsageError: no such band.
        """
        if np.issubdtype(raster.dtype, np.complexfloating):
            raise InputError("complex numbers are no optical image", where=raster.name, hint="pass it as the SAR image")
        chosen = tuple(raster.data_bands[:COLOR_BANDS] if bands is None else bands)
        values = _valid_values(raster, chosen)
        low, high = np.percentile(values, [low_percent, high_percent], axis=1).tolist()
        return cls(chosen, tuple(low), tuple(high))

    def grey(self, patch: Patch) -> NDArray[np.float32]:
        """Mean of the stretched bands: [H x W] in [0, 1]; invalid pixels are 0.

        Args:
            patch: read with ``bands`` of this stretch.
        """
        return np.asarray(self.bands_of(patch).mean(axis=0), dtype=np.float32)

    def bands_of(self, patch: Patch) -> NDArray[np.float32]:
        """The stretched bands: [B x H x W] in [0, 1]; invalid pixels are 0.

        Args:
            patch: read with ``bands`` of this stretch.
        """
        planes = np.asarray(self._stretched(patch), dtype=np.float32)
        return planes if patch.valid.all() else planes * patch.valid

    def rgb(self, patch: Patch) -> NDArray[np.uint8]:
        """The stretched bands as a picture: [H x W x 3]; grey unless there are three bands, invalid pixels black."""
        planes = self._stretched(patch)
        if len(planes) != COLOR_BANDS:
            planes = np.repeat(planes.mean(axis=0, keepdims=True), COLOR_BANDS, axis=0)
        return _as_bytes(np.moveaxis(planes, 0, -1) * patch.valid[..., None])

    def to_dict(self) -> dict[str, list[float]]:
        """JSON-able; ``from_dict`` gives back exactly this stretch."""
        return {"bands": list(self.bands), "low": list(self.low), "high": list(self.high)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OpticalStretch:
        """The stretch that ``to_dict`` wrote.

        Raises:
            IndexFormatError: something is missing or of another kind.
        """
        try:
            bands = tuple(int(band) for band in values["bands"])
            low, high = (tuple(float(value) for value in values[key]) for key in ("low", "high"))
        except (KeyError, TypeError, ValueError) as error:
            raise IndexFormatError(f"damaged optical stretch ({error!r})", hint="build the index again") from error
        if not len(bands) == len(low) == len(high) > 0:
            raise IndexFormatError("damaged optical stretch (lengths differ)", hint="build the index again")
        return cls(bands, low, high)

    def _stretched(self, patch: Patch) -> NDArray[Any]:
        """The bands in [0, 1], whatever the invalid pixels of them come to."""
        _check_bands(patch, self.bands)
        kind = patch.data.dtype
        if kind not in _LOOKED_UP or patch.valid.size < np.iinfo(kind).max:
            low = np.array(self.low, dtype=np.result_type(kind, np.float32))[:, None, None]
            return self._unit(np.where(patch.valid, patch.data, low))
        every = np.arange(np.iinfo(kind).max + 1, dtype=kind)
        tables = self._unit(np.broadcast_to(every, (len(self.bands), 1, len(every))))
        return np.stack([_looked_up(table[0], band) for table, band in zip(tables, patch.data, strict=True)])

    def _unit(self, data: NDArray[Any]) -> NDArray[Any]:
        """Values [B x H x W] in [0, 1]."""
        dtype = np.result_type(data.dtype, np.float32)
        low = np.array(self.low, dtype=dtype)[:, None, None]
        span = np.array(self.high, dtype=dtype)[:, None, None] - low
        unit = np.clip((data - low) / np.where(span > 0, span, 1), 0, 1)
        return np.asarray(np.where(span > 0, unit, dtype.type(0.5)))


@dataclass(frozen=True)
class SarRadiometry:
    """How the numbers of a SAR raster become log amplitudes.

    Attributes:
        kind: "power", "amplitude", "db" or "complex".
        bands: 1-based numbers of the bands used, for example the polarisations.
        reference: per band, the median amplitude of its valid pixels above zero; results are relative to it.
        message: one sentence: how the file was understood, and how to override it.
    """

    kind: str
    bands: tuple[int, ...]
    reference: tuple[float, ...]
    message: str

    @classmethod
    def detect(cls, raster: Raster, kind: str = "auto", bands: Sequence[int] | None = None) -> SarRadiometry:
        """How to read a SAR raster, from the valid pixels of its overview of at most 1024 px.

        Complex numbers are complex. Real ones of which most are below zero are dB. Integers are amplitude, as the
        digital numbers of ground range products are. Floats are power where the 99th percentile is more than
        10 times the median, else amplitude; taking one for the other only doubles or halves the contrast of the
        logarithm, so an error costs little. No rule depends on the scale of linear data.

        Args:
            raster: SAR image.
            kind: "auto" or what the file holds.
            bands: 1-based, default all data bands.

        Raises:
            InputError: no valid pixel, or a band without any backscatter.
            UsageError: an unknown kind, one that contradicts the file's type, or no such band.
        """
        chosen = tuple(raster.data_bands if bands is None else bands)
        if kind not in ("auto", *_AMPLITUDE):
            raise UsageError(f"unknown SAR kind {kind!r}", hint=f"choose auto, {', '.join(_AMPLITUDE)}")
        is_complex = np.issubdtype(raster.dtype, np.complexfloating)
        if kind != "auto" and is_complex != (kind == "complex"):
            raise UsageError(f"SAR kind {kind!r} does not suit {raster.dtype} data", where=raster.path)
        values = _valid_values(raster, chosen)
        found, why = _sar_kind(values) if kind == "auto" else (kind, "as told")
        amplitude = _AMPLITUDE[found](_as_float(values))
        if found == "db" and abs(float(np.median(values))) > DB_RANGE:
            raise InputError(
                f"{float(np.median(values)):.4g} dB are not possible",
                where=raster.path,
                hint="divide the values first, they look like hundredths: gdal_translate -ot Float32 -scale",
            )
        lit = [band[band > 0] for band in amplitude]
        if not all(band.size for band in lit):
            dark = [number for number, band in zip(chosen, lit, strict=True) if not band.size]
            raise InputError(f"no backscatter in band(s) {dark}", where=raster.path, hint="choose other bands")
        reference = tuple(float(np.median(band)) for band in lit)
        message = f"{raster.path.name}: {raster.dtype} read as {found} ({why}); override with kind=" + "|".join(
            _AMPLITUDE
        )
        return cls(found, chosen, reference, message)

    def relative_to(self, patch: Patch) -> SarRadiometry:
        """The same, relative to the medians of a patch, as if it were a file of its own; itself where that is dark."""
        _check_bands(patch, self.bands)
        lit = [band[band > 0] for band in _AMPLITUDE[self.kind](_as_float(patch.data[:, patch.valid]))]
        if not all(band.size for band in lit):
            return self
        return replace(self, reference=tuple(float(np.median(band)) for band in lit))

    def lit(self, patch: Patch) -> NDArray[np.bool_]:
        """Where a patch holds data, taking wide areas of exact zeros for the borders of a swath: [H x W].

        Ground range products fill what lies outside the swath with zeros and often declare no nodata value; inside it
        a zero stands alone. An area is wide from DARK_BORDER_PX × DARK_BORDER_PX px on. dB have no such value.
        """
        _check_bands(patch, self.bands)
        if self.kind == "db" or not (dark := (patch.data == 0).all(axis=0)).any():
            return patch.valid
        square = np.ones((DARK_BORDER_PX, DARK_BORDER_PX), np.uint8)
        wide = cv2.morphologyEx(dark.astype(np.uint8), cv2.MORPH_OPEN, square) > 0
        return np.asarray(patch.valid & ~wide)

    def log_amplitude(self, patch: Patch, *, floor: float = DEFAULT_FLOOR) -> NDArray[np.float32]:
        """Mean over the bands of ln(amplitude / reference + floor): [H x W]; invalid pixels get the median's value.

        The amplitude is that of the mean power of 3 × 3 px (``multilook``).

        Args:
            patch: read with ``bands`` of this radiometry.
            floor: added to the relative amplitude, so that black is ln(floor) and not minus infinity.
        """
        return log_of(self.relative(patch), patch.valid, floor=floor)

    def speckled(self, patch: Patch, looks: float, rng: np.random.Generator) -> Patch:
        """With gamma speckle of so many looks multiplied into the power, independent from pixel to pixel."""
        power = rng.gamma(looks, 1 / looks, patch.data.shape).astype(np.float32)
        if self.kind == "db":
            return Patch(patch.data + 10 * np.log10(np.maximum(power, np.finfo(np.float32).tiny)), patch.valid)
        data = _as_float(patch.data)
        return Patch(data * (power if self.kind == "power" else np.sqrt(power)), patch.valid)

    def picture(self, patch: Patch) -> NDArray[np.uint8]:
        """Amplitude for the eye: [H x W], three times the median is white, invalid pixels are black."""
        brightness = np.mean(self.relative(patch), axis=0) / PICTURE_WHITE
        return _as_bytes(np.where(patch.valid, brightness, 0))

    def relative(self, patch: Patch) -> list[NDArray[Any]]:
        """Amplitude over its reference, per band [H x W]; zero where invalid.

        Args:
            patch: read with ``bands`` of this radiometry.
        """
        _check_bands(patch, self.bands)
        amplitudes = _AMPLITUDE[self.kind](_as_float(np.where(patch.valid, patch.data, 0)))
        return [
            np.where(patch.valid, amplitude / reference, 0)
            for amplitude, reference in zip(amplitudes, self.reference, strict=True)
        ]


def log_of(
    amplitudes: Sequence[NDArray[Any]], valid: NDArray[np.bool_], *, floor: float = DEFAULT_FLOOR
) -> NDArray[np.float32]:
    """Mean over bands of ln(multilooked amplitude + floor): [H x W]; invalid pixels get the median's value.

    Args:
        amplitudes: per band [H x W], relative to its median.
        valid: [H x W].
        floor: as ``SarRadiometry.log_amplitude`` takes it.
    """
    looks = [multilook(amplitude, valid) for amplitude in amplitudes]
    logs = np.log(np.stack(looks) + np.float32(floor)).mean(axis=0, dtype=np.float32)
    return np.where(valid, logs, np.float32(np.log1p(floor)))


def multilook(amplitude: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Amplitude of the mean power of the valid pixels among 3 × 3: [H x W]; zero where there is none.

    Incoherent averaging, as in Lee & Pottier 2009, "Polarimetric Radar Imaging", section 4.2, at the full grid. It has
    to come before the logarithm, whose mean a few dark pixels pull down: ``benchmarks/speckle.py`` compares filters.
    """
    side = (LOOKS_PX, LOOKS_PX)
    weight = valid.astype(np.float32)
    power = np.square(np.where(valid, amplitude, 0), dtype=np.float32)
    share = cv2.blur(weight, side, borderType=cv2.BORDER_REFLECT_101)
    mean = cv2.blur(power, side, borderType=cv2.BORDER_REFLECT_101) / np.maximum(share, np.float32(1e-6))
    return np.asarray(np.sqrt(np.maximum(mean, 0)), dtype=np.float32)


def _sar_kind(values: NDArray[Any]) -> tuple[str, str]:
    """What SAR values [B x N] are, and why, by the rules that ``SarRadiometry.detect`` lists."""
    if np.issubdtype(values.dtype, np.complexfloating):
        return "complex", "complex numbers"
    negative = float((values < 0).mean())
    if negative > 0.5:
        return "db", f"{negative:.0%} of the values are below zero"
    if np.issubdtype(values.dtype, np.integer):
        return "amplitude", "integers"
    # Band by band, since polarisations may be scaled differently; zeros are fill more often than they are dark.
    quantiles = [np.percentile(band[band > 0], [50, 99]) for band in values if (band > 0).any()]
    tail = float(np.median([top / median for median, top in quantiles])) if quantiles else 1.0
    kind = "power" if tail > POWER_TAIL else "amplitude"
    return kind, f"the 99th percentile is {tail:.1f} times the median, {POWER_TAIL:g} divides the two"


def _valid_values(raster: Orthomosaic, bands: tuple[int, ...]) -> NDArray[Any]:
    """Values of valid pixels spread over an image: [B x N], N at least 1."""
    values = raster.sample(FIT_SIZE_PX, bands=bands, least=FIT_LEAST_PX, most_px=FIT_DECODED_PX)
    if not values.shape[1]:
        raise InputError("no valid pixel", where=raster.name, hint="check the nodata value and the mask with gdalinfo")
    return values


def _check_bands(patch: Patch, bands: tuple[int, ...]) -> None:
    if len(patch.data) != len(bands):
        raise UsageError(f"a patch of {len(patch.data)} bands where bands {list(bands)} are needed")


def _looked_up(table: NDArray[np.float32], band: NDArray[Any]) -> NDArray[np.float32]:
    """The table's value for each of a band's; OpenCV, eight times as fast, has it for bytes alone."""
    return np.asarray(cv2.LUT(band, table) if band.dtype == np.uint8 else table.take(band), np.float32)


def _as_float(data: NDArray[Any]) -> NDArray[Any]:
    """Wide enough for the square root and the logarithm: 16-bit integers as float32, wider ones as float64."""
    return data.astype(np.result_type(data.dtype, np.float32), copy=False)


def _as_bytes(unit: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(unit, 0, 1) * 255), dtype=np.uint8)
