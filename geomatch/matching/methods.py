"""The methods that there are, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from geomatch.errors import UsageError
from geomatch.matching.area import AreaMatcher
from geomatch.matching.descriptors import DESCRIPTORS, WHOLE, Descriptor, DetectThenDescribe, Extractor
from geomatch.matching.foreign import LightGlueMatcher, LoftrMatcher, vgg16
from geomatch.matching.gloh import GlohDescriptor
from geomatch.matching.keypoints import DETECTORS, Detector
from geomatch.matching.learned import DetectDescribe, KeypointDetector, NoiseDetector, PatchDescriptor
from geomatch.matching.matches import Keypointed, Matcher, Rule
from geomatch.matching.pso_sift import PsoSift
from geomatch.nets.shapes import D2Shape, HardNetShape, LTFormerShape, R2D2Shape, VggShape

RATIO = Rule(ratio=0.8, mutual=False)  # Lowe 2004
MUTUAL = Rule()
FEW = 300  # keypoints that VGG16 describes, a third of a second each
CONTROL = "noise"  # as crowded as the learned detector's keypoints, and no better placed
D2_STEP_PX = 4.0  # cells of its features, between which its places are only guessed
GRAIN_PX = 96.0  # what a patch, or a network's field of view, shows
PUBLISHED = Rule(distance=0.5, mutual=False)  # Zhang et al. 2023


def _described(detector: str, descriptor: str, rule: Rule = RATIO) -> Callable[[], Matcher]:
    return lambda: Keypointed(DetectThenDescribe(DETECTORS[detector], DESCRIPTORS[descriptor]), rule)


def _whole(name: str) -> Callable[[], Matcher]:
    return lambda: Keypointed(WHOLE[name], RATIO)


def _patches(descriptor: Descriptor, rule: Rule = MUTUAL) -> Matcher:
    """A trained descriptor of patches around the keypoints of AKAZE, which repeats itself best."""
    return Keypointed(DetectThenDescribe(DETECTORS["akaze"], descriptor), rule, grain_px=GRAIN_PX)


def _network(extractor: Extractor, step_px: float = 1.0) -> Matcher:
    """Features of a network that sees the whole image, and its edge."""
    return Keypointed(extractor, MUTUAL, grain_px=GRAIN_PX, step_px=step_px, edge_px=GRAIN_PX / 2)


METHODS: dict[str, Callable[[], Matcher]] = {
    "sift": _described("sift", "sift"),
    "sift-mutual": _described("sift", "sift", MUTUAL),
    "sift-at-akaze": _described("akaze", "sift", MUTUAL),
    "rootsift": _described("sift", "rootsift"),
    "rootsift-mutual": _described("sift", "rootsift", MUTUAL),
    "orb": _described("orb", "orb"),
    "brisk": _described("brisk", "brisk"),
    "akaze": _whole("akaze"),
    "kaze": _whole("kaze"),
    "fsc-sift": lambda: PsoSift(DETECTORS["sift"], DESCRIPTORS["sift"], joint=False),
    "pso-sift": lambda: PsoSift(DETECTORS["sift"], GlohDescriptor()),
    "ltformer": lambda: _patches(PatchDescriptor.load("ltformer1", LTFormerShape)),
    "ltformer-0.5": lambda: _patches(PatchDescriptor.load("ltformer1", LTFormerShape), PUBLISHED),
    "hardnet": lambda: _patches(PatchDescriptor.load("hardnet1", HardNetShape)),
    "cnn-pso-sift": lambda: PsoSift(DETECTORS["sift"], GlohDescriptor(), second=PatchDescriptor.load("vgg1", VggShape)),
    "d2": lambda: _network(DetectDescribe.load("d2net1", D2Shape), step_px=D2_STEP_PX),
    "r2d2": lambda: _network(DetectDescribe.load("r2d21", R2D2Shape)),
    "area": AreaMatcher,
    "area-structural": AreaMatcher.structural,
}


# Whose error ellipses of 95 % were found to hold that share of pairs that did not choose them.
CALIBRATED = frozenset({"area", "hardnet"})

# With weights that a user has.
OWN: dict[str, Callable[[Path], Matcher]] = {
    "vgg16-pso-sift": lambda path: PsoSift(DETECTORS["sift"], GlohDescriptor(), second=vgg16(path), most=FEW),
    "loftr": LoftrMatcher,
    "lightglue": LightGlueMatcher,
}


def method(spec: str) -> Matcher:
    """A method by name, or NAME=FILE with weights of one's own.

    Raises:
        UsageError: there is none of that name, or it needs weights, or what runs it is not installed.
        InputError: the weights cannot be used.
    """
    name, _, path = spec.partition("=")
    if path and name in OWN:
        return OWN[name](Path(path))
    if not path and name in METHODS:
        return METHODS[name]()
    if name in OWN:
        raise UsageError(f"{name} needs weights of one's own", where=spec, hint=f"write {name}=FILE")
    known = ", ".join([*METHODS, *(f"{own}=FILE" for own in OWN)])
    raise UsageError(f"unknown method {spec!r}", hint=f"known are {known}")


def detectors() -> dict[str, Detector]:
    """All detectors by name."""
    learned = {"learned": KeypointDetector.load("keypoints1"), CONTROL: NoiseDetector.load("keypoints1")}
    return DETECTORS | learned
