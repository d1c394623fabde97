"""What runs the network: nearness to torch in float32, recall and speed, on the validation block of Los Angeles.

Contenders take turns window by window and block by block, on one thread, in an order that rotates. Windows are SAR and
optical ones at the same random places; blocks are those that an index is built from, with their margins, and megapixels
are of the map without them. CPU time is split into the image's gradients, the rest of the network's input (planes), the
structure at either cell, the network, what joins the two, and for blocks the map's stretching; its pixels come decoded
from GDAL's cache.

Recall is that of the SAR windows' vectors in an index that the same backend built; a window counts when one of its
first k tiles lies within half a stride + 4 px of it along both axes. For 8-bit integers the windows also tell what
the choices in ``geomatch.quantised`` are worth.

    python benchmarks/backends.py [--encoder la3] [--windows 300] [-o FILE]
"""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import common
import gallery
import numpy as np
from common import LA_VAL, Area, Bar, SarWindows
from numpy.typing import NDArray

from geomatch import backends, defaults, learned, quantised, structure, tiles
from geomatch.backends import load_runner
from geomatch.images import OpticalStretch
from geomatch.index.build import build_index
from geomatch.index.job import BuildJob
from geomatch.index.plan import BuildOptions, blocks
from geomatch.nets.shapes import MODALITIES, EncoderShape, Modality
from geomatch.planes import CELL_PX, planes
from geomatch.raster import open_raster
from geomatch.structure import Dense
from geomatch.weights import Weights

SIZE_PX = tiles.TILE_PX
WARM_UP = 3  # windows that do not count
LEAST_COSINE = 0.999
LEAST_WINDOWS_PER_CPU_S = 200.0
LEAST_MPX_PER_CPU_S = 8.0
STAGES = ("stretching", "gradients", "planes", "structure", "network", "joining")
BACKENDS = {  # name in the table: backend, whether in bfloat16, whatever the processor is good at; None as it is
    "torch float32": ("torch", False),
    "torch bfloat16": ("torch", True),
    "onnxruntime": ("onnxruntime", None),
    "openvino float32": ("openvino", False),
    "openvino bfloat16": ("openvino", True),
    "onnxruntime-int8": ("onnxruntime-int8", None),
    "openvino-int8": ("openvino-int8", None),
}
TRUTH = "torch float32"
AT = (1, 10)
MARGIN_PX = 4
MOST_LOST = 0.005  # of the recall in float32: one window of 300, which is as likely to be gained
FRAGMENT_PX = 1024
EVERY, WINDOWS_EACH = 5, 6  # fragments of the training split, windows in each

Image = tuple[NDArray[np.float32], NDArray[np.bool_]]


class Clock:
    """CPU seconds by stage; a stage within another one counts once."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._within: list[float] = []

    def timing(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time taken as the stage's."""

        def timed(*given: Any, **named: Any) -> Any:
            self._within.append(0.0)
            began = time.process_time()
            try:
                return call(*given, **named)
            finally:
                took = time.process_time() - began
                self.seconds[stage] += took - self._within.pop()
                if self._within:
                    self._within[-1] += took

        return timed

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


@dataclass
class Contender:
    """The encoder on one backend.

    Attributes:
        encoder: learned and structural features.
        start_s: CPU seconds until the first answer, without imports that others made before.
        clocks: of windows by modality, and of blocks.
        tile_cosines, dense_cosines: of what was measured, to TRUTH.
        queries: features of the SAR windows.
        hits: which of these have their tile among the first k.
    """

    encoder: learned.JoinedEncoder
    start_s: float = 0.0
    clock: Clock = field(default_factory=Clock)
    clocks: dict[str, Clock] = field(default_factory=dict)
    tile_cosines: list[float] = field(default_factory=list)
    dense_cosines: list[float] = field(default_factory=list)
    queries: list[Dense] = field(default_factory=list)
    hits: dict[int, NDArray[np.bool_]] = field(default_factory=dict)

    @classmethod
    def of(cls, weights: Weights[EncoderShape], backend: str, short: bool | None) -> Contender:
        began = time.process_time()
        chosen = backends.multiplies_bfloat16() if short is None else short
        with patch.object(backends, "multiplies_bfloat16", lambda: chosen):
            run = load_runner(weights, backend)
        made = cls(learned.JoinedEncoder(learned.LearnedEncoder(weights, run)))
        image = (np.zeros((1, SIZE_PX, SIZE_PX), np.float32), np.ones((SIZE_PX, SIZE_PX), np.bool_))
        made.encoder.dense(*image, "sar")
        made.start_s = time.process_time() - began
        return made

    def timed(self, call: Callable[..., Any], *given: Any) -> Any:
        """What a call gives that encodes, with each of its stages on ``clock``."""
        parts = (
            (learned.Gradients, "of", "gradients"),
            (learned, "planes", "planes"),
            (learned.Gradients, "structure", "structure"),
            (self.encoder._learned, "_run", "network"),
            (self.encoder, "dense", "joining"),
        )
        with ExitStack() as stack:
            for owner, name, stage in parts:
                stack.enter_context(patch.object(owner, name, self.clock.timing(stage, getattr(owner, name))))
            return self.clock.timing("stretching", call)(*given)

    def dense(self, image: Image, modality: Modality) -> Dense:
        """The features of an image."""
        found: Dense = self.timed(lambda: self.encoder.dense(*image, modality))
        return found

    def take_clock(self, name: str) -> None:
        """Keep what the clock shows under a name, and start anew."""
        self.clocks[name], self.clock = self.clock, Clock()


def window_images(data: Path, area: Area, count: int, seed: int) -> dict[Modality, list[Image]]:
    """Windows of both modalities at the same places."""
    sar = SarWindows(data, area)
    corners = common.random_corners(area, SIZE_PX, count, seed)
    strips = [sar.strip(corner, SIZE_PX) for corner in corners]
    optical: list[Image] = []
    with open_raster(data / area.scene / "optical.tif") as raster:
        stretch = OpticalStretch.fit(raster)
        for col, row in (corners + (area.col0, area.row0)).tolist():
            cut = raster.read(col, row, SIZE_PX, SIZE_PX, bands=stretch.bands)
            optical.append((stretch.bands_of(cut), cut.valid))
    return {"optical": optical, "sar": [(strip.image[None], strip.valid) for strip in strips]}


def in_turn(contenders: dict[str, Contender], number: int) -> list[tuple[str, Contender]]:
    """All of them, each time another one first: what comes first meets cold caches."""
    every = list(contenders.items())
    first = number % len(every)
    return every[first:] + every[:first]


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float((one * other).sum(dtype=np.float64) / np.linalg.norm(one) / np.linalg.norm(other))


def learned_part(dense: Dense) -> Dense:
    """Joined features without the structural ones."""
    return Dense(dense.values[: -structure.CHANNELS], dense.valid)


def tile_vector(dense: Dense) -> NDArray[np.float32]:
    first = np.zeros(1, np.int32)
    vector: NDArray[np.float32] = tiles.tile_vectors(dense, first, first, SIZE_PX, CELL_PX).vectors[0, 0]
    return vector


def encode_windows(contenders: dict[str, Contender], images: dict[Modality, list[Image]]) -> None:
    for modality in MODALITIES:
        for number, image in enumerate(images[modality]):
            whole = {name: contender.dense(image, modality) for name, contender in in_turn(contenders, number)}
            found = {name: learned_part(dense) for name, dense in whole.items()}
            truth, vector = found[TRUTH], tile_vector(found[TRUTH])
            for name, contender in contenders.items():
                if modality == "sar":
                    contender.queries.append(whole[name])
                contender.dense_cosines.append(cosine(found[name].values, truth.values))
                contender.tile_cosines.append(cosine(tile_vector(found[name]), vector))
                if number == WARM_UP - 1:
                    contender.clock = Clock()
        for contender in contenders.values():
            contender.take_clock(modality)


def encode_map(contenders: dict[str, Contender], data: Path, area: Area) -> None:
    """Every contender encodes the blocks of the area's index."""
    with open_raster(common.area_file(data, area, common.BENCH / "gallery"), need_grid=True) as raster:
        job = BuildJob.plan(raster, BuildOptions(encoder=common.STRUCTURAL))
        todo = list(blocks(job.window))
        for contender in contenders.values():  # the first one does not count
            replace(job, encoder=contender.encoder).encode(job.read(todo[-1]))
        for number, block in enumerate(todo):
            seen = job.read(block)
            for _, contender in in_turn(contenders, number):
                contender.timed(replace(job, encoder=contender.encoder).encode, seen)
    for contender in contenders.values():
        contender.take_clock("map")


def recall_of(contenders: dict[str, Contender], data: Path, windows: int, seed: int) -> None:
    """Every contender builds the area's index, and its windows are looked for in it."""
    map_file = common.area_file(data, LA_VAL, common.BENCH / "gallery")
    truth = common.random_corners(LA_VAL, SIZE_PX, windows, seed)
    within_px = tiles.STRIDE_PX / 2 + MARGIN_PX
    for contender in contenders.values():
        given = patch("geomatch.index.job.load_encoder", lambda *_, encoder=contender.encoder: encoder)
        with TemporaryDirectory() as folder, given:
            options = BuildOptions(encoder=contender.encoder.name, backend="torch")  # neither is looked at
            index = build_index(map_file, Path(folder) / "block.gmi", options)
            hits = index.search(gallery.query_vectors(contender.queries), max(AT))
        near = np.abs(hits.corners_px - truth[:, None]).max(axis=2) <= within_px
        contender.hits = {k: near[:, :k].any(axis=1) for k in AT}


def training_examples(data: Path) -> dict[Modality, list[NDArray[np.float32]]]:
    """Planes of windows of every fifth fragment of the training split."""
    with (data / "split.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"][::EVERY]
    areas = [Area(row["scene"], int(row["x_off_px"]), int(row["y_off_px"]), FRAGMENT_PX, FRAGMENT_PX) for row in rows]
    seen = [window_images(data, area, WINDOWS_EACH, seed=0) for area in areas]
    return {modality: [planes(*image, modality) for one in seen for image in one[modality]] for modality in MODALITIES}


def quantisations(
    weights: Weights[EncoderShape], data: Path, images: dict[Modality, list[Image]]
) -> dict[str, dict[Modality, float]]:
    """Least cosine of windows' vectors in 8 bits to float32, by how they are quantised."""
    real = training_examples(data)
    ways: dict[str, list[tuple[object, str, object]]] = {
        "as it is: the trunk, by ranges of a simulated city": [],
        "the trunk, by ranges of training fragments": [(quantised, "examples", lambda: real)],
        "every convolution, by ranges of a simulated city": [(quantised, "PART", "")],
        "every convolution, by ranges of training fragments": [
            (quantised, "PART", ""),
            (quantised, "examples", lambda: real),
        ],
    }
    exact = learned.LearnedEncoder(weights, load_runner(weights, "torch", exact=True))
    truth = {
        modality: [tile_vector(exact.dense(*image, modality)) for image in images[modality]] for modality in images
    }
    found: dict[str, dict[Modality, float]] = {}
    for way, changes in ways.items():
        with gallery.setting(*changes):
            encoder = learned.LearnedEncoder(weights, load_runner(weights, "onnxruntime-int8"))
            found[way] = {
                modality: min(
                    cosine(tile_vector(encoder.dense(*image, modality)), vector)
                    for image, vector in zip(images[modality], truth[modality], strict=True)
                )
                for modality in MODALITIES
            }
    return found


def results_of(contender: Contender, windows: int) -> dict[str, Any]:
    """Seconds per window and Mpx, by stage; cosines."""
    scales = {"optical": windows - WARM_UP, "sar": windows - WARM_UP, "map": LA_VAL.megapixels}
    cpu_ms: dict[str, dict[str, float]] = {
        name: {stage: 1000 * clock.seconds[stage] / scales[name] for stage in STAGES}
        for name, clock in contender.clocks.items()
    }
    encoding = {name: sum(ms for stage, ms in took.items() if stage != "stretching") for name, took in cpu_ms.items()}
    return {
        "start_cpu_s": contender.start_s,
        "recall": {k: float(hits.mean()) for k, hits in contender.hits.items()},
        "recall_interval": {k: common.share(hits) for k, hits in contender.hits.items()},
        "tile_cosine": {"min": min(contender.tile_cosines), "mean": float(np.mean(contender.tile_cosines))},
        "dense_cosine": {"min": min(contender.dense_cosines), "mean": float(np.mean(contender.dense_cosines))},
        "cpu_ms": cpu_ms,
        "windows_per_cpu_s": {modality: 1000 / encoding[modality] for modality in MODALITIES},
        "mpx_per_cpu_s": 1000 / encoding["map"],
        "mpx_per_cpu_s_with_stretching": 1000 / sum(cpu_ms["map"].values()),
    }


def show(results: dict[str, dict[str, Any]]) -> None:
    cosines = ("tile_cosine", "dense_cosine")
    rows = [
        [
            name,
            *(f"{found[kind][of]:.6f}" for kind in cosines for of in ("min", "mean")),
            *found["recall_interval"].values(),
            f"{found['start_cpu_s']:.2f}",
        ]
        for name, found in results.items()
    ]
    columns = ["backend", "tile vectors, min", "mean", "dense, min", "mean", *(f"R@{k}" for k in AT), "start, CPU s"]
    common.show("Learned features of windows of both modalities: cosine to torch in float32; recall", columns, rows)
    for modality in MODALITIES:
        rows = [
            [name, *_stages(found["cpu_ms"][modality], STAGES[1:]), f"{found['windows_per_cpu_s'][modality]:.0f}"]
            for name, found in results.items()
        ]
        title = f"A window of {SIZE_PX} px, {modality}, CPU ms"
        common.show(title, ["backend", *STAGES[1:], "sum", "windows/CPU s"], rows)
    rows = [
        [
            name,
            *_stages(found["cpu_ms"]["map"], STAGES),
            f"{found['mpx_per_cpu_s']:.1f}",
            f"{found['mpx_per_cpu_s_with_stretching']:.1f}",
        ]
        for name, found in results.items()
    ]
    columns = ["backend", *STAGES, "sum", "Mpx/CPU s", "with stretching"]
    common.show("A megapixel of the map, in an index's blocks, CPU ms", columns, rows)


def _stages(cpu_ms: dict[str, float], stages: tuple[str, ...]) -> list[str]:
    return [*(f"{cpu_ms[stage]:.2f}" for stage in stages), f"{sum(cpu_ms[stage] for stage in stages):.2f}"]


def show_quantisations(found: dict[str, dict[Modality, float]]) -> None:
    rows = [[way, *(f"{least[modality]:.6f}" for modality in MODALITIES)] for way, least in found.items()]
    common.show("8-bit integers by onnxruntime: least cosine of tile vectors", ["how", *MODALITIES], rows)


def bars_of(results: dict[str, dict[str, Any]]) -> list[Bar]:
    windows = max(found["windows_per_cpu_s"]["sar"] for found in results.values())
    megapixels = max(found["mpx_per_cpu_s"] for found in results.values())
    return [
        *(
            Bar(f"{name}: least cosine of {what}", found[kind]["min"], LEAST_COSINE)
            for name, found in results.items()
            for what, kind in (("tile vectors", "tile_cosine"), ("dense features", "dense_cosine"))
            if name != TRUTH
        ),
        *(
            Bar(f"{name}: R@{k}", found["recall"][k], results[TRUTH]["recall"][k] - MOST_LOST)
            for name, found in results.items()
            for k in AT
            if name != TRUTH
        ),
        Bar("best backend: SAR windows per CPU second", windows, LEAST_WINDOWS_PER_CPU_S),
        Bar("best backend: Mpx of map per CPU second", megapixels, LEAST_MPX_PER_CPU_S),
    ]


def main() -> None:
    parser = common.parser(__doc__, windows=300)
    parser.add_argument("--encoder", default=defaults.ENCODER, help="weights, by name or path")
    given = parser.parse_args()
    if given.windows <= WARM_UP:
        parser.error(f"--windows: more than {WARM_UP} are needed")
    data = common.data_or_skip(given.data)
    common.one_thread()
    weights = Weights.find(given.encoder)
    Contender.of(weights, *BACKENDS[TRUTH])  # loads what all of them share
    contenders = {name: Contender.of(weights, *how) for name, how in BACKENDS.items()}
    images = window_images(data, LA_VAL, given.windows, given.seed)
    encode_windows(contenders, images)
    encode_map(contenders, data, LA_VAL)
    recall_of(contenders, data, given.windows, given.seed)
    results = {name: results_of(contender, given.windows) for name, contender in contenders.items()}
    ways = quantisations(weights, data, images)
    show(results)
    show_quantisations(ways)
    common.finish(given.output, {"backends": results, "quantisations": ways}, bars_of(results))


if __name__ == "__main__":
    main()
