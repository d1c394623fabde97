"""The three layer rules of the design, over the AST, and a wheel that holds every module of the tree."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("geomatch", "index", "training")
JOBS = ("index", "training")
BUILD = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"


def imported(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(level, dotted name) of everything that a node imports; level 0 is absolute."""
    match node:
        case ast.Import(names):
            yield from ((0, alias.name) for alias in names)
        case ast.ImportFrom(module, names, level):
            yield from ((level or 0, ".".join(filter(None, (module, alias.name)))) for alias in names)
        case ast.Call(ast.Name("__import__" | "import_module") | ast.Attribute(attr="import_module"), [argument, *_]):
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield 0, argument.value


def faults(room: str, source: str, siblings: frozenset[str] = frozenset(), depth: int = 0) -> list[str]:
    """Imports of a module ``depth`` folders into ``room`` that break a rule."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for level, name in imported(node):
            first, second = (*name.split("."), "")[:2]
            absolute = level == 0
            job = second if first == "geomatch" else first
            if room == "geomatch":
                wrong = (job in JOBS) if absolute else first in JOBS
            elif absolute:
                wrong = job in JOBS
            else:
                wrong = level > depth + 1 or first not in siblings
            if wrong:
                found.append("." * level + name)
    return found


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("geomatch", "from geomatch.index.build import build_index"),
        ("geomatch", "from geomatch import training"),
        ("geomatch", "import geomatch.index"),
        ("geomatch", "from .index import plan"),
        ("geomatch", "import index"),
        ("geomatch", "def f():\n    import importlib\n    importlib.import_module('geomatch.training.cli')"),
        ("index", "from geomatch.index.plan import blocks"),
        ("index", "from geomatch import index"),
        ("index", "from ..tiles import TileGrid"),
        ("index", "from .tiles import TileGrid"),
        ("index", "from geomatch.training import loss"),
        ("training", "import geomatch.index.build"),
        ("training", "if True:\n    from index import build"),
    ],
)
def test_breaches_are_seen(room: str, source: str) -> None:
    assert faults(room, source, frozenset({"plan", "build"}))


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("geomatch", "from geomatch.tile_index import TileIndex\nimport geomatch.tiles\nfrom .geo import Grid"),
        ("index", "from geomatch.tiles import TileGrid\nfrom geomatch import structure\nfrom .plan import blocks"),
        ("index", "from . import plan\nimport numpy.index"),
    ],
)
def test_what_the_rules_allow_is_no_breach(room: str, source: str) -> None:
    assert faults(room, source, frozenset({"plan"})) == []


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_as_the_design_says(room: str) -> None:
    modules = sorted((ROOT / room).rglob("*.py"))
    siblings = frozenset(path.parent.name if path.name == "__init__.py" else path.stem for path in modules)
    places = {path.relative_to(ROOT): len(path.relative_to(ROOT / room).parents) - 1 for path in modules}
    broken = {
        str(path): wrong
        for path, depth in places.items()
        if (wrong := faults(room, (ROOT / path).read_text(), siblings, depth))
    }
    assert broken == {}


def test_library_and_index_are_where_the_rules_look() -> None:
    assert len(list((ROOT / "geomatch").rglob("*.py"))) > 20
    assert (ROOT / "index" / "build.py").is_file()


def test_wheel_holds_every_module_of_the_tree(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    out.mkdir()
    for room in ROOMS:
        if (ROOT / room).is_dir():
            shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    tree = set()
    for room in ROOMS:
        place = Path(room) if room == "geomatch" else Path("geomatch") / room
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                tree.add((place / path.relative_to(ROOT / room)).as_posix())
    assert packed == tree
