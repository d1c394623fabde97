"""The methods that there are, by name."""

from __future__ import annotations

from collections.abc import Callable

from geomatch.matching.area import AreaMatcher
from geomatch.matching.descriptors import DESCRIPTORS, WHOLE, Descriptor, DetectThenDescribe
from geomatch.matching.gloh import GlohDescriptor
from geomatch.matching.keypoints import DETECTORS, Detector
from geomatch.matching.learned import PatchDescriptor
from geomatch.matching.matches import Keypointed, Matcher, Rule
from geomatch.matching.pso_sift import PsoSift
from geomatch.nets.shapes import HardNetShape, LTFormerShape

RATIO = Rule(ratio=0.8, mutual=False)  # Lowe 2004
MUTUAL = Rule()


def _described(detector: str, descriptor: str) -> Callable[[], Matcher]:
    return lambda: Keypointed(DetectThenDescribe(DETECTORS[detector], DESCRIPTORS[descriptor]), RATIO)


def _whole(name: str) -> Callable[[], Matcher]:
    return lambda: Keypointed(WHOLE[name], RATIO)


def _patches(descriptor: Descriptor) -> Matcher:
    """A trained descriptor of patches around the keypoints of AKAZE, which repeats itself best."""
    return Keypointed(DetectThenDescribe(DETECTORS["akaze"], descriptor), MUTUAL)


METHODS: dict[str, Callable[[], Matcher]] = {
    "sift": _described("sift", "sift"),
    "rootsift": _described("sift", "rootsift"),
    "orb": _described("orb", "orb"),
    "brisk": _described("brisk", "brisk"),
    "akaze": _whole("akaze"),
    "kaze": _whole("kaze"),
    "fsc-sift": lambda: PsoSift(DETECTORS["sift"], DESCRIPTORS["sift"], joint=False),
    "pso-sift": lambda: PsoSift(DETECTORS["sift"], GlohDescriptor()),
    "ltformer": lambda: _patches(PatchDescriptor.load("ltformer1", LTFormerShape)),
    "hardnet": lambda: _patches(PatchDescriptor.load("hardnet1", HardNetShape)),
    "area": AreaMatcher,
}


def method(name: str) -> Matcher:
    """The method of that name."""
    return METHODS[name]()


def detectors() -> dict[str, Detector]:
    """All detectors by name."""
    return dict(DETECTORS)
