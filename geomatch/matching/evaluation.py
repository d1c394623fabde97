"""Methods compared on the same pairs: predictions first, to a file; scores from that file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomatch.console import Step
from geomatch.matching.fit import NoFit, fit
from geomatch.matching.keypoints import Detector
from geomatch.matching.matches import Matcher
from geomatch.matching.samples import Sample
from geomatch.matching.scores import CORRECT_PX, corner_error_px, coverage, repeatability, residual_rms
from geomatch.matching.transforms import apply
from geomatch.metrics import wilson
from geomatch.threads import one_thread

REGISTERED_PX = (5.0, 10.0)
MAX_LOO = 300  # matches whose residuals are left out one by one


@dataclass(frozen=True)
class Prediction:
    """What a method made of a pair.

    Attributes:
        method: its name.
        pairs: name of the set of pairs.
        number: of the pair.
        found: keypoints in the SAR and in the optical image.
        off_px: distance of each match from the truth, in the optical image.
        cpu_s: of matching, without the fit.
        inliers: matches that the fit agrees with.
        corner_error_px: of the fit; None where there is none.
        rms_px: RMS_all and RMS_LOO of the inliers; None where there are too few.
        reason: why there is no fit.
    """

    method: str
    pairs: str
    number: int
    found: tuple[int, int]
    off_px: tuple[float, ...]
    cpu_s: float
    inliers: int = 0
    corner_error_px: float | None = None
    rms_px: tuple[float, float] | None = None
    reason: str = ""


def predict(name: str, matcher: Matcher, pairs: str, number: int, sample: Sample) -> Prediction:
    """Match a pair and fit a transform to the matches."""
    with one_thread():
        start = time.process_time()
        matches = matcher(sample.sar, sample.optical)
        cpu_s = time.process_time() - start
        fitted = fit(matches, sample.sar.size_px)
    off = np.linalg.norm(apply(sample.to_optical, matches.sar_px) - matches.optical_px, axis=1)
    made = Prediction(name, pairs, number, matches.found, tuple(np.round(off, 2).tolist()), cpu_s)
    if isinstance(fitted, NoFit):
        return replace(made, reason=fitted.reason)
    error = corner_error_px(fitted.matrix, sample.to_optical, sample.sar.size_px)
    rms = residual_rms(matches.some(np.nonzero(fitted.inliers)[0][:MAX_LOO]), fitted.model)
    return replace(
        made,
        inliers=int(fitted.inliers.sum()),
        corner_error_px=error if np.isfinite(error) else None,
        rms_px=rms if np.isfinite(rms).all() else None,
    )


def prediction_of(**given: Any) -> Prediction:
    """One that was kept as JSON, which knows no tuples."""
    kept = {key: None if given[key] is None else tuple(given[key]) for key in ("found", "off_px", "rms_px")}
    return Prediction(**(given | kept))


def score(made: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Scores of every method on every set of pairs, in the order of the predictions.

    Keys: ``pairs``, ``method``, ``count``; ``registered`` {"5", "10"} share of pairs whose corners lie that near and
    ``registered_ci``; ``matches`` NC and ``correct`` NCM per pair, ``precision`` CMR or MP, ``score`` MS; ``rms_all``,
    ``rms_loo``, ``n_red`` of the fits' inliers; ``cpu_s``.
    """
    groups: dict[tuple[str, str], list[Prediction]] = {}
    for one in made:
        groups.setdefault((one.pairs, one.method), []).append(one)
    return [_scored(*key, group) for key, group in groups.items()]


def _scored(pairs: str, method: str, group: Sequence[Prediction]) -> dict[str, Any]:
    right = np.array([sum(off <= CORRECT_PX for off in one.off_px) for one in group], float)
    matches = np.array([len(one.off_px) for one in group], float)
    keypoints = np.array([min(one.found) for one in group], float)
    errors = np.array([np.inf if one.corner_error_px is None else one.corner_error_px for one in group])
    registered = {f"{radius:g}": int((errors <= radius).sum()) for radius in REGISTERED_PX}
    rms = np.array([one.rms_px for one in group if one.rms_px is not None], float).reshape(-1, 2)
    return {
        "pairs": pairs,
        "method": method,
        "count": len(group),
        "registered": {radius: hits / len(group) for radius, hits in registered.items()},
        "registered_ci": {radius: wilson(hits, len(group)) for radius, hits in registered.items()},
        "matches": float(matches.mean()),
        "correct": float(right.mean()),
        "precision": float(right.sum() / max(matches.sum(), 1)),
        "score": float(right.sum() / max(keypoints.sum(), 1)),
        "rms_all": float(rms[:, 0].mean()) if len(rms) else None,
        "rms_loo": float(rms[:, 1].mean()) if len(rms) else None,
        "n_red": float(np.mean([one.inliers for one in group])),
        "cpu_s": float(np.mean([one.cpu_s for one in group])),
    }


def repeated(
    detectors: Mapping[str, Detector], sets: Mapping[str, Sequence[Sample]], most: int, progress: Step
) -> list[dict[str, Any]]:
    """Repeatability of detectors within 2 px, of each as many keypoints, and how these are spread."""
    rows = []
    for pairs, samples in sets.items():
        for name, detector in detectors.items():
            shares: list[float] = []
            counts: list[int] = []
            covered: list[float] = []
            for number, sample in enumerate(samples):
                progress(f"{name} on {pairs}", number, len(samples))
                ours, theirs = detector(sample.sar, most), detector(sample.optical, most)
                size = sample.sar.size_px
                shares.append(repeatability(ours.xy_px, theirs.xy_px, sample.to_optical, size))
                counts += [len(ours), len(theirs)]
                covered += [coverage(found.xy_px, size) for found in (ours, theirs)]
            rows.append(
                {
                    "pairs": pairs,
                    "detector": name,
                    "count": len(samples),
                    "repeatability": float(np.mean(shares)),
                    "repeatability_ci": _interval(np.array(shares)),
                    "keypoints": float(np.mean(counts)),
                    "coverage": float(np.mean(covered)),
                }
            )
    return rows


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of a mean of shares, by the normal distribution; of a single one nothing is known."""
    if len(values) < 2:
        return 0.0, 1.0
    half = 1.96 * float(values.std(ddof=1)) / float(np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half
