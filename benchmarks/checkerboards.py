"""Checkerboards of warped pairs as local methods register them: docs/checkerboards.png.

    python benchmarks/checkerboards.py [--pairs 1] [--methods area hardnet ...] [--into docs/checkerboards.png]

The first pairs of each set that `geomatch evaluate matching` draws, none of them chosen: a row for each, a column for
each method, the SAR image where the fit puts it in every other square of the optical one. Where nothing is fitted the
reason stands in its place, or, of methods whose matches agree on a transform that is not believed, that one is drawn.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import common
import numpy as np
from common import ROOT
from numpy.typing import NDArray
from published import published_transform

from geomatch.matching.fit import NoFit, fit
from geomatch.matching.matches import Matcher
from geomatch.matching.methods import METHODS, method
from geomatch.matching.samples import SOURCES, WARPED, Sample, samples, warped
from geomatch.matching.scores import corner_error_px

SHOWN = ("area", "hardnet", "cnn-pso-sift", "pso-sift", "fsc-sift", "sift")
SQUARE_PX = 32
INCHES = 1.9  # of a square
DPI = 100


def board(sample: Sample, to_optical: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[H x W] the optical image, and in every other square the SAR image where the transform puts it."""
    sar, known = warped(
        sample.sar.bytes.astype(np.float32), sample.sar.valid, np.linalg.inv(to_optical), sample.optical.size_px
    )
    rows, cols = np.indices(known.shape) // SQUARE_PX
    picture = sample.optical.bytes.copy()
    odd = known & ((rows + cols) % 2 == 1)
    picture[odd] = np.clip(np.rint(sar[odd]), 0, 255).astype(np.uint8)
    return picture


def registered(sample: Sample, matcher: Matcher) -> tuple[NDArray[np.uint8] | None, str]:
    """A checkerboard, and by how many pixels the corners are off; or why there is none."""
    matches = matcher(sample.sar, sample.optical)
    fitted = fit(matches, sample.sar.size_px)
    if not isinstance(fitted, NoFit):
        matrix, told = fitted.matrix, ""
    elif matches.doubt and (published := published_transform(matches)) is not None:
        matrix, told = published, ", not believed"
    else:
        return None, fitted.reason
    error = corner_error_px(matrix, sample.to_optical, sample.sar.size_px)
    return board(sample, matrix), f"{error:.0f} px{told}"


def main() -> None:
    arguments = common.parser(__doc__, windows=0)
    arguments.add_argument("--pairs", type=int, default=1, help="of each set")
    arguments.add_argument("--methods", nargs="+", default=SHOWN, help=f"of {', '.join(METHODS)}")
    arguments.add_argument("--into", type=Path, default=ROOT / "docs" / "checkerboards.png")
    given = arguments.parse_args()
    data = common.data_or_skip(given.data)
    common.one_thread()
    chosen = [
        (name, sample)
        for name, source in SOURCES.items()
        for sample in samples(source(data), given.pairs, WARPED, seed=given.seed)
    ]
    draw(chosen, {name: method(name) for name in given.methods}, given.into)
    print(given.into)


def draw(chosen: list[tuple[str, Sample]], matchers: dict[str, Matcher], target: Path) -> None:
    """Write the picture."""
    from matplotlib import pyplot as plt

    size = (INCHES * len(matchers), INCHES * 1.15 * len(chosen))
    figure, grid = plt.subplots(len(chosen), len(matchers), figsize=size, squeeze=False, layout="constrained")
    for row, (name, sample) in zip(grid, chosen, strict=True):
        row[0].set_ylabel(name)
        for axes, (spec, matcher) in zip(row, matchers.items(), strict=True):
            picture, told = registered(sample, matcher)
            axes.set(xticks=[], yticks=[])
            axes.set_title(spec if picture is None else f"{spec}, {told}", fontsize=8)
            if picture is None:
                axes.text(0.5, 0.5, textwrap.fill(told, 24), ha="center", va="center", fontsize=7)
            else:
                axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            print(f"{name}, {spec}: {told}", flush=True)
    figure.savefig(target, dpi=DPI, pil_kwargs={"optimize": True})
    plt.close(figure)


if __name__ == "__main__":
    main()
