"""The answer to one query, and its GeoJSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import shapely
from affine import Affine
from pyproj import CRS
from shapely.geometry import Polygon

from geomatch.geo import to_crs84

Status = Literal["located", "ambiguous", "absent", "unusable"]
Accuracy = Literal["pixel", "cell"]


@dataclass(frozen=True)
class Candidate:
    """A place that was considered.

    Attributes:
        center: (x, y) of the strip's centre there, in the map's CRS.
        score: mean normalised correlation of the strip's features with the map's.
        probability: that the strip lies there; of the first it is the answer's confidence.
    """

    center: tuple[float, float]
    score: float
    probability: float = 0.0


@dataclass(frozen=True)
class TiePoint:
    """Where one point of a strip lies.

    Attributes:
        col, row: in the SAR file, corner convention.
        x, y: in the map's CRS.
    """

    col: float
    row: float
    x: float
    y: float


@dataclass(frozen=True)
class Evidence:
    """Why the answer is what it is.

    Attributes:
        candidates: the answer, then the likeliest others, at most five in all; the second is the runner-up.
        likely_places: how many places hold 95 % of the probability that the strip is on the map; 1 for a clear answer.
        likely_within_m: how far from the answer the farthest of these places lies.
        peak: correlation of the best place's features.
        peak_ratio: that over the best of the other places', within [1/7.4, 7.4]; 1 is a tie, and below 1 the pixels
            chose another place than the features.
        fine_peak: correlation of the pixels there, or None when the map's pixels were not looked at.
        windows: windows of the strip that were compared.
        inliers: windows whose own best place agrees with the answer.
        heading_deg: where the strip's up points at the best place, clockwise from true north, or None without a place.
        gsd_m: metres per pixel of the strip on the ground there, or None without a place.
        mirrored: whether the strip shows the ground's mirror image there, or None without a place.
        accuracy: "pixel" when the place was fixed on the map's pixels, "cell" when on the index's features alone.
        tie_points: where points along a strip lie that sways, so that ``transform`` is only the nearest to it; none of
            a strip that lies straight.
        seconds: wall time per stage.
        notes: what the user should know, sentences.
    """

    candidates: tuple[Candidate, ...] = ()
    likely_places: int = 0
    likely_within_m: float = 0.0
    peak: float = 0.0
    peak_ratio: float = 1.0
    fine_peak: float | None = None
    windows: int = 0
    inliers: int = 0
    accuracy: Accuracy = "cell"
    heading_deg: float | None = None
    gsd_m: float | None = None
    mirrored: bool | None = None
    tie_points: tuple[TiePoint, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Location:
    """Where a strip was taken.

    Attributes:
        status: "located"; "ambiguous", when the best place is doubtful, as where several look alike; "absent", when
            none fits; "unusable", when the strip shows nothing to match.
        crs: of ``transform``, ``footprint`` and ``center``: an authority's code, or WKT where there is none.
        transform: six numbers a, b, c, d, e, f of pixel (column, row) of the SAR file -> x = a col + b row + c,
            y = d col + e row + f, corner convention; None unless located or ambiguous.
        footprint: outline of the SAR image, or None.
        center: (x, y) of its centre, or None.
        error_radius_m: the true centre is within it with 95 % probability, if the place is right at all; metres on the
            ground, or None.
        confidence: probability that the place is right, in [0, 1].
        evidence: see its type.
    """

    status: Status
    crs: str
    transform: tuple[float, float, float, float, float, float] | None = None
    footprint: Polygon | None = None
    center: tuple[float, float] | None = None
    error_radius_m: float | None = None
    confidence: float = 0.0
    evidence: Evidence = field(default_factory=Evidence)

    def __post_init__(self) -> None:
        placed = (self.transform, self.footprint, self.center, self.error_radius_m)
        has_place = self.status in ("located", "ambiguous")
        if any((part is not None) != has_place for part in placed):
            raise ValueError(f"a Location that is {self.status} {'needs' if has_place else 'has no'} place")
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence {self.confidence} is outside [0, 1]")

    @property
    def affine(self) -> Affine | None:
        """``transform`` as an Affine, SAR pixel -> map CRS."""
        return None if self.transform is None else Affine(*self.transform)

    def properties(self) -> dict[str, Any]:
        """All but the footprint, JSON-able."""
        values = asdict(self)
        del values["footprint"]
        return values

    def to_feature(self, file: str) -> dict[str, Any]:
        """An RFC 7946 Feature: the footprint in CRS84, this Location as properties, and the file that it answers."""
        outline = None if self.footprint is None else to_crs84(self.footprint, CRS.from_user_input(self.crs))
        geometry = None if outline is None else shapely.geometry.mapping(outline)
        return {"type": "Feature", "geometry": geometry, "properties": {"file": file, **self.properties()}}


def crs_name(crs: CRS) -> str:
    """The authority's code of a CRS like ``EPSG:32611``, or its WKT where it has none."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_wkt())
