"""Methods compared on the same pairs: predictions first, to a file; scores from that file.

A prediction is what a method matched. Transforms are fitted to it, and it is judged, afterwards: when fitting changes
the slow part is not done again.
"""

from __future__ import annotations

import base64
import hashlib
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geomatch.matching.fit import NoFit, fit
from geomatch.matching.matches import Matcher, Matches
from geomatch.matching.samples import Sample
from geomatch.matching.scores import CORRECT_PX, corner_error_px, redundant, residual_rms
from geomatch.matching.transforms import apply
from geomatch.metrics import wilson
from geomatch.threads import one_thread

REGISTERED_PX = (5.0, 10.0)
MAX_LOO = 300  # matches whose residuals are left out one by one


@dataclass(frozen=True)
class Prediction:
    """What a method matched in a pair.

    Attributes:
        points: x and y in the SAR image, x and y in the optical one, and score of each match, [N x 5] float32 in the
            machine's order, compressed, as base64.
        cpu_s: of matching.
        found, reason, grain_px, step_px, placed, doubt: as of ``Matches``.
    """

    points: str
    cpu_s: float
    found: tuple[int, int]
    reason: str
    grain_px: float
    step_px: float
    placed: bool
    doubt: str

    @classmethod
    def of(cls, matches: Matches, cpu_s: float) -> Prediction:
        """Of matches."""
        table = np.column_stack([matches.sar_px, matches.optical_px, matches.scores]).astype("<f4")
        points = base64.b64encode(zlib.compress(table.tobytes())).decode()
        m = matches
        return cls(points, cpu_s, m.found, m.reason, m.grain_px, m.step_px, m.placed, m.doubt)

    @property
    def matches(self) -> Matches:
        """What was matched, places to the precision of float32."""
        table = np.frombuffer(zlib.decompress(base64.b64decode(self.points)), "<f4").reshape(-1, 5).astype(np.float64)
        places = table[:, :2], table[:, 2:4]
        judged = {name: getattr(self, name) for name in ("reason", "grain_px", "step_px", "placed", "doubt")}
        return Matches(*places, table[:, 4], self.found, **judged)

    @property
    def digest(self) -> str:
        """A sha256 of all that is judged, hexadecimal."""
        return hashlib.sha256(repr(replace(self, cpu_s=0.0)).encode()).hexdigest()


@dataclass(frozen=True)
class Judged:
    """What a prediction is worth.

    Attributes:
        found: keypoints in the SAR and in the optical image.
        off_px: distance of each match from the truth, in the optical image.
        inliers: matches that the fit agrees with.
        corner_error_px: of the fit; None where there is none.
        rms_px: RMS_all and RMS_LOO of the inliers; None where there are too few.
        reason: why there is no fit.
        redundant: inliers beyond the fewest that the fit's transform needs.
    """

    found: tuple[int, int]
    off_px: tuple[float, ...]
    inliers: int = 0
    corner_error_px: float | None = None
    rms_px: tuple[float, float] | None = None
    reason: str = ""
    redundant: int = 0

    @property
    def registered(self) -> bool:
        """Whether the fit is right."""
        return self.corner_error_px is not None and self.corner_error_px <= max(REGISTERED_PX)


@dataclass(frozen=True)
class Result:
    """One method on one pair.

    Attributes:
        method: its name.
        pairs: name of the set of pairs.
        judged: what came of it.
        cpu_s: of matching, without the fit.
    """

    method: str
    pairs: str
    judged: Judged
    cpu_s: float


def predict(matcher: Matcher, sample: Sample) -> Prediction:
    """Match a pair."""
    with one_thread():
        start = time.process_time()
        matches = matcher(sample.sar, sample.optical)
        return Prediction.of(matches, time.process_time() - start)


def judge(prediction: Prediction, sample: Sample) -> Judged:
    """Fit a transform to what was matched, and compare both with the truth."""
    matches = prediction.matches
    with one_thread():
        fitted = fit(matches, sample.sar.size_px)
    off = np.linalg.norm(apply(sample.to_optical, matches.sar_px) - matches.optical_px, axis=1)
    made = Judged(matches.found, tuple(np.round(off, 2).tolist()))
    if isinstance(fitted, NoFit):
        return replace(made, reason=fitted.reason)
    error = corner_error_px(fitted.matrix, sample.to_optical, sample.sar.size_px)
    rms = residual_rms(matches.some(np.nonzero(fitted.inliers)[0][:MAX_LOO]), fitted.model)
    inliers = int(fitted.inliers.sum())
    return replace(
        made,
        inliers=inliers,
        redundant=redundant(inliers, fitted.model),
        corner_error_px=error if np.isfinite(error) else None,
        rms_px=rms if np.isfinite(rms).all() else None,
    )


def prediction_of(**given: Any) -> Prediction:
    """One that was kept as JSON, which knows no tuples."""
    return Prediction(**(given | {"found": tuple(given["found"])}))


def judged_of(**given: Any) -> Judged:
    """One that was kept as JSON, which knows no tuples."""
    kept = {key: None if given[key] is None else tuple(given[key]) for key in ("found", "off_px", "rms_px")}
    return Judged(**(given | kept))


def score(made: Sequence[Result]) -> list[dict[str, Any]]:
    """Scores of every method on every set of pairs, in the order of the results.

    Keys: ``pairs``, ``method``, ``count``; ``registered`` {"5", "10"} share of pairs whose corners lie that near and
    ``registered_ci``, ``misplaced`` share that have a fit whose corners do not lie within the greater of them;
    ``matches`` NC and ``correct`` NCM per pair, ``precision`` CMR or MP, ``score`` MS; ``rms_all``, ``rms_loo`` of the
    inliers of right fits, None where there are none; ``n_red`` redundant inliers per pair; ``cpu_s``.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for one in made:
        groups.setdefault((one.pairs, one.method), []).append(one)
    return [_scored(*key, group) for key, group in groups.items()]


def _scored(pairs: str, method: str, results: Sequence[Result]) -> dict[str, Any]:
    group = [one.judged for one in results]
    right = np.array([sum(off <= CORRECT_PX for off in one.off_px) for one in group], float)
    matches = np.array([len(one.off_px) for one in group], float)
    keypoints = np.array([min(one.found) for one in group], float)
    errors = np.array([np.inf if one.corner_error_px is None else one.corner_error_px for one in group])
    registered = {f"{radius:g}": int((errors <= radius).sum()) for radius in REGISTERED_PX}
    rms = np.array([one.rms_px for one in group if one.registered and one.rms_px is not None], float).reshape(-1, 2)
    return {
        "pairs": pairs,
        "method": method,
        "count": len(group),
        "registered": {radius: hits / len(group) for radius, hits in registered.items()},
        "registered_ci": {radius: wilson(hits, len(group)) for radius, hits in registered.items()},
        "misplaced": float((np.isfinite(errors) & (errors > max(REGISTERED_PX))).mean()),
        "matches": float(matches.mean()),
        "correct": float(right.mean()),
        "precision": float(right.sum() / max(matches.sum(), 1)),
        "score": float(right.sum() / max(keypoints.sum(), 1)),
        "rms_all": float(rms[:, 0].mean()) if len(rms) else None,
        "rms_loo": float(rms[:, 1].mean()) if len(rms) else None,
        "n_red": float(np.mean([one.redundant for one in group])),
        "cpu_s": float(np.mean([one.cpu_s for one in results])),
    }
