"""Configuration: a dataclass filled from YAML and dotted overrides, checked by OmegaConf."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from geomatch.errors import InputError, UsageError

T = TypeVar("T")


def read_config(file: Path, kind: type[T], overrides: Sequence[str] = (), *, examples: str) -> T:
    """A dataclass of that kind, from YAML and ``key.sub=value`` overrides.

    Args:
        file: YAML; an empty one is the defaults.
        kind: the dataclass; its nested ones are sections.
        overrides: they win.
        examples: folder of the repository with such files, for the message.

    Raises:
        InputError: the file cannot be read as YAML.
        UsageError: an unknown key, with the nearest known one, or a value of the wrong kind.
    """
    hint = f"see {examples}"
    try:
        given = OmegaConf.load(file)
    except (OSError, ValueError, YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot be read as YAML ({reason})", where=file, hint=hint) from error
    if not isinstance(given, DictConfig):
        raise InputError("holds a list, not keys and values", where=file, hint=hint)
    try:
        return merged(kind, given, OmegaConf.from_dotlist(list(overrides)), where=file)
    except OmegaConfBaseException as error:  # of an override that is no key=value
        raise _refusal(error, file, "") from error


def merged(kind: type[T], *values: Mapping[Any, Any] | DictConfig, where: Path, prefix: str = "") -> T:
    """A dataclass of that kind with these values, the later ones win; raises as ``read_config``.

    Args:
        kind: the dataclass.
        values: nested keys.
        where: the file that messages name.
        prefix: what stands before the keys in messages.
    """
    known = OmegaConf.structured(kind)
    OmegaConf.set_readonly(known, False)  # which those of frozen dataclasses are
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.merge(known, *values)))
    except OmegaConfBaseException as error:
        raise _refusal(error, where, prefix) from error


def _refusal(error: OmegaConfBaseException, file: Path, prefix: str) -> UsageError:
    """An unknown key, with the nearest one that there is beside it, or a value of the wrong kind."""
    key = prefix + str(error.full_key or "")
    if isinstance(error, ConfigKeyError) and is_dataclass(error.object_type):
        parent, dot, last = key.rpartition(".")
        near = difflib.get_close_matches(last, [f.name for f in fields(error.object_type)], n=1, cutoff=0.0)
        return UsageError(f"unknown key {key!r}", where=file, hint=f"the nearest one is {parent}{dot}{near[0]}")
    reason = str(error).splitlines()[0].rstrip(".")
    return UsageError(f"{key}: {reason}" if key else reason, where=file, hint="correct the value")
