"""Whether a fit may be believed: what is registered that is wrong or cannot be, and what error ellipses of 95 % hold.

Random pairs of a block of the Los Angeles scenes, warped as in ``matching.py``; each SAR image also turned by 90
degrees, mirrored, and shown another place of the block. Of those no method may make a fit. "in the ellipse" is the
share of all fits of true pairs, right or wrong, whose error at the middle the ellipse holds. Of OMBRIA, whose pairs lie
within 2 px of each other, the validation locations; there no other place is shown.

    python benchmarks/trust.py [--windows 60] [--methods area hardnet d2] [--pairs val|train|ombria] [--into FILE]
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import LA_VAL, finish, share, show

from geomatch.matching.accuracy import CHI2_95
from geomatch.matching.fit import Fit, fit
from geomatch.matching.matches import Matcher
from geomatch.matching.methods import method
from geomatch.matching.samples import SIZE_PX, WARPED, Sample, needed_px, ombria_source, samples
from geomatch.matching.scores import corner_error_px
from geomatch.matching.side import Side
from geomatch.matching.transforms import apply
from geomatch.pairs import Pair, PairSource, ScenePairs
from geomatch.splits import boxes_of

METHODS, KINDS = ("area", "hardnet", "d2"), ("val", "train", "ombria")
COLUMNS = (
    "pairs, method",
    "n",
    "within 10 px",
    "wrong",
    "turned by 90°",
    "mirrored",
    "another place",
    "in the ellipse",
)
RIGHT_PX = 10.0


@dataclass
class Told:
    """Pairs of a source that say where they lie, where they are of one scene."""

    source: PairSource
    places: list[tuple[int, int]] = field(default_factory=list)

    def draw(self, rng: np.random.Generator, side_px: int) -> Pair:
        """As a ``PairSource``."""
        if not isinstance(self.source, ScenePairs):
            return self.source.draw(rng, side_px)
        found = self.source.find(rng, side_px)
        self.places.append((found.col, found.row))
        return found.pair

    def apart_from(self, number: int, side_px: int) -> int:
        """Number of a pair that shares nothing with one."""
        off = np.abs(np.subtract(self.places, self.places[number])).max(axis=1)
        order = np.roll(np.arange(len(off)), -number - 1)
        return int(order[off[order] >= side_px][0])


def scene_source(data: Path, split: str) -> ScenePairs:
    scene = data / LA_VAL.scene
    return ScenePairs(scene / "optical.tif", scene / "sar.tif", boxes_of(data / "split.csv", scene.name, split))


def fitted(matcher: Matcher, sar: Side, optical: Side) -> Fit | None:
    found = fit(matcher(sar, optical), sar.size_px)
    return found if isinstance(found, Fit) else None


def turned(side: Side, quarters: int) -> Side:
    image, valid = (np.rot90(values, quarters).copy() for values in (side.image, side.valid))
    return Side(image, valid, side.modality)


def mirrored(side: Side, axis: int) -> Side:
    return replace(side, image=np.flip(side.image, axis).copy(), valid=np.flip(side.valid, axis).copy())


def measured(name: str, pairs: list[Sample], told: Told) -> dict[str, Any]:
    matcher = method(name)
    middle = np.full((1, 2), SIZE_PX / 2)
    right, wrong, held, at_turned, as_mirrors, elsewhere = [], [], [], [], [], []
    for number, pair in enumerate(pairs):
        found = fitted(matcher, pair.sar, pair.optical)
        if found is not None:
            near = corner_error_px(found.matrix, pair.to_optical, pair.sar.size_px) <= RIGHT_PX
            off = (found.at(middle) - apply(pair.to_optical, middle))[0]
            held.append(bool(off @ np.linalg.solve(found.covariance_at(middle[0].tolist()), off) <= CHI2_95))
        right.append(found is not None and near)
        wrong.append(found is not None and not near)
        at_turned.append(fitted(matcher, turned(pair.sar, 1 + 2 * (number % 2)), pair.optical) is not None)
        as_mirrors.append(fitted(matcher, mirrored(pair.sar, number % 2), pair.optical) is not None)
        if told.places:
            other = pairs[told.apart_from(number, needed_px(WARPED, SIZE_PX))]
            elsewhere.append(fitted(matcher, pair.sar, other.optical) is not None)
    lists = {
        "right": right,
        "wrong": wrong,
        "turned": at_turned,
        "mirrored": as_mirrors,
        "elsewhere": elsewhere,
        "held": held,
    }
    return {"method": name, "pairs": len(pairs)} | lists


def cells(result: dict[str, Any], kind: str) -> list[str]:
    counts = [str(sum(result[key])) if result[key] else "–" for key in ("wrong", "turned", "mirrored", "elsewhere")]
    held = result["held"]
    ellipse = f"{share(held)} of {len(held)}" if held else "–"
    return [f"{kind}, {result['method']}", str(result["pairs"]), share(result["right"]), *counts, ellipse]


def main() -> None:
    parser = common.parser(__doc__, windows=60)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--pairs", choices=KINDS, default="val")
    parser.add_argument("--into", type=Path, help="document that gets the table")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    told = Told(ombria_source(data) if given.pairs == "ombria" else scene_source(data, given.pairs))
    pairs = list(samples(told, given.windows, WARPED, seed=given.seed))
    results = [measured(name, pairs, told) for name in given.methods]
    rows = [cells(one, given.pairs) for one in results]
    show("Fits of true pairs, of turned ones and of other places", COLUMNS, rows)
    if given.into is not None:
        order = [f"{kind}, {method}" for kind in KINDS for method in dict.fromkeys([*METHODS, *given.methods])]
        common.into(given.into, "trust", COLUMNS, rows, order)
    finish(given.output, results)


if __name__ == "__main__":
    main()
