"""From the best places to the Location that the user gets: how sure, where exactly, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.polygon import orient

from geomatch.confidence import TYPICAL_CELLS, Signs, error_radius_px, model_of, probability, status_of
from geomatch.correlate import around
from geomatch.fusion import Poses, Window
from geomatch.geo import Grid, apply_affine, footprint, ground_jacobian, ground_resolution_m, six
from geomatch.location import Accuracy, Candidate, Evidence, Location, Status, TiePoint, crs_name
from geomatch.posterior import lead, needed, shares, standings
from geomatch.refine import Refined
from geomatch.strips import Strip
from geomatch.sway import Sway
from geomatch.tile_index import TileIndex

SHOWN_CANDIDATES = 5
MIN_SPREAD = 0.05  # of the best score: few other places tell little of their spread
LEAST_SCORE, MAX_RATIO = 1e-3, float(np.exp(2))  # of the peak ratio, which is told and decides nothing
INLIER_CELLS = 1.5
SWAYS = "it sways along its track: evidence.tie_points say where its parts lie, the transform is the nearest to them"
_LOOK_AROUND_CELLS = 5


@dataclass(frozen=True)
class Judged:
    """The best place, the others, and what speaks for it.

    Attributes:
        places: after correlation, the chosen one first.
        refined: what the pixels say of the chosen one, or None when they were not looked at.
        signs: from which its confidence is read.
        stand: [N] how the places stand against the best of them (``geomatch.posterior.standings``).
    """

    places: Poses
    refined: Refined | None
    signs: Signs
    stand: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        places: Poses,
        supports: NDArray[np.float64],
        cells: float,
        refined: Refined | None = None,
        *,
        by_chance: float = 0.0,
    ) -> Judged:
        """Read the signs of places after correlation, the chosen one first, and of what the pixels say of it.

        Args:
            places: the chosen one first.
            supports, cells: of them, as ``geomatch.posterior.standings`` takes them.
            refined: of the chosen one.
            by_chance: as ``geomatch.posterior.lead`` takes it.
        """
        best, others = float(places.scores[0]), places.scores[1:]
        spread = max(float(others.std()), MIN_SPREAD * best) if len(others) else best
        prominence = float((best - others.mean()) / spread) if len(others) else 1.0
        extent = float(np.log2(cells / TYPICAL_CELLS))
        ahead = float(np.sqrt(lead(supports, cells, by_chance)))
        standing = None if refined is None else refined.standing
        return cls(places, refined, Signs(prominence, extent, ahead, standing), standings(supports, cells))

    @property
    def corner_px(self) -> NDArray[np.float64]:
        """[2] map pixel of the strip's first pixel at the chosen place."""
        corner: NDArray[np.float64] = self.places.corners_px[0] if self.refined is None else self.refined.corner_px
        return corner

    @property
    def peak_ratio(self) -> float:
        """The chosen place's score over the best of the others, by features; below 1 where pixels chose another."""
        best, runner_up = float(self.places.scores[0]), float(self.places.scores[1:].max(initial=0.0))
        return float(np.clip(max(best, LEAST_SCORE) / max(runner_up, LEAST_SCORE), 1 / MAX_RATIO, MAX_RATIO))

    @property
    def accuracy(self) -> Accuracy:
        """Whether the place was fixed on pixels."""
        return "pixel" if self.refined is not None and self.refined.fixed else "cell"


def _nearest_grid(grid: Grid, ties: Sequence[TiePoint]) -> Grid:
    """The affine transform nearest to tie points, by least squares."""
    points = np.array([(tie.col, tie.row, 1.0) for tie in ties])
    (a, d), (b, e), (c, f) = np.linalg.lstsq(points, np.array([(tie.x, tie.y) for tie in ties]), rcond=None)[0].tolist()
    return Grid(grid.crs, Affine(a, b, c, d, e, f), grid.width, grid.height)


class Answers:
    """Makes the Location of one strip.

    Args:
        index: of the map.
        strip: the query.
        notes: to be told beside the strip's own.
        seconds: wall time per stage; read when the answer is made.
    """

    def __init__(self, index: TileIndex, strip: Strip, notes: tuple[str, ...], seconds: dict[str, float]) -> None:
        self._index = index
        self._strip = strip
        self._notes = (*notes, *strip.notes)
        self._seconds = seconds

    def nowhere(self, status: Status, reason: str) -> Location:
        """The answer to a strip that has no place on the map, and why."""
        evidence = Evidence(seconds=dict(self._seconds), notes=(*self._notes, reason))
        return Location(status, crs_name(self._index.grid.crs), evidence=evidence)

    def placed(self, windows: Sequence[Window], judged: Judged, sway: Sway | None = None) -> Location:
        """The answer at the best place, if its signs are good enough; and along it, if the strip sways there."""
        sought = not self._strip.tolerance.known
        model = model_of(self._index.encoder.name)
        confidence = min(probability(judged.signs, model, sought=sought), float(shares(judged.stand)[0]))
        status = status_of(confidence, model)
        name = crs_name(self._index.grid.crs)
        evidence = self._evidence(windows, judged, confidence)
        if status not in ("located", "ambiguous"):
            return Location(status, name, confidence=confidence, evidence=evidence)
        evidence = replace(evidence, notes=(*evidence.notes, *self._found(evidence)))
        grid = self._grid(judged.corner_px)
        outline = footprint(grid)
        if sway is not None:
            ties = self._ties(sway, judged.corner_px)
            evidence = replace(evidence, tie_points=ties, notes=(*evidence.notes, SWAYS))
            grid, outline = _nearest_grid(grid, ties), self._outline(sway, judged.corner_px)
        middle = np.array(self._strip.file_size)[None] / 2
        x, y = (grid.to_map(middle) if sway is None else self._lies(middle, sway, judged.corner_px))[0]
        metres = ground_resolution_m(self._index.grid, judged.corner_px)
        return Location(
            status,
            name,
            transform=six(grid.transform),
            footprint=outline,
            center=(float(x), float(y)),
            error_radius_m=error_radius_px(judged.accuracy, self._index.encoder.cell_px) * metres,
            confidence=confidence,
            evidence=evidence,
        )

    def _found(self, evidence: Evidence) -> Iterator[str]:
        """What the place told of the strip that was not known."""
        tolerance = self._strip.tolerance
        if tolerance.turn_deg:
            yield f"heading found: {evidence.heading_deg:.1f}° clockwise from north"
        if tolerance.scale != 1:
            yield f"scale found: {evidence.gsd_m:.4g} m per pixel"
        if tolerance.mirror:
            yield f"found {'as the mirror image of' if evidence.mirrored else 'the same way round as'} the ground"

    def _lies(self, points: NDArray[np.float64], sway: Sway, corner_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where points [N x 2] of the file lie in the map's CRS."""
        px = apply_affine(self._strip.from_file, points) + corner_px + sway.at(points)
        return self._index.grid.to_map(px)

    def _ties(self, sway: Sway, corner_px: NDArray[np.float64]) -> tuple[TiePoint, ...]:
        """Points on both sides and in the middle of the strip, from node to node along it."""
        across = self._strip.file_size[1 - sway.axis]
        points = np.array([(side, node) for node in sway.nodes for side in (0.0, across / 2, across)])
        points = points if sway.axis == 1 else points[:, ::-1]
        places = self._lies(points, sway, corner_px)
        return tuple(TiePoint(*point, *place) for point, place in zip(points.tolist(), places.tolist(), strict=True))

    def _outline(self, sway: Sway, corner_px: NDArray[np.float64]) -> Polygon:
        """The footprint of a strip that sways."""
        across, along = self._strip.file_size[1 - sway.axis], self._strip.file_size[sway.axis]
        there = np.concatenate([[0.0], sway.nodes, [along]])
        ring = np.array([*((0.0, at) for at in there), *((across, at) for at in there[::-1])])
        return orient(Polygon(self._lies(ring if sway.axis == 1 else ring[:, ::-1], sway, corner_px)))

    def _grid(self, corner_px: NDArray[np.float64]) -> Grid:
        """Where the pixels of the strip's file lie when its resampled image starts at ``corner_px``."""
        transform = self._index.grid.transform @ Affine.translation(*corner_px) @ self._strip.from_file
        return Grid(self._index.grid.crs, transform, *self._strip.file_size)

    def _evidence(self, windows: Sequence[Window], judged: Judged, confidence: float) -> Evidence:
        among = shares(judged.stand)
        present = confidence / float(among[0])  # that one of the places is right
        likeliest = np.array([0, *(1 + np.argsort(-among[1:], kind="stable"))])  # the answer, then the others
        candidates = []
        for number in likeliest[:SHOWN_CANDIDATES].tolist():
            grid = self._grid(judged.places.corners_px[number])
            x, y = grid.to_map(grid.center_px)
            probability_there = float(present * among[number])
            candidates.append(Candidate((float(x), float(y)), float(judged.places.scores[number]), probability_there))
        count = needed(among)
        likely = judged.places.corners_px[np.argsort(-among, kind="stable")[:count]] - judged.places.corners_px[0]
        away_m = np.linalg.norm(likely @ ground_jacobian(self._index.grid, judged.corner_px).T, axis=1)
        return Evidence(
            candidates=tuple(candidates),
            likely_places=count,
            likely_within_m=float(away_m.max()),
            peak=float(judged.places.scores[0]),
            peak_ratio=judged.peak_ratio,
            fine_peak=None if judged.refined is None else judged.refined.peak,
            windows=len(windows),
            inliers=self._inliers(windows, judged.corner_px),
            accuracy=judged.accuracy,
            heading_deg=self._strip.heading_deg,
            gsd_m=ground_resolution_m(self._grid(judged.corner_px)),
            mirrored=self._strip.mirrored,
            seconds=dict(self._seconds),
            notes=self._notes,
        )

    def _inliers(self, windows: Sequence[Window], corner_px: NDArray[np.float64]) -> int:
        """Windows whose own best offset in the surroundings agrees with the strip's."""
        if len(windows) == 1:
            return 1
        cell = corner_px / self._index.encoder.cell_px
        nearest = np.rint(cell).astype(np.int64)
        agreeing = 0
        for window in windows:
            col, row = (nearest + window.cell)[:, None]
            (surface,) = around(window.template, self._index.features, col, row, _LOOK_AROUND_CELLS)
            at_row, at_col = np.unravel_index(surface.argmax(), surface.shape)
            offset = nearest - cell + (at_col - _LOOK_AROUND_CELLS, at_row - _LOOK_AROUND_CELLS)
            agreeing += bool(surface.max() > 0 and np.abs(offset).max() <= INLIER_CELLS)
        return agreeing
