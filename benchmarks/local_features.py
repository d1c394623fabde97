"""What each choice of the local features gives: loss, dimensions, patch, self-supervision, parts of the detector.

Every row of a table is a configuration of configs/ with the overrides that stand below, trained, and measured on random
pairs of the Los Angeles validation block, warped as `geomatch evaluate matching` warps them. A run that is complete in
bench/local/ is not repeated as long as the code that trains is the same, nor its measure while that which measures is;
one that was killed goes on.
Prints the tables and writes them into the document between its markers; rows that are not asked for stay.

    python benchmarks/local_features.py [--tables losses ...] [--rows lt ...] [--pairs 100] [--into docs/matching.md]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import BENCH, ROOT, Bar, finish, show

from geomatch.files import published
from geomatch.matching.descriptors import Descriptor, DetectThenDescribe
from geomatch.matching.identity import identity_of
from geomatch.matching.keypoints import DETECTORS, Detector, Keypoints
from geomatch.matching.learned import DetectDescribe, KeypointDetector, PatchDescriptor
from geomatch.matching.matches import Keypointed, Matcher, Rule, neighbours
from geomatch.matching.samples import SIZE_PX, WARPED, Sample, samples, validation_source
from geomatch.matching.scores import correct, coverage, repeatability
from geomatch.matching.transforms import apply
from geomatch.nets.keypoint_detector import KeypointNet
from geomatch.nets.shapes import D2Shape, HardNetShape, KeypointShape, LTFormerShape, R2D2Shape
from geomatch.training.local.descriptor import load_descriptor_config, train_descriptor
from geomatch.training.local.detect_describe import load_detect_describe_config, train_detect_describe
from geomatch.training.local.detector import load_detector_config, train_detector
from geomatch.training.local.triplets import LOSSES
from geomatch.weights import SUFFIX, Weights

FOLDER = BENCH / "local"
KEYPOINTS, DETECTED = 300, 1024
COUNTS = (1024, 2048, 4096)
DENSE_PX = 512  # smaller images have no room for so many keypoints

REGION_PX = 16.0  # of the shipped detector
SHORT = ", 325 steps"

Measured = dict[str, float]
Rows = dict[str, tuple[str, ...]]
Pairs = Sequence[Sample]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: over it.
        config: under configs/ that rows begin with; "" where nothing is trained.
        shared: overrides of every row.
        rows: overrides of each, or what a row means where nothing is trained.
        load: a configuration with overrides.
        train: it, in a folder: the weights' file.
        measure: of the weights' file, or of the row's name where nothing is trained.
        size_px: of the pairs.
    """

    title: str
    config: str
    shared: tuple[str, ...]
    rows: Rows
    load: Callable[[Path, Sequence[str]], Any] | None
    train: Callable[[Any, Path], Path] | None
    measure: Callable[[Any, Pairs], Measured]
    size_px: int = SIZE_PX


def described(detector: Detector, descriptor: Descriptor, pairs: Pairs) -> Measured:
    """Both protocols: keypoints of the optical image and their true places, as published, and each image's own."""
    right = total = 0
    for pair in pairs:
        points = detector(pair.optical, KEYPOINTS).xy_px
        there = apply(np.asarray(np.linalg.inv(pair.to_optical)), points)
        inside = _ordered(there).inside(pair.sar)
        ours, theirs = (
            descriptor(side, _ordered(at[inside])) for side, at in ((pair.sar, there), (pair.optical, points))
        )
        found = neighbours(ours, theirs, Rule(mutual=False))
        off = np.linalg.norm(points[inside][found.first] - points[inside][found.second], axis=1)
        right, total = right + int((off <= 5).sum()), total + len(off)
    told = {"MP at true places": right / max(total, 1)}
    return told | matched(Keypointed(DetectThenDescribe(detector, descriptor), Rule(), DETECTED), pairs)


def _ordered(points: Any) -> Keypoints:
    return Keypoints.at(points, -np.arange(len(points), dtype=float))


def matched(matcher: Matcher, pairs: Pairs) -> Measured:
    """Right matches within 5 px: per pair, of all matches, of all keypoints."""
    right = total = keypoints = 0
    for pair in pairs:
        found = matcher(pair.sar, pair.optical)
        right += int(correct(found, pair.to_optical).sum())
        total, keypoints = total + len(found), keypoints + min(found.found)
    return {
        "NC": total / len(pairs),
        "NCM": right / len(pairs),
        "MP": right / max(total, 1),
        "MS": right / max(keypoints, 1),
    }


def ltformer(file: Path, pairs: Pairs) -> Measured:
    return described(DETECTORS["akaze"], PatchDescriptor.load(str(file), LTFormerShape), pairs)


def detectors(row: str, pairs: Pairs) -> Measured:
    name, _, detector = row.partition(", ")
    kinds: dict[str, Any] = {"ltformer1": LTFormerShape, "hardnet1": HardNetShape}
    chosen = KeypointDetector.load("keypoints1") if detector == "learned" else DETECTORS[detector]
    return described(chosen, PatchDescriptor.load(name, kinds[name]), pairs)


def dense(kind: Any) -> Callable[[Path, Pairs], Measured]:
    def measure(file: Path, pairs: Pairs) -> Measured:
        made: Measured = {}
        for most in COUNTS:
            told = matched(Keypointed(DetectDescribe.load(str(file), kind), Rule(), most), pairs)
            made |= {f"NC {most}": told["NC"], f"NCM {most}": told["NCM"], f"CMR {most}": told["MP"]}
        return made

    return measure


def repeated(file: Path, pairs: Pairs) -> Measured:
    """Of a detector both ways of ranking: by the scores of a region, which decide the order alone, and by their own.

    The second is the paper's, and the one by which depths, weights and kinds of convolution decide where keypoints lie.
    """
    weights = Weights.find(str(file), KeypointShape)
    made: Measured = {}
    for name, region_px in (("by region", REGION_PX), ("by own score", 0.0)):
        net = KeypointNet(replace(weights.shape, region_px=region_px))
        weights.load_into(net)
        detector = KeypointDetector(net)
        shares, covered = [], []
        for pair in pairs:
            ours, theirs = detector(pair.sar, KEYPOINTS), detector(pair.optical, KEYPOINTS)
            shares.append(repeatability(ours.xy_px, theirs.xy_px, pair.to_optical, pair.sar.size_px))
            covered.append(coverage(ours.xy_px, pair.sar.size_px))
        made |= {f"{name}, repeated in 2 px": float(np.mean(shares)), f"{name}, cells": float(np.mean(covered))}
    return made


def weighed(shipped: str) -> Rows:
    """By the weight of self-supervision, each at as many comparisons as without, and the shipped one at as many steps.

    A step with copies compares three pairs of images for each crop, one without compares one.
    """
    short = ("trainer.max_epochs=13", "validation.every_epochs=13")
    rows = {f"{value:g}{SHORT}": (f"self_supervision={value}", *short) for value in (0.2, 0.4, 0.8, 1.2)}
    return {"0": ("self_supervision=0.0",), **rows, shipped: (f"self_supervision={shipped}",)}


PATCHES = ("trainer.max_epochs=30", "validation.every_epochs=10")  # 600 steps
PUBLISHED = (  # ltformer-published.yaml over ltformer.yaml, at as many steps as the others
    "loss=lt",
    "net.shape.patch_px=128",
    "positives={scale: [0.9, 1.15], turns_deg: [5, 10, 15], shift_px: 8, exactly: true, one_of: true}",
    "data.scale=[1.0, 1.0]",
    "data.turn_deg=0.0",
    "data.shift_px=0.0",
    "optimizer={method: sgd, lr: 0.001, momentum: 0.9, weight_decay: 0.0, warmup_steps: 1, clip: 0.0, cosine: false}",
)
DENSE = ("trainer.max_epochs=40", "validation.every_epochs=20")  # 1000

TABLES = {
    "losses": Table(
        "LTFormer by loss (Table III of Zhang et al.)",
        "descriptor/ltformer.yaml",
        PATCHES,
        {name: (f"loss={name}",) for name in LOSSES} | {"lt, all as published": PUBLISHED},
        load_descriptor_config,
        train_descriptor,
        ltformer,
    ),
    "dimensions": Table(
        "LTFormer by dimensions (Table IV)",
        "descriptor/ltformer.yaml",
        PATCHES,
        {"64": ("net.shape.vector=64",), "128": (), "256": ("net.shape.vector=256",)},
        load_descriptor_config,
        train_descriptor,
        ltformer,
    ),
    "patches": Table(
        "LTFormer by what a patch shows (Table II)",
        "descriptor/ltformer.yaml",
        PATCHES,
        {f"{size} px": (f"net.side_px={size}",) for size in (64, 128, 192)},
        load_descriptor_config,
        train_descriptor,
        ltformer,
    ),
    "detectors": Table(
        "Shipped descriptors by detector (Figure 6)",
        "",
        (),
        {
            f"{name}, {detector}": ()
            for name in ("ltformer1", "hardnet1")
            for detector in ("sift", "akaze", "kaze", "orb", "brisk", "gftt", "learned")
        },
        None,
        None,
        detectors,
    ),
    "d2": Table(
        "D2-Net by the weight of self-supervision (Tables I-III and Figure 3 of Mei et al.)",
        "detect-describe/d2.yaml",
        DENSE,
        weighed("0.4"),
        load_detect_describe_config,
        train_detect_describe,
        dense(D2Shape),
        DENSE_PX,
    ),
    "r2d2": Table(
        "R2D2 by the weight of self-supervision",
        "detect-describe/r2d2.yaml",
        DENSE,
        weighed("0.2"),
        load_detect_describe_config,
        train_detect_describe,
        dense(R2D2Shape),
        DENSE_PX,
    ),
    "detector": Table(
        "Parts of the detector (Tables 1 and 2 of Li et al.)",
        "detector/keypoints.yaml",
        ("trainer.max_epochs=6", "validation.every_epochs=3"),
        {
            "as shipped": (),
            "shared stems": ("net.own_stems=false",),
            "full resolution alone": ("net.weights=[1.0,0.0,0.0]",),
            "half resolution alone": ("net.weights=[0.0,1.0,0.0]",),
            "quarter resolution alone": ("net.weights=[0.0,0.0,1.0]",),
            "even weights": ("net.weights=[0.33,0.33,0.33]",),
            "weights turned round": ("net.weights=[0.6,0.3,0.1]",),
            "Huber of standardised maps, and peaks": (
                "agreement=huber",
                "peaky=0.5",
                "net.own_stems=false",
            ),
            "Huber alone, as published": (
                "agreement=huber-raw",
                "peaky=0.0",
                "net.own_stems=false",
            ),
            "deformable": ("net.deformable=true",),
        },
        load_detector_config,
        train_detector,
        repeated,
    ),
}


# What the measure of a table is made of, beside the names in it.
MEASURES = (described, matched, DetectThenDescribe, PatchDescriptor, KeypointDetector, DetectDescribe, Keypointed)
MEASURES += (Rule, neighbours, samples, validation_source, correct, coverage, repeatability, apply)


def measured(name: str, row: str, pairs: Pairs) -> Measured:
    """A row, trained where it has to be."""
    table = TABLES[name]
    if table.load is None or table.train is None:
        return table.measure(row, pairs)
    config = table.load(ROOT / "configs" / table.config, [*table.shared, *table.rows[row]])
    folder = FOLDER / _short(f"{config} {identity_of(table.train)}")
    code = identity_of((table.measure, *MEASURES))
    done = folder / f"measured-{_short(' '.join([code, *(pair.digest for pair in pairs)]))}.json"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        trained = next(folder.glob(f"*{SUFFIX}"), None) or table.train(config, folder)
        with published(done) as part:
            part.write_text(json.dumps(table.measure(trained, pairs)))
    found: Measured = json.loads(done.read_text())
    print(f"{name}, {row}: {found}", flush=True)
    return found


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def main() -> None:
    parser = common.parser(__doc__, windows=0)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rows", nargs="+", help="of the tables, default all")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--into", type=Path, help="document that gets the tables")
    given = parser.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    results: dict[str, dict[str, Measured]] = {}
    for name in given.tables:
        size = TABLES[name].size_px
        pairs = list(samples(validation_source(data), given.pairs, WARPED, size_px=size, seed=given.seed))
        rows = [row for row in TABLES[name].rows if given.rows is None or row in given.rows]
        results[name] = {row: measured(name, row, pairs) for row in rows}
        if not rows:
            continue
        columns = next(iter(results[name].values()))
        shown = [[row, *(f"{value:.3g}" for value in told.values())] for row, told in results[name].items()]
        show(f"{TABLES[name].title}, {given.pairs} warped validation pairs of {size} px", ("row", *columns), shown)
        if given.into is not None:
            common.into(given.into, name, ("row", *columns), shown, list(TABLES[name].rows))
    finish(given.output, results, bars(results))


def bars(results: dict[str, dict[str, Measured]]) -> list[Bar]:
    """Right matches with self-supervision over those without: at as many steps, and at as many comparisons."""
    made = []
    for name, shipped in (("d2", "0.4"), ("r2d2", "0.2")):
        rows = results.get(name, {})
        for row in (shipped, f"{shipped}{SHORT}"):
            if row in rows and "0" in rows:
                gain = rows[row]["NCM 1024"] / max(rows["0"]["NCM 1024"], 1e-9)
                made.append(Bar(f"{name}, NCM 1024 of {row} over that of 0", gain, 1.0))
    return made


if __name__ == "__main__":
    main()
