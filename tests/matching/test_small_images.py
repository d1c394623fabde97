"""Images with no room for anything, from one pixel on: every method and detector answers, none fails."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import pytest

from geomatch.matching.keypoints import BORDER_PX, LEAST_PX
from geomatch.matching.matches import Matcher
from geomatch.matching.methods import METHODS, detectors, method
from geomatch.matching.side import Side
from geomatch.nets.shapes import Modality

SMALL = [*product(range(1, 6), range(1, 6)), (3, 200), (200, 5)]
LARGE = (72, 80)


def side(size: tuple[int, int], modality: Modality) -> Side:
    rng = np.random.default_rng(size)
    return Side(rng.random(size, dtype=np.float32), np.ones(size, bool), modality)


@lru_cache
def matcher(name: str) -> Matcher:
    return method(name)


@pytest.mark.parametrize("name", METHODS)
def test_method_answers_on_images_of_a_few_pixels(name: str) -> None:
    for small in SMALL:
        for sizes in ((small, LARGE), (LARGE, small), (small, small)):
            matches = matcher(name)(side(sizes[0], "sar"), side(sizes[1], "optical"))
            assert bool(matches.reason) == (len(matches) == 0)


@pytest.mark.parametrize(("name", "patch_px"), [("hardnet", 96), ("ltformer", 128), ("cnn-pso-sift", 64)])
def test_image_smaller_than_a_patch_is_told(name: str, patch_px: int) -> None:
    small, large = (patch_px - 1, 200), (200, 200)
    for sizes, which in (((small, large), "SAR"), ((large, small), "optical")):
        matches = matcher(name)(side(sizes[0], "sar"), side(sizes[1], "optical"))
        assert matches.reason == f"the {which} image is smaller than {patch_px} px"


@pytest.mark.parametrize("name", detectors())
def test_detector_has_none_where_there_is_no_room(name: str) -> None:
    detector = detectors()[name]
    for small in [*SMALL, (LEAST_PX - 1, 60)]:
        assert len(detector(side(small, "sar"), 50)) == 0
    found = detector(side((LEAST_PX + 4, 60), "optical"), 50)
    assert (found.xy_px[:, 1] > BORDER_PX).all()
    assert (found.xy_px[:, 1] < LEAST_PX + 4 - BORDER_PX).all()
