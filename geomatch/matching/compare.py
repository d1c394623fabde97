"""All methods on all sets of pairs, as ``geomatch evaluate matching`` prints it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geomatch.console import Step
from geomatch.errors import InputError, UsageError
from geomatch.files import check_target, published, writing
from geomatch.matching.detected import SPREAD_PX, Detected, detected, summary
from geomatch.matching.evaluation import Result, judge, judged_of, predict, prediction_of, score
from geomatch.matching.identity import identity_of
from geomatch.matching.kept import Kept
from geomatch.matching.keypoints import Detector
from geomatch.matching.matches import Matcher
from geomatch.matching.methods import METHODS, detectors, method
from geomatch.matching.samples import ALIGNED, LEAST_PX, SIMULATED, SOURCES, WARPED, Sample, Source, samples
from geomatch.pairs import ScenePairs
from geomatch.report import Cell, ReportTable
from geomatch.threads import one_thread

SCORES = "scores.json"
MATCHES, FITS, KEYPOINTS = "matches", "fits", "keypoints"  # folders of what is kept
WARPS = {"aligned": ALIGNED, "warped": WARPED}
EVERY, NONE = "all", "none"


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        pairs: names of sets, or ``OPTICAL.tif,SAR.tif``.
        methods, detectors: names separated by commas, methods also as NAME=FILE, or "all", or "none".
        count: pairs of each set, aligned and as many warped.
        size_px: side of an image.
        keypoints: asked of each detector.
        seed: of the pairs.

    Raises:
        UsageError: a number out of range.
    """

    pairs: tuple[str, ...] = tuple(SOURCES)
    methods: str = EVERY
    detectors: str = EVERY
    count: int = 400
    size_px: int = 256
    keypoints: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"--count": (self.count, 1), "--size": (self.size_px, LEAST_PX), "--keypoints": (self.keypoints, 1)}
        for option, (given, lowest) in least.items():
            if given < lowest:
                raise UsageError(f"{given} is less than {lowest}", where=option, hint=f"give {lowest} or more")


def compare(asked: Comparison, data: Path | None, output: Path | None, progress: Step) -> dict[str, Any]:
    """Scores of methods and detectors.

    Args:
        asked: what is compared.
        data: folder of the real imagery.
        output: folder for predictions and scores. What is there of the same pixels, by the same code, options and
            weights, is not measured again: ``identity_of``, ``Sample.digest``.
        progress: told the pairs done.

    Raises:
        UsageError: an unknown name, or pairs larger than a set's images.
        InputError: a set of pairs cannot be read.
        OutputError: the folder cannot be written.
    """
    matchers = {spec: method(spec) for spec in _split(asked.methods, METHODS)}
    known = detectors()
    found = {name: known[name] for name in _named(asked.detectors, known, "--detectors")}
    sources = {name: _source(name, data) for name in asked.pairs}
    if output is not None:
        check_target(output, directory=True)
        with writing(output):
            output.mkdir(exist_ok=True)
    for _ in _sets(asked, sources, 1):  # so that what cannot be is told before the work
        pass
    results: list[Result] = []
    keypoints = []
    with one_thread():
        for pairs, chosen in _sets(asked, sources, asked.count):
            here = _Set(pairs, chosen, output, progress)
            for name, matcher in matchers.items():
                results += here.results(name, matcher)
            for name, detector in found.items():
                keypoints.append(summary(pairs, name, here.keypoints(name, detector, asked.keypoints)))
    scores = {"asked": asdict(asked), "methods": score(results), "detectors": keypoints}
    if output is not None:
        with published(output / SCORES) as part:
            part.write_text(json.dumps(scores, indent=1, allow_nan=False) + "\n")
    return scores


@dataclass(frozen=True)
class _Set:
    """Samples to measure on.

    Attributes:
        name: of the set and the warp.
        samples: all of them.
        output: folder of what is kept.
        progress: told the pairs done.
    """

    name: str
    samples: list[Sample]
    output: Path | None
    progress: Step

    def results(self, name: str, matcher: Matcher) -> list[Result]:
        """Of a method."""
        predictions = Kept(self._file(MATCHES, name), identity_of(matcher), prediction_of)
        fits = Kept(self._file(FITS, name), identity_of(judge), judged_of)
        made = []
        for number, sample in enumerate(self.samples):
            matched = predictions.get(sample.digest, partial(predict, matcher, sample))
            judged = fits.get(f"{sample.digest} {matched.digest}", partial(judge, matched, sample))
            made.append(Result(name, self.name, judged, matched.cpu_s))
            self.progress(f"{name}, {self.name}", number + 1, len(self.samples))
        return made

    def keypoints(self, name: str, detector: Detector, most: int) -> list[Detected]:
        """Of a detector."""
        kept = Kept(self._file(KEYPOINTS, name), identity_of((detected, detector)), Detected)
        made = []
        for number, sample in enumerate(self.samples):
            made.append(kept.get(f"{sample.digest} {most}", partial(detected, detector, sample, most)))
            self.progress(f"{name} on {self.name}", number + 1, len(self.samples))
        return made

    def _file(self, kind: str, name: str) -> Path | None:
        return None if self.output is None else self.output / kind / _plain(self.name) / f"{_plain(name)}.jsonl"


def _sets(asked: Comparison, sources: dict[str, Source], count: int) -> Iterator[tuple[str, list[Sample]]]:
    """Sets of samples by name, one in memory at a time."""
    for name, source in sources.items():
        for kind, warp in WARPS.items():
            yield f"{name}, {kind}", list(samples(source, count, warp, size_px=asked.size_px, seed=asked.seed))


def _plain(name: str) -> str:
    """A name as one of a file; of one with a path the end, and a hash that tells it from others."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", name)
    return f"{plain[-40:]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}" if "/" in name else plain


def _source(name: str, data: Path | None) -> Source:
    """A named set, or two files."""
    if "," in name:
        optical, _, sar = name.partition(",")
        return ScenePairs(optical, sar)
    if name not in SOURCES:
        hint = f"known are {', '.join(SOURCES)}, or give OPTICAL.tif,SAR.tif"
        raise UsageError(f"unknown pairs {name!r}", where="--pairs", hint=hint)
    if name == SIMULATED:
        return SOURCES[name](Path())
    hint = "name its folder with --data or GEOMATCH_DATA, or ask for --pairs simulated"
    if data is None:
        raise UsageError("needs the folder of the real imagery", where=f"--pairs {name}", hint=hint)
    if not data.is_dir():
        raise InputError("no imagery there", where=data, hint=hint)
    return SOURCES[name](data)


def _split(given: str, every: Iterable[str]) -> list[str]:
    if given == NONE:
        return []
    return list(every) if given == EVERY else [name.strip() for name in given.split(",")]


def _named(given: str, known: Iterable[str], option: str) -> list[str]:
    names = list(known)
    chosen = _split(given, names)
    if unknown := [name for name in chosen if name not in names]:
        raise UsageError(f"unknown name {unknown[0]!r}", where=option, hint=f"known are {', '.join(names)}")
    return chosen


def tables(scores: dict[str, Any]) -> list[ReportTable]:
    """What is printed."""
    made = []
    for pairs in dict.fromkeys(row["pairs"] for row in scores["methods"]):
        rows = [row for row in scores["methods"] if row["pairs"] == pairs]
        title = f"{rows[0]['count']} pairs, {pairs}"
        made += [ReportTable(title, _COUNTS, [_counts(row) for row in rows])]
        made += [ReportTable(f"{title}: fits", _FITS, [_fits(row) for row in rows])]
    if scores["detectors"]:
        title = f"Detectors, {scores['asked']['keypoints']} keypoints asked of each"
        made.append(ReportTable(title, _DETECTED, [_detector_row(row) for row in scores["detectors"]]))
    return made


_COUNTS = ("method", "corners ≤ 10 px", "≤ 5 px", "misplaced", "NC", "NCM", "CMR", "MS")
_FITS = ("method", "RMS_all", "RMS_LOO", "N_red", "CPU s")
_DETECTED = (
    "pairs",
    "detector",
    "repeated in 2 px",
    "moved",
    "keypoints",
    "coverage",
    f"{SPREAD_PX:g} px apart",
    "keypoints",
    "coverage",
)


def _counts(row: dict[str, Any]) -> Sequence[Cell]:
    low, high = row["registered_ci"]["10"]
    return (
        row["method"],
        f"{row['registered']['10']:.3f} [{low:.3f}, {high:.3f}]",
        f"{row['registered']['5']:.3f}",
        f"{row['misplaced']:.3f}",
        f"{row['matches']:.1f}",
        f"{row['correct']:.2f}",
        f"{row['precision']:.3f}",
        f"{row['score']:.4f}",
    )


def _fits(row: dict[str, Any]) -> Sequence[Cell]:
    rms = ["–" if row[key] is None else f"{row[key]:.2f}" for key in ("rms_all", "rms_loo")]
    return (row["method"], *rms, f"{row['n_red']:.1f}", f"{row['cpu_s']:.3f}")


def _detector_row(row: dict[str, Any]) -> Sequence[Cell]:
    low, high = row["repeatability_ci"]
    return (
        row["pairs"],
        row["detector"],
        f"{row['repeatability']:.3f} [{low:.3f}, {high:.3f}]",
        f"{row['moved']:.3f}",
        f"{row['keypoints']:.0f}",
        f"{row['coverage']:.2f}",
        f"{row['spread_repeatability']:.3f}",
        f"{row['spread_keypoints']:.0f}",
        f"{row['spread_coverage']:.2f}",
    )
