"""Runs geomatch as users do, and looks at what it leaves on disk."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
from typer.testing import CliRunner, Result

from geomatch.cli import app
from geomatch.files import sha256_of
from geomatch.index.cli import app as index_app
from geomatch.manifest import MANIFEST
from geomatch.training.cli import app as train_app

Gdal = Callable[..., str]  # a tool of GDAL's by its words, gives what it printed
GROUPS = {"index": index_app, "train": train_app}  # of commands, which are loaded when they are asked for
SCHEMAS = Path(__file__).parent / "schemas"


def program(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """``python -m geomatch`` in a process of its own, where warnings are errors."""
    command = [sys.executable, "-W", "error", "-m", "geomatch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def geomatch(*arguments: object) -> Result:
    """A command in this process; an exception that is not the program's own way out fails the test."""
    words = [str(argument) for argument in arguments]
    group = GROUPS.get(words[0])
    result = CliRunner().invoke(group, words[1:]) if group else CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def content(index: Path) -> dict[str, str]:
    """sha256 of every file of an index but the manifest, which names paths."""
    return {file.name: sha256_of(file) for file in sorted(index.iterdir()) if file.name != MANIFEST}


def checked_json(text: str, schema: str) -> Any:
    """Strict JSON (no NaN) that keeps to ``tests/schemas/SCHEMA.json``."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    value = json.loads(text, parse_constant=refuse)
    rules = json.loads((SCHEMAS / f"{schema}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(rules)
    jsonschema.validate(value, rules, jsonschema.Draft202012Validator)
    return value


def listing(folder: Path) -> dict[str, str]:
    """Everything below a folder, hidden files too, with the sha256 of its content."""
    return {
        str(path.relative_to(folder)): sha256_of(path) if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def complaint(stderr: str) -> str:
    """The one message of a command that failed: cause, and next step."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert re.fullmatch(r"geomatch: .+\. (?:[A-Z/0-9]|gdal|geomatch ).+\.", lines[0]), stderr
    return lines[0]
