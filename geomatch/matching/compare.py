"""All methods on all sets of pairs, as ``geomatch evaluate matching`` prints it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geomatch.console import Step
from geomatch.errors import InputError, UsageError
from geomatch.files import check_target, published, writing
from geomatch.matching.evaluation import Prediction, predict, prediction_of, repeated, score
from geomatch.matching.matches import Matcher
from geomatch.matching.methods import METHODS, detectors, method
from geomatch.matching.samples import ALIGNED, SOURCES, WARPED, Sample, samples
from geomatch.pairs import PairSource, ScenePairs
from geomatch.report import Cell, ReportTable
from geomatch.rows import line_of, read_rows

PREDICTIONS, SCORES, ASKED = "predictions.jsonl", "scores.json", "asked.json"
WARPS = {"aligned": ALIGNED, "warped": WARPED}
IMAGERY = Path("../shared/data")
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
    """

    pairs: tuple[str, ...]
    methods: str = EVERY
    detectors: str = EVERY
    count: int = 400
    size_px: int = 256
    keypoints: int = 300
    seed: int = 0


def compare(asked: Comparison, data: Path | None, output: Path | None, progress: Step) -> dict[str, Any]:
    """Scores of methods and detectors.

    Args:
        asked: what is compared.
        data: folder of the real imagery.
        output: folder for predictions and scores; methods and sets that are there are not run again.
        progress: told the pairs done.

    Raises:
        UsageError: an unknown name, or a folder of another comparison.
        InputError: a set of pairs cannot be read.
        OutputError: the folder cannot be written.
    """
    matchers = {spec: method(spec) for spec in _split(asked.methods, METHODS)}
    known = detectors()
    found = {name: known[name] for name in _named(asked.detectors, known, "--detectors")}
    sources = {name: _source(name, data) for name in asked.pairs}
    folder = None if output is None else _prepared(asked, output)
    sets: dict[str, list[Sample]] = {}
    for name, source in sources.items():
        for kind, warp in WARPS.items():
            made = samples(source, asked.count, warp, size_px=asked.size_px, seed=asked.seed)
            sets[f"{name}, {kind}"] = list(made)
    predictions = _predictions(matchers, sets, folder, progress)
    scores = {
        "asked": asdict(asked),
        "methods": score(predictions),
        "detectors": repeated(found, sets, asked.keypoints, progress),
    }
    if folder is not None:
        with published(folder / SCORES) as part:
            part.write_text(json.dumps(scores, indent=1, allow_nan=False) + "\n")
    return scores


def _predictions(
    matchers: dict[str, Matcher], sets: dict[str, list[Sample]], folder: Path | None, progress: Step
) -> list[Prediction]:
    """Of all methods on all sets; each appended to the folder's file as soon as it is made."""
    file = None if folder is None else folder / PREDICTIONS
    made = read_rows(file, prediction_of) if file is not None and file.is_file() else []
    there = {(one.method, one.pairs, one.number) for one in made}
    for pairs, chosen in sets.items():
        for name, matcher in matchers.items():
            for number, sample in enumerate(chosen):
                if (name, pairs, number) not in there:
                    made.append(predict(name, matcher, pairs, number, sample))
                    if file is not None:
                        with writing(file), file.open("a") as out:
                            out.write(line_of(made[-1]))
                progress(f"{name}, {pairs}", number + 1, len(chosen))
    return [one for one in made if one.method in matchers and one.pairs in sets and one.number < len(sets[one.pairs])]


def _prepared(asked: Comparison, output: Path) -> Path:
    """The folder, which may hold predictions on the same pairs."""
    check_target(output, directory=True)
    same = json.dumps({"size_px": asked.size_px, "seed": asked.seed})
    file = output / ASKED
    with writing(output):
        output.mkdir(exist_ok=True)
        if file.is_file() and file.read_text() != same:
            raise UsageError("holds a comparison on other pairs", where=output, hint="name another folder")
        file.write_text(same)
    return output


def _source(name: str, data: Path | None) -> PairSource:
    """A named set, or two files."""
    if "," in name:
        optical, _, sar = name.partition(",")
        return ScenePairs(optical, sar)
    if name not in SOURCES:
        hint = f"known are {', '.join(SOURCES)}, or give OPTICAL.tif,SAR.tif"
        raise UsageError(f"unknown pairs {name!r}", where="--pairs", hint=hint)
    folder = data or IMAGERY
    if name != "simulated" and not folder.is_dir():
        raise InputError(
            "no imagery there", where=folder, hint="name its folder with --data, or ask for simulated pairs"
        )
    return SOURCES[name](folder)


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
        columns = ("pairs", "detector", "repeatability at 2 px", "keypoints", "coverage")
        made.append(ReportTable("Detectors", columns, [_detector_row(row) for row in scores["detectors"]]))
    return made


_COUNTS = ("method", "corners ≤ 10 px", "≤ 5 px", "NC", "NCM", "CMR", "MS")
_FITS = ("method", "RMS_all", "RMS_LOO", "N_red", "CPU s")


def _counts(row: dict[str, Any]) -> Sequence[Cell]:
    low, high = row["registered_ci"]["10"]
    return (
        row["method"],
        f"{row['registered']['10']:.3f} [{low:.3f}, {high:.3f}]",
        f"{row['registered']['5']:.3f}",
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
        f"{row['keypoints']:.0f}",
        f"{row['coverage']:.2f}",
    )
