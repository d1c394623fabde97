"""Fits the confidence of an answer and its error radius, and checks both on queries that were not used in the fit.

    python benchmarks/calibrate.py [--windows 250] [--encoder structural] [-o bench/calibration.json]

Fit of the structural encoder: windows of Los Angeles east and of a simulated city, each on its own map. Check: the
validation block of Los Angeles west. A learned encoder was trained on the east scene: its fit takes the northern half
of the block in its place, its check the southern half. As many queries are off the map, a third each of the other scene
of Los Angeles, of OMBRIA's places and of drawn cities (benchmarks/elsewhere.py), those of the check other places, or of
that scene other windows; off the simulated city, of another one. Windows of 104, 200 and 400 px and half as many strips
of 104 × 520 px, once with the map's pixels and once without; and a tenth as many of 200 and 400 px turned and scaled at
random, with their heading unknown or told to 10 degrees and their scale told to 10 %, and a fortieth of 200 × 500 px
with their heading unknown and their scale told to a factor of two, which take long.

Prints the weights and radii that stand in ``geomatch/confidence.py`` and the sharpness in ``geomatch/posterior.py``,
and on the check the expected calibration error, area under the ROC curve, and how many answers called "located" are
wrong. Answers stay in bench/calibration; remove it to ask again. The two scenes of Los Angeles share a strip of 177 px,
so up to one in sixty of the windows counted as off the map is on it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import elsewhere
import faiss
import numpy as np
from common import BENCH, LA_VAL, STRUCTURAL, cell, data_or_skip, finish, into, parser, show
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from geomatch import confidence
from geomatch.attitude import ANY_TURN_DEG, Tolerance
from geomatch.evaluation import Prediction, predict
from geomatch.files import published
from geomatch.index.build import BuildOptions, build_index
from geomatch.locator import Locator
from geomatch.metrics import auroc, calibration_error
from geomatch.posterior import SHARPNESS, shares
from geomatch.raster import open_raster
from geomatch.rows import read_rows, write_rows
from geomatch.sampling import WindowOptions
from geomatch.simulation import simulate_city

SIZES_PX = (104, 200, 400)
MODELS = ("pixels", "features", "sought")
RIDGE = 1e-3
TINY = 1e-9  # no answer is surer, either way
CALIBRATION = BENCH / "calibration"
FITTED_SEED, CHECKED_SEED = 11, 12
CITIES = (201, 202)
ON = "on the map"


@dataclass(frozen=True)
class Scene:
    """A map, the SAR scene that shows it, and by what they are those that do not."""

    name: str
    optical: Path
    sar: Path
    elsewhere: dict[str, list[Path]]
    bbox: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Query:
    """One answer: its signs, and whether it is right; of what, if it is off the map."""

    scene: str
    size: str
    kind: str
    prediction: Prediction

    @property
    def right(self) -> bool:
        return self.prediction.right


def main() -> None:
    arguments = parser(__doc__, windows=250)
    arguments.add_argument("--encoder", default=STRUCTURAL)
    arguments.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    arguments.add_argument("--into", type=Path, help="document that gets the check of the model that knows the pixels")
    options = arguments.parse_args()
    data = data_or_skip(options.data)
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        fitted, checked = _scenes(data, Path(folder), learned=options.encoder != STRUCTURAL)
        for scene in fitted + checked:
            build_index(
                scene.optical, _index(scene, Path(folder)), BuildOptions(bbox=scene.bbox, encoder=options.encoder)
            )
        results: dict[str, object] = {}
        model = confidence.model_of(options.encoder)
        for name in options.models:
            cut = partial(_queries, folder=Path(folder), windows=options.windows, name=name)
            fit = [query for scene in fitted for query in cut(scene, seed=FITTED_SEED)]
            check = [query for scene in checked for query in cut(scene, seed=CHECKED_SEED)]
            print(
                f"SHARPNESS = {_sharpness(fit):.3g}  # in use: {SHARPNESS:g}; the check alone: {_sharpness(check):.3g}"
            )
            weights = _fit(Table.of(fit))
            print(f"{name} = ({', '.join(f'{weight:.3g}' for weight in weights)})  # in use: {getattr(model, name)}")
            results[name] = weights.tolist()
            report = results[f"{name} on the check"] = _report(name, check, weights, model.ambiguous_from)
            if options.into is not None and name == "pixels":
                into(options.into, "calibration", tuple(report[0]), [list(map(str, row.values())) for row in report])
            results[f"{name}, radius in px"] = _radii(fit, check)
    finish(options.output, results)


def _scenes(data: Path, folder: Path, *, learned: bool) -> tuple[list[Scene], list[Scene]]:
    """Those to fit on, and those to check on."""
    cities = [simulate_city(folder / f"city{seed}", size_px=2048, seed=seed, strips=1) for seed in CITIES]
    west, east = data / "los_angeles_west", data / "los_angeles_east"
    with open_raster(west / "optical.tif", need_grid=True) as raster:
        block = raster.grid.window(LA_VAL.col0, LA_VAL.row0, LA_VAL.width, LA_VAL.height)
    x, y = block.to_map(block.corners_px).T
    left, bottom, right, top = float(x.min()), float(y.min()), float(x.max()), float(y.max())
    middle = (bottom + top) / 2

    def off(part: elsewhere.Part, neighbour: Path) -> dict[str, list[Path]]:
        return {"scene": [neighbour], "OMBRIA": [elsewhere.ombria(data, part)[1]], "drawn": elsewhere.drawn(part)}

    def of_west(name: str, bottom: float, top: float, part: elsewhere.Part) -> Scene:
        others = off(part, east / "sar.tif")
        return Scene(name, west / "optical.tif", west / "sar.tif", others, (left, bottom, right, top))

    city = Scene("simulated city", cities[0].ortho, cities[0].sar, {"city": [cities[1].sar]})
    if learned:
        return [of_west("block, north", middle, top, "fit"), city], [of_west("block, south", bottom, middle, "check")]
    scene = Scene("los angeles east", east / "optical.tif", east / "sar.tif", off("fit", west / "sar.tif"))
    return [scene, city], [of_west("block", bottom, top, "check")]


def _index(scene: Scene, folder: Path) -> Path:
    return folder / f"{scene.name}.gmi"


def _queries(scene: Scene, *, folder: Path, windows: int, seed: int, name: str) -> list[Query]:
    """Answers to windows of the map and to as many off it, as the model of that name is for."""
    locator = Locator.open(_index(scene, folder))
    if name == "features":
        locator = Locator(locator.index, None)
    plain = [WindowOptions(windows=windows, size_px=size, seed=seed) for size in SIZES_PX]
    plain.append(WindowOptions(windows=windows // 2, size_px=SIZES_PX[0], length_px=5 * SIZES_PX[0], seed=seed))
    cuts = _sought(windows, seed) if name == "sought" else plain
    files = [(ON, scene.sar, 1)]
    files += [(kind, file, len(scene.elsewhere) * len(of)) for kind, of in scene.elsewhere.items() for file in of]
    found = []
    for (kind, file, share), (number, whole) in product(files, enumerate(cuts)):
        cut = replace(whole, windows=max(1, whole.windows // share))
        of = (Path(locator.index.encoder.name).stem, scene.name, name, kind, file.stem, number, cut.windows, seed)
        kept = CALIBRATION / f"{'-'.join(map(str, of)).replace(' ', '')}.jsonl"
        if not kept.is_file():
            CALIBRATION.mkdir(parents=True, exist_ok=True)
            with published(kept) as part:
                write_rows(list(predict(locator, file, cut, on_map=kind == ON)), part)
        found += [Query(scene.name, cut.shown, kind, made) for made in read_rows(kept, Prediction)]
    return [query for query in found if query.prediction.signs is not None]


def _sought(windows: int, seed: int) -> list[WindowOptions]:
    """Windows whose heading and scale are to be found."""
    unknown = WindowOptions(
        max(1, windows // 10), seed=seed, rotate="any", scale_percent=10, tolerance=Tolerance(ANY_TURN_DEG, 1.1)
    )
    rough = replace(unknown, rotate=10.0, tolerance=Tolerance(10.0, 1.1))
    squares = [replace(cut, size_px=size) for cut in (unknown, rough) for size in (200, 400)]
    doubled = replace(unknown, windows=max(1, windows // 40), scale_percent=100, tolerance=Tolerance(ANY_TURN_DEG, 2.0))
    return [*squares, replace(doubled, length_px=500)]


@dataclass(frozen=True)
class Table:
    """Answers: signs [N x S], the share of the probability that the best place has [N], and whether it is right [N]."""

    signs: NDArray[np.float64]
    share: NDArray[np.float64]
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, queries: Sequence[Query]) -> Table:
        made = [query.prediction for query in queries]
        share = np.array([shares(one.stand)[0] for one in made])
        return cls(np.array([one.signs for one in made]), share, np.array([one.right for one in made]))

    def confidence(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """As the Locator's: the logistic model's, but no more than the place's share."""
        return np.minimum(1 / (1 + np.exp(-self.signs @ weights)), self.share)


def _fit(table: Table) -> NDArray[np.float64]:
    """Weights [S] by the likelihood of the confidence, with a slight ridge: logistic regression capped by the share."""
    side = np.where(table.right, 1.0, -1.0)

    def plain(weights: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -side * (table.signs @ weights)).mean() + _ridge(weights))

    def capped(weights: NDArray[np.float64]) -> float:
        sure = np.clip(table.confidence(weights), TINY, 1 - TINY)
        return float(-np.log(np.where(table.right, sure, 1 - sure)).mean() + _ridge(weights))

    begun = minimize(plain, np.zeros(table.signs.shape[1])).x
    return np.asarray(minimize(capped, begun, method="Nelder-Mead", options={"maxiter": 20_000, "fatol": 1e-9}).x)


def _ridge(weights: NDArray[np.float64]) -> float:
    return float(RIDGE * np.square(weights[1:]).sum())


def _sharpness(queries: Sequence[Query]) -> float:
    """The factor at which the places' shares are likeliest, over queries one of whose places is right."""
    known = [query.prediction for query in queries if query.prediction.right_place is not None]

    def loss(logarithm: float) -> float:
        found = [shares(one.stand, float(np.exp(logarithm)))[one.right_place] for one in known]
        return -float(np.log(np.maximum(found, 1e-12)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 4.0), method="bounded").x))


def _report(
    name: str, check: Sequence[Query], weights: NDArray[np.float64], ambiguous_from: float
) -> list[dict[str, object]]:
    rows = []
    others = [kind for kind in dict.fromkeys(query.kind for query in check) if kind != ON]
    for size in (*dict.fromkeys(query.size for query in check), None):
        part = [query for query in check if size in (None, query.size)]
        if not part:
            continue
        table = Table.of(part)
        right, sure = table.right, table.confidence(weights)
        kinds = np.array([query.kind for query in part])
        located, placed = sure >= confidence.LOCATED_FROM, sure >= ambiguous_from
        rows.append(
            {
                "window px": size or "all",
                "queries": len(part),
                "ECE": f"{calibration_error(sure, right):.3f}",
                "AUROC right": cell(auroc(sure[right], sure[~right])),
                **{f"AUROC, {kind}": cell(auroc(sure[kinds == ON], sure[kinds == kind])) for kind in others},
                "wrong among located": f"{(located & ~right).sum()} of {located.sum()}",
                "right that are located": f"{(located & right).sum()} of {right.sum()}",
                "right that get a place": f"{(placed & right).sum()} of {right.sum()}",
                "off the map that are located": f"{(located & (kinds != ON)).sum()} of {(kinds != ON).sum()}",
                "that get a place": f"{(placed & (kinds != ON)).sum()}",
            }
        )
    show(f"{name} on the check", tuple(rows[0]), [tuple(row.values()) for row in rows])
    return rows


def _radii(fit: Sequence[Query], check: Sequence[Query]) -> dict[str, float]:
    """95th percentile of the error of right answers, pixels of the map."""

    def percentile(queries: Sequence[Query]) -> float:
        errors = [query.prediction.best_error_px for query in queries if query.right]
        return float(np.percentile(errors, 95))

    by_scene = {scene: [query for query in fit if query.scene == scene] for scene in {query.scene for query in fit}}
    radii = {f"fit, {scene}": percentile(queries) for scene, queries in sorted(by_scene.items())}
    radii["check"] = percentile(check)
    show("95 % of right answers are nearer than", ("queries", "px"), [(k, f"{v:.2f}") for k, v in radii.items()])
    return radii


if __name__ == "__main__":
    main()
