"""Rows of a measurement, kept as lines of JSON so that a run that was ended goes on and a changed one starts again.

The first line says what made the rows; where that has changed none of them holds. Each row says what it was made of.
A line that was cut off, as when a process was killed, or that says something else, is dropped with all after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from geomatch.files import published, writing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class Kept(Generic[T]):
    """Rows by what they were made of.

    Args:
        file: of theirs, whose folder is made where it is missing; None to keep them in memory alone.
        maker: what makes them, a hash.
        row: one from its fields by their names.

    Raises:
        OutputError: the file cannot be read or written.
    """

    def __init__(self, file: Path | None, maker: str, row: Callable[..., T]) -> None:
        self._file = file
        self._rows: dict[str, T] = {}
        if file is not None:
            with writing(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                self._open(file, maker, row)

    def _open(self, file: Path, maker: str, row: Callable[..., T]) -> None:
        head = json.dumps({"maker": maker}) + "\n"
        written = file.read_bytes() if file.is_file() else b""
        lines = written.splitlines(keepends=True)
        good = [head.encode()]
        if lines[:1] == good:
            for line in lines[1:]:
                if not line.endswith(b"\n"):
                    break
                try:
                    told = json.loads(line)
                    self._rows[told["of"]] = row(**told["row"])
                except (ValueError, TypeError, KeyError):  # no such row, now or ever
                    break
                good.append(line)
        if lines != good:
            with published(file) as part:
                part.write_bytes(b"".join(good))

    def get(self, of: str, make: Callable[[], T]) -> T:
        """The row made of something, or a new one, which is kept."""
        if of not in self._rows:
            self._rows[of] = made = make()
            if self._file is not None:
                with writing(self._file), self._file.open("a") as out:
                    out.write(json.dumps({"of": of, "row": asdict(made)}) + "\n")
        return self._rows[of]
