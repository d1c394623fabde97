"""The methods that there are, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from geomatch.errors import UsageError
from geomatch.matching.area import AreaMatcher
from geomatch.matching.descriptors import DESCRIPTORS, WHOLE, DetectThenDescribe, Extractor
from geomatch.matching.foreign import LightGlueMatcher, LoftrMatcher, vgg16
from geomatch.matching.gloh import GlohDescriptor
from geomatch.matching.keypoints import DETECTORS, ORIENTED_SIFT, Detector
from geomatch.matching.learned import DetectDescribe, KeypointDetector, NoiseDetector, PatchDescriptor
from geomatch.matching.matches import LEAST_KEYPOINTS, Keypointed, Matcher, Rule
from geomatch.matching.pso_sift import PsoSift
from geomatch.nets.shapes import D2Shape, HardNetShape, LTFormerShape, R2D2Shape, VggShape

RATIO = Rule(ratio=0.8, mutual=False)  # Lowe 2004
MUTUAL = Rule()
FEW = 300  # keypoints that VGG16 describes, a third of a second each
CONTROL = "noise"  # as crowded as the learned detector's keypoints, and no better placed
D2_STEP_PX = 4.0  # cells of its features, between which its places are only guessed
MOST_GRAIN_PX = 96.0  # of patches; the outermost of larger ones decides little, and 256 px hold too few to count
D2_SEES_PX, R2D2_SEES_PX = 100.0, 51.0  # side of what a feature of theirs depends on; D2's between cells of 92 px
PUBLISHED = Rule(distance=0.5, mutual=False)  # Zhang et al. 2023


def _described(detector: Detector, descriptor: str, rule: Rule = RATIO) -> Callable[[], Matcher]:
    return lambda: Keypointed(DetectThenDescribe(detector, DESCRIPTORS[descriptor]), rule)


def _whole(name: str) -> Callable[[], Matcher]:
    return lambda: Keypointed(WHOLE[name], RATIO)


def _patches(descriptor: PatchDescriptor, rule: Rule = MUTUAL) -> Matcher:
    """A trained descriptor of patches around the keypoints of AKAZE, which repeats itself best."""
    extractor = DetectThenDescribe(DETECTORS["akaze"], descriptor)
    grain_px = min(descriptor.side_px, MOST_GRAIN_PX)
    return Keypointed(extractor, rule, least_px=math.ceil(descriptor.side_px), grain_px=grain_px)


def _mixed(second: PatchDescriptor, most: int = 1024) -> Matcher:
    """PSO-SIFT with a part of the distance from a network."""
    least_px = math.ceil(second.side_px)
    return PsoSift(DETECTORS["sift"], GlohDescriptor(), second=second, most=most, least_px=least_px)


def _network(extractor: Extractor, sees_px: float, step_px: float = 1.0) -> Matcher:
    """Features of a network that sees the image's edge where it is near."""
    return Keypointed(extractor, MUTUAL, grain_px=sees_px, step_px=step_px, edge_px=sees_px / 2)


# With shipped weights, by name, or those of a file.
TRAINED: dict[str, tuple[str, Callable[[str], Matcher]]] = {
    "ltformer": ("ltformer1", lambda weights: _patches(PatchDescriptor.load(weights, LTFormerShape))),
    "ltformer-0.5": ("ltformer1", lambda weights: _patches(PatchDescriptor.load(weights, LTFormerShape), PUBLISHED)),
    "hardnet": ("hardnet1", lambda weights: _patches(PatchDescriptor.load(weights, HardNetShape))),
    "cnn-pso-sift": ("vgg1", lambda weights: _mixed(PatchDescriptor.load(weights, VggShape))),
    "d2": ("d2net1", lambda weights: _network(DetectDescribe.load(weights, D2Shape), D2_SEES_PX, D2_STEP_PX)),
    "r2d2": ("r2d21", lambda weights: _network(DetectDescribe.load(weights, R2D2Shape), R2D2_SEES_PX)),
}

METHODS: dict[str, Callable[[], Matcher]] = {
    "sift": _described(ORIENTED_SIFT, "sift"),
    "sift-mutual": _described(ORIENTED_SIFT, "sift", MUTUAL),
    "sift-at-akaze": _described(DETECTORS["akaze"], "sift", MUTUAL),
    "rootsift": _described(ORIENTED_SIFT, "rootsift"),
    "rootsift-mutual": _described(ORIENTED_SIFT, "rootsift", MUTUAL),
    "orb": _described(DETECTORS["orb"], "orb"),
    "brisk": _described(DETECTORS["brisk"], "brisk"),
    "akaze": _whole("akaze"),
    "kaze": _whole("kaze"),
    "fsc-sift": lambda: PsoSift(ORIENTED_SIFT, DESCRIPTORS["sift"], joint=False),
    "pso-sift": lambda: PsoSift(DETECTORS["sift"], GlohDescriptor()),
    **{name: partial(make, shipped) for name, (shipped, make) in TRAINED.items()},
    "area": AreaMatcher,
    "area-structural": AreaMatcher.structural,
}


# Whose error ellipses of 95 % were found to hold that share of pairs that did not choose them.
CALIBRATED = frozenset({"area", "hardnet"})

# With weights that a user has.
OWN: dict[str, Callable[[Path], Matcher]] = {
    "vgg16-pso-sift": lambda path: _mixed(vgg16(path), FEW),
    "loftr": LoftrMatcher,
    "lightglue": LightGlueMatcher,
}


def method(spec: str) -> Matcher:
    """A method by name: NAME, NAME@K for K keypoints of each image, NAME=FILE or NAME@K=FILE with weights of one's own.

    Raises:
        UsageError: there is none of that name, or it needs weights, or takes none, or has no keypoints to ask for, or
            what runs it is not installed.
        InputError: the weights cannot be used.
    """
    head, _, path = spec.partition("=")
    name, at, most = head.partition("@")
    made = _by_name(name, path, spec)
    if not at:
        return made
    if not isinstance(made, Keypointed):
        raise UsageError(f"{name} does not say how many keypoints it takes", where=spec, hint=f"write {name} alone")
    if not most.isdecimal() or int(most) < LEAST_KEYPOINTS:
        hint = f"write {name}@K, K being {LEAST_KEYPOINTS} or more"
        raise UsageError(f"{most!r} is no number of keypoints", where=spec, hint=hint)
    return replace(made, most=int(most))


def _by_name(name: str, path: str, spec: str) -> Matcher:
    if path and name in OWN:
        return OWN[name](Path(path))
    if path and name in TRAINED:
        return TRAINED[name][1](path)
    if not path and name in METHODS:
        return METHODS[name]()
    if name in OWN:
        raise UsageError(f"{name} needs weights of one's own", where=spec, hint=f"write {name}=FILE")
    if name in METHODS:
        raise UsageError(f"{name} has no weights", where=spec, hint=f"write {name} alone")
    known = ", ".join([*METHODS, *(f"{own}=FILE" for own in OWN)])
    raise UsageError(f"unknown method {spec!r}", hint=f"known are {known}")


def detectors() -> dict[str, Detector]:
    """All detectors by name."""
    learned = {"learned": KeypointDetector.load("keypoints1"), CONTROL: NoiseDetector.load("keypoints1")}
    return DETECTORS | learned
