"""What was measured holds as long as code, options and weights are the same, and no longer."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch

import geomatch
from geomatch.encoder import StructuralEncoder
from geomatch.matching import identity
from geomatch.matching.area import AreaMatcher
from geomatch.matching.descriptors import DESCRIPTORS, DetectThenDescribe
from geomatch.matching.identity import identity_of
from geomatch.matching.kept import Kept
from geomatch.matching.keypoints import DETECTORS, OpenCvDetector
from geomatch.matching.learned import PatchDescriptor
from geomatch.matching.matches import Keypointed, Rule
from geomatch.matching.methods import METHODS, method
from geomatch.nets.hardnet import HardNet
from geomatch.nets.pixel_net import PixelNet
from geomatch.nets.shapes import HardNetShape, PixelShape
from geomatch.pixel_features import STRUCTURAL, LearnedPixels
from geomatch.weights import save_weights

OWN = "from geomatch.matching.methods import method; from geomatch.matching.identity import identity_of;"


def test_same_methods_are_the_same_in_another_process() -> None:
    names = ("sift", "cnn-pso-sift")
    code = OWN + f"print([identity_of(method(name)) for name in {names}])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str([identity_of(method(name)) for name in names])


def test_every_method_has_an_identity_of_its_own() -> None:
    assert len({identity_of(make()) for make in METHODS.values()}) == len(METHODS)


def test_options_and_weights_count() -> None:
    first = Keypointed(DetectThenDescribe(DETECTORS["sift"], DESCRIPTORS["sift"]), Rule(ratio=0.8))
    assert identity_of(first) != identity_of(replace(first, rule=Rule(ratio=0.9)))
    assert identity_of(first) == identity_of(replace(first, rule=Rule(ratio=0.8)))
    lower, higher = (OpenCvDetector(make) for make in (lambda: 1, lambda: 2))  # type: ignore[arg-type, return-value]
    assert identity_of(lower) != identity_of(higher)
    torch.manual_seed(0)
    net = HardNet(HardNetShape(width=2)).eval()
    descriptor = PatchDescriptor(net, 32, 32, equalised=True)
    before = identity_of(descriptor)
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] += 1e-3
    assert identity_of(descriptor) != before


MODULE = '''
"""{text}"""
from geomatch.matching.keypoints import DETECTORS

def found(side):
    """{text}"""
    return DETECTORS["sift"](side, {most})  # {text}
'''


def test_weights_of_the_last_look_count_in_area_matching(tmp_path: Path) -> None:
    """They belong to its encoder, whose fingerprint says what an index is of, and so does not tell of them."""
    own = tmp_path / "own.safetensors"
    save_weights(PixelNet(PixelShape(stem=2, width=2)).eval(), own, {})
    usual = StructuralEncoder()
    with_own = StructuralEncoder()
    with_own.pixels = (*STRUCTURAL, LearnedPixels(str(own)))
    other = StructuralEncoder()
    other.pixels = (*STRUCTURAL, LearnedPixels())
    assert len({identity_of(AreaMatcher(one)) for one in (usual, with_own, other)}) == 3


def test_code_counts_and_words_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside those of the package, as it was and as it became."""
    monkeypatch.setattr(geomatch, "__path__", [*geomatch.__path__, str(tmp_path)])

    def seen(words: str, most: int) -> str:
        (tmp_path / "one.py").write_text(MODULE.format(text=words, most=most))
        monkeypatch.delitem(sys.modules, "geomatch.one", raising=False)
        for cached in (identity._tree, identity._code, identity._imports):
            cached.cache_clear()
        return identity_of(importlib.import_module("geomatch.one").found)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    first = seen("words", 5)
    assert seen("other words", 5) == first
    assert seen("words", 6) != first


def test_modules_that_type_checkers_alone_import_do_not_count() -> None:
    """Area matching shares parts with the locator, which know an index by its type and never open one here."""
    closure = identity._closure({"geomatch.matching.area"})
    assert "geomatch.query" in closure
    assert not {"geomatch.tile_index", "geomatch.vectors", "geomatch.milvus"} & closure


def test_modules_that_are_imported_from_beside_count() -> None:
    """As training imports its own: with dots."""
    closure = identity._closure({"geomatch.training.local.detector"})
    assert {"geomatch.training.local.sources", "geomatch.training.small", "geomatch.training.jobs"} <= closure


@dataclass(frozen=True)
class Row:
    value: int


def made(calls: list[int], value: int) -> Row:
    calls.append(value)
    return Row(value)


def rows(file: Path | None, maker: str = "a") -> tuple[Callable[[str, int], Row], list[int]]:
    calls: list[int] = []
    kept = Kept(file, maker, Row)
    return lambda of, value: kept.get(of, partial(made, calls, value)), calls


def test_rows_are_made_once_and_again_where_their_maker_changed(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "rows.jsonl"
    get, calls = rows(file)
    assert (get("x", 1), get("y", 2), get("x", 3)) == (Row(1), Row(2), Row(1))
    assert calls == [1, 2]
    get, calls = rows(file)
    assert (get("y", 7), get("z", 4), calls) == (Row(2), Row(4), [4])
    get, calls = rows(file, "b")
    assert (get("x", 5), calls) == (Row(5), [5])
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_line_that_was_cut_off_is_made_again(cut: int, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    get, _ = rows(file)
    get("x", 1), get("y", 2)
    file.write_bytes(file.read_bytes()[:-cut])
    get, calls = rows(file)
    assert (get("x", 8), get("y", 9), calls) == (Row(1), Row(9), [9])
    get, calls = rows(file)
    assert (get("y", 3), calls) == (Row(9), [])


@pytest.mark.parametrize("line", ["no JSON", "[]", "3", '{"of": "y"}', '{"of": "y", "row": {"other": 2}}'])
def test_line_of_something_else_is_made_again(line: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    get, _ = rows(file)
    get("x", 1)
    with file.open("a") as out:
        out.write(f"{line}\n")
    get, calls = rows(file)
    assert (get("x", 8), get("y", 9), calls) == (Row(1), Row(9), [9])


@pytest.mark.parametrize("module", ["geomatch.pixel_features", "geomatch.learned"])
def test_code_of_networks_counts(module: str) -> None:
    nets = ("encoder", "pixel_net", "onnx_graph")
    assert {f"geomatch.nets.{name}" for name in nets} <= identity._closure({module})
