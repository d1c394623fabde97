"""Strips: what a drone's radar brings home from one straight flight, and where it truly was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.simulation.city import City
from geomatch.simulation.sar import Frame

TRIES = 64
MAX_SWAY_PERCENT = 10.0
SWAY_WAVES = 3  # of periods between half a strip and two of them


@dataclass(frozen=True)
class Flight:
    """What strips look like: width across and length along the flight in pixels, and ground sample distance.

    ``gsd_m`` None is the map's. ``heading_deg`` None draws a heading for each strip; otherwise it is clockwise from
    grid north. ``sway_percent`` is how far the speed over ground and the direction of flight stray, slowly, from what
    the strip was processed for.
    """

    width_px: int = 300
    length_px: int = 1000
    gsd_m: float | None = None
    heading_deg: float | None = None
    sway_percent: float = 0.0

    def __post_init__(self) -> None:
        if self.width_px < 32 or self.length_px < 32:
            raise UsageError(
                f"a strip of {self.width_px} x {self.length_px} px is too small",
                where="strip size",
                hint="take 32 px or more",
            )
        if not 0 <= self.sway_percent <= MAX_SWAY_PERCENT:
            hint = f"choose 0 to {MAX_SWAY_PERCENT:g}"
            raise UsageError(f"a sway of {self.sway_percent:g} % is not modelled", where="sway", hint=hint)
        if self.gsd_m is not None and not self.gsd_m > 0:
            raise UsageError("the ground sample distance must be positive", where="strip gsd_m")


def draw_frame(city: City, flight: Flight, rng: np.random.Generator) -> Frame:
    """Return the frame of a strip at a random place and heading, with all four corners on the map.

    Raises:
        UsageError: when the strip fits at no heading that was tried.
    """
    gsd_m = flight.gsd_m or city.gsd_m
    half = 0.5 * gsd_m * np.array([flight.width_px, flight.length_px])
    rows, cols = city.shape
    for _ in range(TRIES if flight.heading_deg is None else 1):
        heading = float(rng.uniform(0.0, 360.0)) if flight.heading_deg is None else flight.heading_deg
        sine, cosine = abs(np.sin(np.deg2rad(heading))), abs(np.cos(np.deg2rad(heading)))
        reach = np.array([cosine * half[0] + sine * half[1], sine * half[0] + cosine * half[1]])
        room = np.array([cols, rows]) * city.gsd_m - 2 * reach
        if (room >= 0).all():
            east, south = (reach + rng.uniform(0.0, 1.0, 2) * room).tolist()
            centre = (city.transform.c + east, city.transform.f - south)
            return Frame.centred(centre, heading, gsd_m, flight.width_px, flight.length_px)
    raise UsageError(
        f"a strip of {flight.width_px} x {flight.length_px} px at {gsd_m:g} m does not fit on a map of "
        f"{cols * city.gsd_m:g} x {rows * city.gsd_m:g} m",
        where="strip size",
        hint="make the strip shorter or the city larger",
    )


def draw_sway(flight: Flight, rng: np.random.Generator) -> NDArray[np.float64]:
    """How far each row of a strip lies from where its frame says: [rows x 2] pixels across and along the flight.

    The slopes of both are sums of slow waves of which the largest is ``sway_percent``; the middle row lies right.
    """
    rows = np.arange(flight.length_px)
    periods = flight.length_px * rng.uniform(0.5, 2.0, (2, SWAY_WAVES, 1))
    waves = np.sin(2 * np.pi * (rows / periods + rng.uniform(0, 1, (2, SWAY_WAVES, 1))))
    slopes = (rng.uniform(0.3, 1.0, (2, SWAY_WAVES, 1)) * waves).sum(axis=1)
    slopes *= flight.sway_percent / 100 / np.abs(slopes).max(axis=1, keepdims=True)
    offsets = slopes.cumsum(axis=1)
    return np.asarray((offsets - offsets[:, [flight.length_px // 2]]).T)
