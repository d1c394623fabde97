"""All methods on all sets of pairs, as ``geomatch evaluate matching`` prints it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, cast

from geomatch.console import Step
from geomatch.errors import InputError, OutputError, UsageError
from geomatch.files import check_target, published, writing
from geomatch.matching.detected import SPREAD_PX, Detected, detected, summary
from geomatch.matching.evaluation import Result, judge, judged_of, predict, prediction_of, score
from geomatch.matching.identity import identity_of
from geomatch.matching.kept import Kept
from geomatch.matching.methods import METHODS, detectors, method
from geomatch.matching.samples import ALIGNED, LEAST_PX, SIMULATED, SOURCES, WARPED, Sample, Source, samples
from geomatch.pairs import ScenePairs
from geomatch.report import Cell, ReportTable
from geomatch.threads import one_thread

SCORES = "scores.json"
MATCHES, FITS, KEYPOINTS = "matches", "fits", "keypoints"  # folders of what is kept
WARPS = {"aligned": ALIGNED, "warped": WARPED}
EVERY, NONE = "all", "none"

Rows = list[Result] | list[Detected]  # of a method or a detector, one for each pair


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


def compare(
    asked: Comparison, data: Path | None, output: Path | None, progress: Step, *, jobs: int = 1
) -> dict[str, Any]:
    """Scores of methods and detectors.

    Args:
        asked: what is compared.
        data: folder of the real imagery.
        output: folder for predictions and scores. What is there of the same pixels, by the same code, options and
            weights, is not measured again: ``identity_of``, ``Sample.digest``.
        progress: told the pairs done, or of several processes the methods and detectors.
        jobs: processes that measure, one thread each.

    Raises:
        UsageError: an unknown name, or pairs larger than a set's images.
        InputError: a set of pairs cannot be read.
        OutputError: the folder cannot be written, or a process was killed.
    """
    if jobs < 1:
        raise UsageError(f"{jobs} processes measure nothing", where="--jobs", hint="give 1 or more")
    bench = _Bench(asked, data, output)
    bench.check()
    if output is not None:
        check_target(output, directory=True)
        with writing(output):
            output.mkdir(exist_ok=True)
    tasks = bench.tasks()
    measured = _by_processes(bench, tasks, jobs, progress) if jobs > 1 else (bench(task, progress) for task in tasks)
    results: list[Result] = []
    keypoints = []
    for task, made in zip(tasks, measured, strict=True):
        if task.detects:
            keypoints.append(summary(task.pairs, task.name, cast(list[Detected], made)))
        else:
            results += cast(list[Result], made)
    scores = {"asked": asdict(asked), "methods": score(results), "detectors": keypoints}
    if output is not None:
        with published(output / SCORES) as part:
            part.write_text(json.dumps(scores, indent=1, allow_nan=False) + "\n")
    return scores


class _Task(NamedTuple):
    """A method on a set of pairs, or a detector."""

    pairs: str
    name: str
    detects: bool


class _Bench:
    """Measures methods and detectors on sets of pairs, one of which is in memory at a time.

    Args:
        asked, data, output: as of ``compare``.

    Raises:
        UsageError, InputError: as ``compare``.
    """

    def __init__(self, asked: Comparison, data: Path | None, output: Path | None) -> None:
        self.given = asked, data, output
        self._asked, self._output = asked, output
        self._matchers = {spec: method(spec) for spec in _split(asked.methods, METHODS)}
        known = detectors()
        self._detectors = {name: known[name] for name in _named(asked.detectors, known, "--detectors")}
        sources = {name: _source(name, data) for name in asked.pairs}
        self._sets = {
            f"{name}, {kind}": partial(samples, source, warp=warp, size_px=asked.size_px, seed=asked.seed)
            for name, source in sources.items()
            for kind, warp in WARPS.items()
        }
        self._drawn: dict[str, list[Sample]] = {}  # the set that was asked for last

    def check(self) -> None:
        """Draw a pair of each set, so that what cannot be is told before the work."""
        for draw in self._sets.values():
            list(draw(count=1))

    def tasks(self) -> list[_Task]:
        """All that is to be measured."""
        names = [(name, False) for name in self._matchers] + [(name, True) for name in self._detectors]
        return [_Task(pairs, *name) for pairs in self._sets for name in names]

    def __call__(self, task: _Task, progress: Step) -> Rows:
        """Rows of a task, one for each pair."""
        if task.pairs not in self._drawn:
            self._drawn.clear()
            self._drawn[task.pairs] = list(self._sets[task.pairs](count=self._asked.count))
        with one_thread():
            return (self._keypoints if task.detects else self._results)(task, self._drawn[task.pairs], progress)

    def _results(self, task: _Task, pairs: list[Sample], progress: Step) -> list[Result]:
        matcher = self._matchers[task.name]
        predictions = Kept(self._file(MATCHES, task), identity_of(matcher), prediction_of)
        fits = Kept(self._file(FITS, task), identity_of(judge), judged_of)
        made = []
        for number, sample in enumerate(pairs):
            matched = predictions.get(sample.digest, partial(predict, matcher, sample))
            judged = fits.get(f"{sample.digest} {matched.digest}", partial(judge, matched, sample))
            made.append(Result(task.name, task.pairs, judged, matched.cpu_s))
            progress(f"{task.name}, {task.pairs}", number + 1, len(pairs))
        return made

    def _keypoints(self, task: _Task, pairs: list[Sample], progress: Step) -> list[Detected]:
        detector, most = self._detectors[task.name], self._asked.keypoints
        kept = Kept(self._file(KEYPOINTS, task), identity_of((detected, detector)), Detected)
        made = []
        for number, sample in enumerate(pairs):
            made.append(kept.get(f"{sample.digest} {most}", partial(detected, detector, sample, most)))
            progress(f"{task.name} on {task.pairs}", number + 1, len(pairs))
        return made

    def _file(self, kind: str, task: _Task) -> Path | None:
        if self._output is None:
            return None
        return self._output / kind / _plain(task.pairs) / f"{_plain(task.name)}.jsonl"


def _by_processes(bench: _Bench, tasks: Sequence[_Task], jobs: int, progress: Step) -> Iterator[Rows]:
    """Rows of every task, in order; raises OutputError where a process was killed."""
    others = set(active_children())
    processes = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, bench.given)
    try:
        for number, made in enumerate(processes.map(_measured, tasks)):
            progress("methods and detectors", number + 1, len(tasks))
            yield made
    except BrokenProcessPool as error:
        hint = "give fewer jobs if memory ran out; with -o FOLDER a repeated command goes on with what is there"
        raise OutputError("one of the processes was killed", where="--jobs", hint=hint) from error
    finally:
        for process in set(active_children()) - others:  # of an ended run too, which would wait for what they are at
            process.terminate()
        processes.shutdown(cancel_futures=True)


_ours: list[_Bench] = []  # of a process that measures


def _begin(*given: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the process that asks says what there is to say
    Thread(target=_end_with_parent, daemon=True).start()
    _ours.append(_Bench(*given))


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _measured(task: _Task) -> Rows:
    return _ours[0](task, lambda *_: None)


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
