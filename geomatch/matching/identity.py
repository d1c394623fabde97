"""What decides what a method gives, as one hash: its code, its options and its weights.

Code is that of the modules which define the method's parts and of all of geomatch that those import, without comments
and docstrings; so what is said of a method may change and what was measured of it stays.
"""

from __future__ import annotations

import ast
import hashlib
import types
from collections.abc import Iterator
from functools import cache, partial
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

LIBRARIES = ("numpy", "opencv-python-headless", "torch", "faiss-cpu")
PACKAGE = "geomatch"
# What they say, or how they write, decides nothing; of weights the values count, not which others have a name.
ASIDE = frozenset({"geomatch.console", "geomatch.errors", "geomatch.files", "geomatch.weights"})
_PLAIN = (type(None), bool, int, float, complex, str, bytes, Path)


def identity_of(thing: object) -> str:
    """A sha256, hexadecimal: of objects that do the same, the same in every process.

    Args:
        thing: a function, or an object made of parts whose attributes decide what it does. A part with a
            ``fingerprint`` is asked for that.
    """
    modules: set[str] = set()
    hashed = hashlib.sha256()
    for fact in _facts(thing, modules, {}):
        hashed.update(fact + b"\0")
    for name in sorted(_closure(modules)):
        hashed.update(f"{name} {_code(name)}\n".encode())
    hashed.update(repr([(name, version(name)) for name in LIBRARIES]).encode())
    return hashed.hexdigest()


def _facts(thing: Any, modules: set[str], met: dict[int, int]) -> Iterator[bytes]:
    """All that is to be known of a thing; ``modules`` gets those that define it."""
    if isinstance(thing, _PLAIN):
        yield repr(thing).encode()
        return
    if id(thing) in met:
        yield f"again {met[id(thing)]}".encode()
        return
    met[id(thing)] = len(met)
    if isinstance(thing, types.CodeType):
        yield thing.co_code
        yield repr(thing.co_names).encode()
        docstring = thing.co_consts[:1] if thing.co_name != "<lambda>" and isinstance(thing.co_consts[0], str) else ()
        yield from _all(thing.co_consts[len(docstring) :], modules, met)
        return
    kind = thing if isinstance(thing, (type, types.FunctionType)) else type(thing)
    modules.add(kind.__module__)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if isinstance(thing, torch.Tensor):
        thing = thing.detach().numpy()
    if isinstance(thing, np.ndarray):
        yield f"{thing.dtype} {thing.shape}".encode()
        yield np.ascontiguousarray(thing).tobytes()
    elif isinstance(thing, nn.Module):
        yield repr(thing).encode()
        yield from _all(sorted(thing.state_dict().items()), modules, met)
    elif isinstance(thing, types.FunctionType):
        held = [cell.cell_contents for cell in thing.__closure__ or ()]
        yield from _all([thing.__code__, thing.__defaults__, thing.__kwdefaults__, held], modules, met)
    elif isinstance(thing, types.BuiltinFunctionType):
        yield thing.__qualname__.encode()
    elif isinstance(thing, partial):
        yield from _all([thing.func, thing.args, thing.keywords], modules, met)
    elif isinstance(thing, dict):
        yield from _all([part for key in sorted(thing, key=repr) for part in (key, thing[key])], modules, met)
    elif isinstance(thing, (tuple, list)):
        yield from _all(thing, modules, met)
    elif not isinstance(thing, type):
        told = getattr(thing, "fingerprint", None)
        yield from _facts(vars(thing) if told is None else told(), modules, met) if hasattr(thing, "__dict__") else ()


def _all(things: Any, modules: set[str], met: dict[int, int]) -> Iterator[bytes]:
    for one in things:
        yield from _facts(one, modules, met)


def _closure(modules: set[str]) -> set[str]:
    """Modules of geomatch, and those of geomatch that they import."""
    found: set[str] = set()
    left = [name for name in modules if _ours(name)]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _imports(name)
    return found


def _ours(name: str) -> bool:
    return name.startswith(f"{PACKAGE}.") and name not in ASIDE


@cache
def _tree(name: str) -> ast.Module:
    """A module's code without docstrings."""
    origin = _spec(name).origin
    assert origin is not None, name
    tree = ast.parse(Path(origin).read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [part for part in node.body if not _is_text(part)]
    return tree


def _spec(name: str) -> ModuleSpec:
    spec = find_spec(name)
    assert spec is not None, name
    return spec


def _is_text(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)


@cache
def _code(name: str) -> str:
    return hashlib.sha256(ast.dump(_tree(name)).encode()).hexdigest()


@cache
def _imports(name: str) -> tuple[str, ...]:
    """Modules of geomatch that one imports, anywhere in it but for type checkers alone."""
    found = []
    for node in _run(_tree(name)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), _spec(name).parent)
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(one for one in found if _ours(one) and _is_module(one))


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a module that may run."""
    yield node
    typed = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    for child in [] if typed else ast.iter_child_nodes(node):
        yield from _run(child)


@cache
def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package, so it is a name within a module
        return False
