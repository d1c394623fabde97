"""What ``import geomatch`` offers, and what it costs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from towns import Town

import geomatch
from geomatch.errors import InputError
from geomatch.index.plan import BuildOptions

LIBRARIES = ("numpy", "rasterio", "faiss", "cv2", "scipy", "pyproj", "shapely", "pyarrow", "torch", "lightning",
             "openvino", "onnxruntime", "kornia", "dask", "distributed", "pymilvus", "omegaconf")  # fmt: skip
OF_THE_COMMANDS = ("rich", "typer")


@pytest.mark.parametrize("module", ["geomatch", "geomatch.errors"])
def test_import_costs_nothing(module: str) -> None:
    code = f"import sys, {module}; print(sorted({set(LIBRARIES + OF_THE_COMMANDS)} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_does_not_wait_for_libraries() -> None:
    """Of the commands that are there; those of a command are loaded when it runs."""
    code = (
        "import sys\nfrom geomatch.__main__ import main\nsys.argv = ['geomatch', '--help']\ntry:\n    main()\n"
        f"except SystemExit:\n    print('loaded', sorted({set(LIBRARIES)} & sys.modules.keys()))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "locate" in told
    assert told.splitlines()[-1] == "loaded []"


def test_every_public_name_is_there() -> None:
    for name in geomatch.__all__:
        assert getattr(geomatch, name).__doc__, name
    scope: dict[str, object] = {}
    exec("from geomatch import *", scope)
    assert set(geomatch.__all__) <= scope.keys()


def test_lazy_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(Path(inspect.getfile(geomatch)).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == geomatch._HOMES
    assert sorted([*seen, "build_index"]) == sorted(geomatch.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Locater'"):
        geomatch.Locater  # noqa: B018
    assert not hasattr(geomatch, "numpy")


def test_build_index_takes_the_fields_of_build_options() -> None:
    parameters = inspect.signature(geomatch.build_index).parameters
    keywords = {
        name: parameter.default for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY
    }
    told = [field for field in fields(BuildOptions) if field.name != "kinds"]  # which only a configuration tells
    options = {field.name: field.default for field in told}
    assert keywords == options | {"overwrite": False, "scheduler": None, "progress": None}
    types = {field.name: field.type for field in told}
    assert {name: parameters[name].annotation for name in types} == types


def test_story_of_the_docstring(town: Town, tmp_path: Path) -> None:
    told: list[str] = []
    index = geomatch.build_index(
        town.path, tmp_path / "city.gmi", stride_px=64, progress=lambda stage, done, total: told.append(stage)
    )
    assert isinstance(index, geomatch.TileIndex)
    assert index.manifest.tiles.stride_px == 64
    assert told
    locator = geomatch.Locator.open(tmp_path / "city.gmi")
    with pytest.raises(InputError) as caught:
        locator.locate(tmp_path / "strip.tif", geomatch.StripOptions(gsd_m=1))
    assert isinstance(caught.value, geomatch.GeomatchError)
