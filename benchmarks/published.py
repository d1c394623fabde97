"""What PSO-SIFT and its kin register by themselves: the published transform, believed or not.

    python benchmarks/published.py [--pairs 20] [--methods pso-sift ...] [--into docs/matching.md] [-o FILE]

`geomatch evaluate matching` fits a transform to the matches of these methods only where the first of them agree on one
more often than by chance. Here the published registration counts as it is: the least-squares similarity of all matches
that a method returns, on the pairs of that command. Within 10 px: share of all pairs whose corners it puts there on
average; the others have one that is wrong, or no matches. RMS_all and RMS_LOO are residuals of the matches about it,
N_red their number beyond the two that a similarity needs, CPU seconds of the matching (Tables I and II of Ye et al.).
At last the mean RMS_all of right registrations and of wrong ones: whether it tells them apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import RIGHT_PX, finish, share, show

from geomatch.matching.compare import WARPS
from geomatch.matching.evaluation import MAX_LOO
from geomatch.matching.matches import Matcher, Matches
from geomatch.matching.methods import method
from geomatch.matching.samples import SOURCES, Sample, samples
from geomatch.matching.scores import corner_error_px, correct, redundant, residual_rms
from geomatch.matching.transforms import Matrix, nearest

METHODS = ("fsc-sift", "pso-sift", "cnn-pso-sift")
COLUMNS = ("pairs, method", "n", "within 10 px", "corners, px", "NC", "NCM", "RMS_all", "RMS_LOO", "N_red", "CPU s")


@dataclass(frozen=True)
class Registered:
    """A pair as a method registers it by itself."""

    corners_px: float
    matches: int
    right: int
    rms_px: tuple[float, float]
    redundant: int
    cpu_s: float


def published_transform(matches: Matches) -> Matrix | None:
    """The similarity on which matches agree, whatever geomatch thinks of it; None where there are not two."""
    return nearest("similarity", matches.sar_px, matches.optical_px) if len(matches) > 1 else None


def registered(sample: Sample, matcher: Matcher) -> Registered:
    """One pair; corners are infinitely far where there is no transform."""
    began = time.process_time()
    matches = matcher(sample.sar, sample.optical)
    cpu = time.process_time() - began
    matrix = published_transform(matches)
    off = np.inf if matrix is None else corner_error_px(matrix, sample.to_optical, sample.sar.size_px)
    some = matches.some(np.arange(min(len(matches), MAX_LOO)))
    right = int(correct(matches, sample.to_optical).sum())
    return Registered(
        off, len(matches), right, residual_rms(some, "similarity"), redundant(len(matches), "similarity"), cpu
    )


def row(name: str, made: list[Registered]) -> list[str]:
    rms = np.array([one.rms_px for one in made])
    told = np.isfinite(rms).all(axis=1)
    medians = [f"{value:.2f}" for value in np.median(rms[told], axis=0)] if told.any() else ["–", "–"]
    means = [np.mean([getattr(one, field) for one in made]) for field in ("matches", "right", "redundant", "cpu_s")]
    corners = float(np.median([one.corners_px for one in made]))
    return [
        name,
        f"{len(made)}",
        share([one.corners_px <= RIGHT_PX for one in made]),
        f"{corners:.3g}" if np.isfinite(corners) else "–",
        f"{means[0]:.3g}",
        f"{means[1]:.3g}",
        *medians,
        f"{means[2]:.3g}",
        f"{means[3]:.2f}",
    ]


def told_apart(name: str, made: list[Registered]) -> str:
    """Mean RMS_all of a method's right registrations and of its wrong ones."""
    parts = []
    for what, right in (("right", True), ("wrong", False)):
        rms = [one.rms_px[0] for one in made if (one.corners_px <= RIGHT_PX) == right and np.isfinite(one.rms_px[0])]
        parts.append(f"{np.mean(rms):.2f} px of {len(rms)} {what} ones" if rms else f"no {what} ones")
    return f"{name}, RMS_all: {', '.join(parts)}"


def plain(one: Registered) -> dict[str, Any]:
    """For JSON, which has no number that is none."""
    rms, corners = one.rms_px, one.corners_px
    finite = {
        "rms_px": rms if np.isfinite(rms).all() else None,
        "corners_px": corners if np.isfinite(corners) else None,
    }
    return asdict(one) | finite


def measured(data: Path, pairs: int, names: Iterable[str], seed: int) -> dict[str, list[Registered]]:
    """By set and method."""
    made: dict[str, list[Registered]] = {}
    matchers = {name: method(name) for name in names}
    for place, source in SOURCES.items():
        for kind, warp in WARPS.items():
            drawn = list(samples(source(data), pairs, warp, seed=seed))
            for name, matcher in matchers.items():
                made[f"{place}, {kind}, {name}"] = [registered(sample, matcher) for sample in drawn]
                print(" | ".join(row(f"{place}, {kind}, {name}", made[f"{place}, {kind}, {name}"])), flush=True)
    return made


def main() -> None:
    parser = common.parser(__doc__, windows=0)
    parser.add_argument("--pairs", type=int, default=20, help="of each set")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--into", type=Path, help="document that gets the table")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    made = measured(data, given.pairs, given.methods, given.seed)
    rows = [row(name, some) for name, some in made.items()]
    show("Registered by the published transform", COLUMNS, rows)
    if given.into is not None:
        common.into(given.into, "published", COLUMNS, rows)
    for name in given.methods:
        print(told_apart(name, [one for key, some in made.items() if key.endswith(f", {name}") for one in some]))
    finish(given.output, {name: [plain(one) for one in some] for name, some in made.items()})


if __name__ == "__main__":
    main()
