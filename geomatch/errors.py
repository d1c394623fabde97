"""Every error geomatch raises on purpose: what went wrong, where, and what to do next.

One line per kind. ``exit_code`` is what the command line returns, ``http_status`` what a service answers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

_COMMANDS = ("gdal", "geomatch ", "ls ", "rio ")  # how hints begin that name a program first


class GeomatchError(Exception):
    """Base of all errors that a user can act on.

    Args:
        what: the cause, in one sentence without a full stop.
        where: the file, folder or option that it is about, or "" when there is none.
        hint: the next step for the user, in one sentence without a full stop.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, what: str, *, where: object = "", hint: str = "") -> None:
        self.what = what
        self.where = str(where)
        self.hint = hint
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it comes whole out of another process."""
        return partial(type(self), where=self.where, hint=self.hint), (self.what,)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        # A sentence, but a program keeps its name as it is typed.
        hint = self.hint if self.hint.startswith(_COMMANDS) else self.hint[:1].upper() + self.hint[1:]
        return f"{place}{self.what}. {hint}." if hint else f"{place}{self.what}."


class UsageError(GeomatchError):
    """Options that contradict each other or a value out of range."""

    exit_code, http_status = 2, 400


class InputError(GeomatchError):
    """A raster that cannot be used: unreadable, unsafe, empty or without what the task needs."""

    exit_code, http_status = 3, 422


class UnrectifiedError(InputError):
    """A raster that is located by ground control points or an RPC model, not by an affine transform."""

    exit_code, http_status = 3, 422


class LimitError(InputError):
    """A raster that asks for more memory than the limits allow."""

    exit_code, http_status = 3, 413


class IndexFormatError(GeomatchError):
    """An index that is missing, damaged, of another format version, or whose map is gone."""

    exit_code, http_status = 4, 500


class OutputError(GeomatchError):
    """A place that cannot be written: missing folder, no permission, disk full, or something in the way."""

    exit_code, http_status = 5, 507
