"""Dataclasses as lines of JSON: what an evaluation predicted, kept so that its scores can be made again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from geomatch.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def line_of(row: DataclassInstance) -> str:
    """A row as a line, with its end."""
    return json.dumps(asdict(row)) + "\n"


def write_rows(rows: Iterable[DataclassInstance], file: Path) -> None:
    """One line each."""
    file.write_text("".join(map(line_of, rows)))


def read_rows(file: Path, make: Callable[..., T]) -> list[T]:
    """What ``write_rows`` wrote.

    Args:
        file: of lines.
        make: of the fields of one, by their names.

    Raises:
        InputError: the file is damaged, or of something else.
    """
    try:
        return [make(**json.loads(line)) for line in file.read_text().splitlines()]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"no predictions ({error})", where=file, hint="run geomatch evaluate again") from error
