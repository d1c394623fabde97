"""Where ``area`` says that an image does not lie, and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from places import pair, scene, similarity

from geomatch.matching.area import MIRRORED, AreaMatcher
from geomatch.matching.fit import Fit, fit
from geomatch.matching.scores import corner_error_px
from geomatch.matching.side import Side


def flipped(side: Side, axis: int) -> Side:
    return replace(side, image=np.flip(side.image, axis).copy(), valid=np.flip(side.valid, axis).copy())


@pytest.mark.parametrize("axis", [0, 1])
def test_mirror_image_of_what_is_nearly_its_own_is_told_as_one(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As streets along the axes are: by themselves they look right in either."""
    drawn = scene()
    even = 0.3 * (drawn + np.flip(drawn, axis)) + 0.4 * drawn
    sar, optical = pair(np.eye(3), image=even)
    matcher = AreaMatcher.structural()
    found = fit(matcher(sar, optical), sar.size_px)
    assert isinstance(found, Fit)
    assert corner_error_px(found.matrix, np.eye(3), sar.size_px) < 2
    mirrored = flipped(sar, axis)
    assert matcher(mirrored, optical).reason == MIRRORED
    monkeypatch.setattr(AreaMatcher, "_fits_mirrored", lambda *_: False)
    assert isinstance(fit(matcher(mirrored, optical), sar.size_px), Fit)  # else nothing was to be told


def test_image_that_the_other_covers_too_little_of_is_told_as_one() -> None:
    sar, optical = pair(similarity(8, 1.08, (6, -9)))
    part = Side(optical.image[:150, :150].copy(), optical.valid[:150, :150].copy(), "optical")
    assert "covers less than 60% of the SAR image" in AreaMatcher.structural()(sar, part).reason


@pytest.mark.parametrize("pixels", [-1.0, 1.0])
def test_mirror_image_has_to_fit_better_by_pixels_too(pixels: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sar, optical = pair(np.eye(3))
    matcher = AreaMatcher.structural()
    best = matcher.best_place(sar, optical)
    assert best is not None
    better = replace(best, features=best.features + 0.1)
    monkeypatch.setattr(AreaMatcher, "_likely", lambda *_: [better])
    monkeypatch.setattr("geomatch.matching.area._looked", lambda one, *_: replace(one, pixels=best.pixels + pixels))
    assert matcher._fits_mirrored(sar, optical, best) == (pixels > 0)
