"""Optional dependencies: imported where they are needed, and named where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from geomatch.errors import UsageError


@contextmanager
def needs_extra(extra: str, task: str) -> Iterator[None]:
    """Turns a missing module in the block into a UsageError that says what to install.

    Args:
        extra: the group in geomatch's ``extras_require`` that brings the block's imports.
        task: what cannot be done without, like "writing .gpkg".

    Raises:
        UsageError: something that the block imports is not installed.
    """
    try:
        yield
    except ImportError as error:
        hint = f"install it with pip install 'geomatch[{extra}]'"
        raise UsageError(f"{task} needs {error.name}, which is not installed", hint=hint) from error
