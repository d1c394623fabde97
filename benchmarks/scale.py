"""What a map costs before it is built: a model fitted to three builds, and a fourth that it has to predict.

Maps are those of benchmarks/varied.py; their indexes, of about 0.1, 1, 3 and 10 million tiles, are built as geomatch
builds them when nothing is told (stride 16 px, the default encoder), each on one thread of a process of its own, and
searched from disk by SAR windows, turn by turn in ROUNDS rounds, of whose times the best count. Each cost is taken as a
constant and a share of the megapixels, fitted by least squares of the relative errors to all builds but --predict,
which it then has to predict. From it follows what a million square kilometres cost at 0.3, 1 and 10 m; money by
--core-hour and --gb-month, which are assumptions.

    python benchmarks/scale.py [--tiles 100000 1000000 10000000] [--predict 3000000] [--into docs/scale.md] [-o FILE]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import common
import gallery
import numpy as np
import torch
from common import LA_VAL, Bar, SarWindows, Worker, into, show
from numpy.typing import NDArray
from search import STRIP, Searcher
from torch.utils.flop_counter import FlopCounterMode
from varied import Built, indexed

from geomatch import defaults
from geomatch.index.kinds import PCA_DIMENSIONS
from geomatch.tile_index import TileIndex
from geomatch.tiles import STRIDE_PX, TILE_PX, vector_size
from geomatch.weights import Weights

QUERIES = 60
ROUNDS = 3  # a search takes milliseconds, in which others on the machine show
AREA_KM2 = 1e6
GSDS_M = (0.3, 1.0, 10.0)
PIECE_PX = 256  # that operations are counted on
WITHIN = 0.25  # of a cost, that the prediction may be off
COSTS = ("CPU s", "features MB", "vectors MB", "table MB", "search ms")


@dataclass(frozen=True)
class Costs:
    """Of one index, in the order of COSTS, and what they grow with."""

    megapixels: float
    tiles: int
    vectors: str
    peak_rss_mb: float
    measured: tuple[float, ...]

    @classmethod
    def of(cls, built: Built, search_ms: float) -> Costs:
        sizes = [size / 1e6 for size in (built.features_bytes, built.vectors_bytes, built.table_bytes)]
        measured = (built.cpu_s, *sizes, search_ms)
        return cls(built.megapixels, built.tiles, built.vectors, built.peak_rss_mb, measured)


@dataclass(frozen=True)
class Model:
    """Each cost as a constant and so much for every megapixel."""

    constants: NDArray[np.float64]
    slopes: NDArray[np.float64]

    @classmethod
    def fitted(cls, builds: list[Costs]) -> Model:
        size = np.array([build.megapixels for build in builds])
        pairs = []
        for measured in np.array([build.measured for build in builds]).T:
            design = np.stack([np.ones_like(size), size], axis=1) / measured[:, None]
            pairs.append(np.linalg.lstsq(design, np.ones_like(size), rcond=None)[0])
        constants, slopes = np.transpose(pairs)
        return cls(constants, slopes)

    def at(self, megapixels: float) -> NDArray[np.float64]:
        """All costs of a map."""
        return self.constants + self.slopes * megapixels


def search_ms(index: TileIndex, queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """CPU milliseconds of a query, asked with the others of a strip: of each strip, in a process of its own."""
    worker = Worker(Searcher, index.path, queries[0])
    strips = np.split(queries, range(STRIP, len(queries), STRIP))
    asked = [worker.ask(strip).cpu_s / len(strip) for strip in strips]
    worker.close()
    return 1000 * np.array(asked)


def operations() -> tuple[float, float]:
    """Floating-point operations of the network per pixel, and of the PCA per tile."""
    net = Weights.find(defaults.ENCODER).net()
    planes = torch.zeros(1, net.shape.planes("optical"), PIECE_PX, PIECE_PX)
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        features = net(planes, "optical")
    per_px = counted.get_total_flops() / PIECE_PX**2
    return per_px, 2.0 * vector_size(features.shape[1], TILE_PX) * PCA_DIMENSIONS


def queries_of(data: Path, index: TileIndex, seed: int) -> NDArray[np.float32]:
    corners = common.random_corners(LA_VAL, gallery.SIZE_PX, QUERIES, seed)
    return gallery.query_vectors(gallery.query_features(SarWindows(data, LA_VAL), corners, encoder=index.encoder))


def plan_rows(model: Model, core_hour: float, gb_month: float) -> list[list[str]]:
    """A million square kilometres at several pixel sizes."""
    per_px, per_tile = operations()
    rows = []
    for gsd in GSDS_M:
        megapixels = AREA_KM2 / gsd**2
        tiles = megapixels * 1e6 / STRIDE_PX**2
        cpu_s, *sizes, ms = model.at(megapixels)
        hours, terabytes = cpu_s / 3600, sum(sizes) / 1e6
        operations_done = per_px * megapixels * 1e6 + per_tile * tiles
        rows.append([f"{gsd:g} m", f"{megapixels:.3g}", f"{tiles:.3g}", f"{operations_done:.2g}", f"{hours:,.1f}",
                     f"{hours * core_hour:,.2f}", f"{terabytes:.3g}", f"{1000 * terabytes * gb_month:,.2f}",
                     f"{ms / 1000:,.3g}"])  # fmt: skip
    return rows


def main() -> None:
    parser = common.parser(__doc__, windows=0)
    parser.add_argument("--tiles", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--predict", type=int, default=3_000_000)
    parser.add_argument("--core-hour", type=float, default=0.04, help="money for an hour of one core")
    parser.add_argument("--gb-month", type=float, default=0.02, help="money for a GB kept a month")
    parser.add_argument("--into", type=Path, help="document that gets the tables")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    made = [indexed(data, tiles) for tiles in (*given.tiles, given.predict)]
    asked = [queries_of(data, index, given.seed) for index, _ in made]
    rounds = [
        [search_ms(index, queries) for (index, _), queries in zip(made, asked, strict=True)] for _ in range(ROUNDS)
    ]
    searches = [float(np.median(np.min(times, axis=0))) for times in zip(*rounds, strict=True)]
    builds = [Costs.of(built, took) for (_, built), took in zip(made, searches, strict=True)]
    *used, kept = builds
    model = Model.fitted(used)
    predicted = model.at(kept.megapixels)
    measured = [
        [f"{build.tiles:,}", f"{build.megapixels:,.0f}", build.vectors.rpartition("L2norm,")[2],
         *map(_figure, build.measured), f"{build.peak_rss_mb:,.0f}"]
        for build in builds
    ]  # fmt: skip
    checked = [[name, _figure(c), f"{s:.4g}", _figure(p), _figure(m), f"{p / m - 1:+.1%}"] for name, c, s, p, m in
               zip(COSTS, model.constants, model.slopes, predicted, kept.measured, strict=True)]  # fmt: skip
    tables: dict[str, tuple[tuple[str, ...], list[list[str]]]] = {
        "builds": (("tiles", "Mpx", "vectors", *COSTS, "peak MB"), measured),
        "model": (("cost", "constant", "per Mpx", f"predicted, {kept.tiles:,} tiles", "measured", "off by"), checked),
        "plan": (("pixel", "Mpx", "tiles", "operations", "core hours", "money to build", "TB", "money a month",
                  "CPU s a query"), plan_rows(model, given.core_hour, given.gb_month)),
    }  # fmt: skip
    for name, (columns, rows) in tables.items():
        show(name, columns, rows)
        if given.into is not None:
            into(given.into, name, columns, rows)
    bars = [Bar(f"{name}: prediction off by", float(abs(p / m - 1)), WITHIN, at_least=False)
            for name, p, m in zip(COSTS, predicted, kept.measured, strict=True)]  # fmt: skip
    told: dict[str, Any] = {"builds": [asdict(build) for build in builds], "constants": model.constants.tolist(),
                            "slopes": model.slopes.tolist(), "predicted": predicted.tolist()}  # fmt: skip
    common.finish(given.output, told, bars)


def _figure(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    main()
