"""Re-rankers compared on the same windows: predictions first, to a file; scores from that file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomatch.errors import UsageError
from geomatch.evaluation import check_output
from geomatch.files import writing
from geomatch.hidden import hidden_windows
from geomatch.metrics import OVERLAP, auroc, first_hit, recall_at, wilson
from geomatch.outputs import output_file
from geomatch.query import Query
from geomatch.report import ReportTable, write_report
from geomatch.reranking.candidates import Candidates, retrieve_candidates
from geomatch.reranking.rerankers import BASELINES, Reranker, find_reranker
from geomatch.rows import read_rows, write_rows
from geomatch.sampling import WindowOptions
from geomatch.threads import one_thread
from geomatch.tile_index import TileIndex

CANDIDATES = 100
PREDICTIONS, SCORES, REPORT = "reranked.jsonl", "reranked.json", "reranked.html"
RECALL_AT = (1, 5, 10)
PLAIN, ALL = "none", "all"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prediction:
    """What re-rankers made of the candidates of a window.

    Attributes:
        on_map: whether it was cut within the map.
        margin: of the first retrieved tile's score over the best that does not overlap it.
        retrieved: candidates.
        ranks: by re-ranker, of the first that overlaps the true place by OVERLAP, from 1; 0 for none.
        present: by re-ranker, how likely it holds that one of them is right.
        cpu_s: by re-ranker, without the retrieval.
    """

    on_map: bool
    margin: float
    retrieved: int
    ranks: dict[str, int]
    present: dict[str, float]
    cpu_s: dict[str, float]


def rerankers_named(names: str) -> list[Reranker]:
    """Re-rankers by their names, separated by commas, or all; the retrieval itself is among them in any case.

    Raises:
        UsageError: there is none of that name.
        InputError: a file of weights cannot be used.
    """
    chosen = [*BASELINES, "graph"] if names == ALL else [name.strip() for name in names.split(",")]
    return [find_reranker(name) for name in dict.fromkeys([PLAIN, *chosen])]


def compare(
    index: TileIndex,
    sar: str | os.PathLike[str],
    options: WindowOptions,
    rerankers: Sequence[Reranker],
    *,
    absent: str | os.PathLike[str] | None = None,
    output: Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Predict, write the predictions, score the file.

    Args:
        index: of the map.
        sar: a georeferenced scene that shows it.
        options: which windows; as large as the index's tiles.
        rerankers: to compare.
        absent: a scene that does not show the map; as many windows of it are asked too.
        output: folder for predictions, scores and a report, created where it is missing; default none.
        progress: called with the stage, what is done and the total.

    Raises:
        UsageError: the windows are not of the tiles' size.
        InputError: as ``hidden_windows``.
        OutputError: the folder cannot be written.
    """
    size = index.manifest.tiles.size_px
    if options.shape_px != (size, size):
        hint = f"say --size {size}, or build an index with --tile {options.size_px}"
        raise UsageError(f"windows of {options.shown} px are not of the size of the index's tiles", hint=hint)
    if len({one.name for one in rerankers}) != len(rerankers):
        raise ValueError("two re-rankers of one name cannot be told apart")
    if output is not None:
        check_output(output)
    made = list(_predict(index, sar, options, rerankers, on_map=True, progress=progress))
    if absent is not None:
        made += _predict(index, absent, options, rerankers, on_map=False, progress=progress)
    if output is None:
        return score(made)
    with writing(output):
        output.mkdir(exist_ok=True)
    with output_file(output / PREDICTIONS) as file:
        write_rows(made, file)
    scores = score(read_rows(output / PREDICTIONS, Prediction))
    with output_file(output / SCORES) as file:
        file.write_text(json.dumps(scores, indent=1, allow_nan=False) + "\n")
    intro = "Tiles that windows of a SAR scene retrieve, put into another order. Computed from reranked.jsonl."
    write_report(output / REPORT, f"Re-ranking on {index.path.name}", intro, tables(scores))
    return scores


def _predict(
    index: TileIndex,
    sar: str | os.PathLike[str],
    options: WindowOptions,
    rerankers: Sequence[Reranker],
    *,
    on_map: bool,
    progress: Progress,
) -> Iterator[Prediction]:
    stage = "windows" if on_map else "off the map"
    peaks = any(one.peaks for one in rerankers)

    def told(done: int, total: int) -> None:
        progress(stage, done, total)

    for window in hidden_windows(index, sar, options, on_map=on_map, progress=told):
        strip = window.raw.at()
        with one_thread():
            query = Query.of(index, strip)
            if not query.windows or not query.tiled:
                yield Prediction(on_map, 0.0, 0, {one.name: 0 for one in rerankers}, {}, {})
                continue
            template = query.windows[0].template if peaks else None
            found = retrieve_candidates(index, query.vectors[0], CANDIDATES, template)
            corner = None if window.truth is None else window.truth.center_px - strip.middle_px
            yield _prediction(found, corner, rerankers)


def _prediction(found: Candidates, corner_px: NDArray[np.float64] | None, rerankers: Sequence[Reranker]) -> Prediction:
    ranks, present, cpu_s = {}, {}, {}
    size = (found.size_px, found.size_px)
    for one in rerankers:
        start = time.process_time()
        made = one(found)
        cpu_s[one.name] = time.process_time() - start
        present[one.name] = made.present
        placed = found.corners_px[made.order].astype(np.float64)
        ranks[one.name] = 0 if corner_px is None else first_hit(placed, corner_px, size, OVERLAP)
    return Prediction(corner_px is not None, margin(found), len(found), ranks, present, cpu_s)


def margin(found: Candidates) -> float:
    """By how much the first tile scores above the best that does not overlap it; all of its score where all do."""
    if not len(found):
        return 0.0
    apart = (np.abs(found.corners_px - found.corners_px[0]) >= found.size_px).any(axis=1)
    return float(found.scores[0] - (found.scores[apart].max() if apart.any() else 0.0))


def score(made: Sequence[Prediction]) -> dict[str, Any]:
    """The measures of some predictions, JSON-able.

    ``rerankers`` has a row for each: ``recall`` at RECALL_AT and ``recall_ci`` of the first (Wilson); ``cut``, by how
    much of it 1 - recall@1 of the retrieval is cut; ``gained`` and ``lost`` windows against it; ``selective``, recall@1
    on every second window where it is used below the margin that does best on the others, beside ``plain_there`` and
    ``always_there``, the retrieval's and its own on the same; ``present_auroc`` on the map against off it; ``cpu_ms``.
    ``reachable`` is the share of windows with the true place among the candidates.
    """
    seen = [one for one in made if one.on_map]
    names = list(made[0].ranks) if made else []
    return {
        "windows": len(seen),
        "absent_windows": len(made) - len(seen),
        "reachable": float(np.mean([one.ranks[PLAIN] > 0 for one in seen])) if seen else None,
        "rerankers": [_row(name, made) for name in names],
    }


def _row(name: str, made: Sequence[Prediction]) -> dict[str, Any]:
    seen = [one for one in made if one.on_map]
    ranks, plain = (np.array([one.ranks[of] for one in seen]) for of in (name, PLAIN))
    misses = int((plain != 1).sum())
    told = [(one.on_map, one.present[name]) for one in made if name in one.present]
    sure = [[present for on_map, present in told if on_map == asked] for asked in (True, False)]
    spent = [one.cpu_s[name] for one in made if name in one.cpu_s]
    return {
        "reranker": name,
        "recall": {str(k): recall_at(ranks, k) for k in RECALL_AT},
        "recall_ci": wilson(int((ranks == 1).sum()), len(seen)),
        "cut": float(1 - (ranks != 1).sum() / misses) if misses else None,
        "gained": int(((ranks == 1) & (plain != 1)).sum()),
        "lost": int(((ranks != 1) & (plain == 1)).sum()),
        **_selective(np.array([one.margin for one in seen]), plain == 1, ranks == 1),
        "present_auroc": auroc(*sure),
        "cpu_ms": 1000 * float(np.mean(spent)) if spent else None,
    }


def _selective(margins: NDArray[np.float64], plain: NDArray[np.bool_], own: NDArray[np.bool_]) -> dict[str, Any]:
    """The threshold on the margin is chosen on the even windows and tried on the odd ones."""
    if len(margins) < 2:
        return {"selective": None, "plain_there": None, "always_there": None, "margin": None}
    chosen, tried = np.s_[::2], np.s_[1::2]
    levels = np.concatenate([[-np.inf], np.sort(margins[chosen])])
    below = margins[chosen] <= levels[:, None]
    hits = np.where(below, own[chosen], plain[chosen]).sum(axis=1)
    level = float(levels[int(hits.argmax())])
    used = margins[tried] <= level
    return {
        "selective": float(np.where(used, own[tried], plain[tried]).mean()),
        "plain_there": float(plain[tried].mean()),
        "always_there": float(own[tried].mean()),
        "margin": level if np.isfinite(level) else None,
    }


def tables(scores: dict[str, Any]) -> list[ReportTable]:
    """What is printed."""
    columns = ("re-ranker", "R@1", "R@5", "R@10", "misses cut", "gained, lost", "selective", "AUROC", "CPU ms")
    rows = []
    for row in scores["rerankers"]:
        low, high = row["recall_ci"]
        parts = [
            row["reranker"],
            f"{row['recall']['1']:.3f} [{low:.3f}, {high:.3f}]",
            f"{row['recall']['5']:.3f}",
            f"{row['recall']['10']:.3f}",
            _shown(row["cut"], ".0%"),
            f"{row['gained']}, {row['lost']}",
            f"{_shown(row['selective'], '.3f')} ({_shown(row['plain_there'], '.3f')})",
            _shown(row["present_auroc"], ".3f"),
            _shown(row["cpu_ms"], ".1f"),
        ]
        rows.append(tuple(parts))
    caption = (
        f"n = {scores['windows']} windows, of {_shown(scores['reachable'], '.3f')} the place is among the {CANDIDATES}"
        f" candidates; {scores['absent_windows']} off the map. Selective: used below a margin chosen on every other"
        " window, on the rest, where the retrieval has what stands in brackets."
    )
    return [ReportTable("Re-ranking", columns, rows, caption)]


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
