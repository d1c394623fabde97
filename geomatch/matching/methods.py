"""The methods that there are, by name."""

from __future__ import annotations

from collections.abc import Callable

from geomatch.matching.area import AreaMatcher
from geomatch.matching.descriptors import DESCRIPTORS, WHOLE, DetectThenDescribe
from geomatch.matching.gloh import GlohDescriptor
from geomatch.matching.keypoints import DETECTORS, Detector
from geomatch.matching.matches import Keypointed, Matcher, Rule
from geomatch.matching.pso_sift import PsoSift

RATIO = Rule(ratio=0.8, mutual=False)  # Lowe 2004


def _described(detector: str, descriptor: str) -> Callable[[], Matcher]:
    return lambda: Keypointed(DetectThenDescribe(DETECTORS[detector], DESCRIPTORS[descriptor]), RATIO)


def _whole(name: str) -> Callable[[], Matcher]:
    return lambda: Keypointed(WHOLE[name], RATIO)


METHODS: dict[str, Callable[[], Matcher]] = {
    "sift": _described("sift", "sift"),
    "rootsift": _described("sift", "rootsift"),
    "orb": _described("orb", "orb"),
    "brisk": _described("brisk", "brisk"),
    "akaze": _whole("akaze"),
    "kaze": _whole("kaze"),
    "fsc-sift": lambda: PsoSift(DETECTORS["sift"], DESCRIPTORS["sift"], joint=False),
    "pso-sift": lambda: PsoSift(DETECTORS["sift"], GlohDescriptor()),
    "area": AreaMatcher,
}


def method(name: str) -> Matcher:
    """The method of that name."""
    return METHODS[name]()


def detectors() -> dict[str, Detector]:
    """All detectors by name."""
    return dict(DETECTORS)
