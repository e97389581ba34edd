"""Hashes of the code that a run used: of the syntax tree, so comments, docstrings and layout do not count."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Mapping
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

# These store and schedule runs, or only list names (packages' registries): no figure depends on them.
MACHINERY = frozenset(
    {
        "vsmd",
        *(f"vsmd.{m}" for m in ("data", "durations", "files", "memory", "messages", "metrics", "networks", "samplers")),
    }
    | {"repro", "repro.studies", "repro.studies.sets"}
)
SCHEDULING = "repro.grid"  # and everything in it


def _text(node: object) -> str:
    # ast.dump differs between Python versions; this walk skips what is empty and what carries no meaning.
    if isinstance(node, ast.AST):
        parts = [type(node).__name__]
        for name, value in ast.iter_fields(node):
            if name in ("ctx", "kind", "type_comment") or value is None or value == []:
                continue
            parts.append(f"{name}={_text(value)}")
        return f"({' '.join(parts)})"
    if isinstance(node, list):
        return f"[{' '.join(_text(v) for v in node if not _is_bare_string(v))}]"
    return repr(node)


def _is_bare_string(node: object) -> bool:
    """A docstring, wherever it stands: a string as a statement does nothing."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def source_hash(source: str | bytes) -> str:
    """12 hex digits of the SHA-256 of the syntax tree of Python `source`, comments and docstrings aside."""
    return hashlib.sha256(_text(ast.parse(source)).encode()).hexdigest()[:12]


@cache
def _file_hash(path: str, mtime_ns: int, size: int) -> str:
    return source_hash(Path(path).read_bytes())


_PATHS: dict[tuple[str, ...], Path] = {}  # by module and sys.path: a report asks for the same ones 100,000 times


def module_path(module: str) -> Path | None:
    """The source file of `module`, found without importing anything; None where there is none."""
    key = (module, *sys.path)
    path = _PATHS.get(key)
    if path is None or not path.exists():
        path = _searched(module)
        if path is not None:
            _PATHS[key] = path
    return path


def _searched(module: str) -> Path | None:
    parts, origin, where = module.split("."), None, None
    for i in range(len(parts)):
        try:  # the top-level name through every finder (editable installs have their own), then down its path
            spec = PathFinder.find_spec(".".join(parts[: i + 1]), where) if i else find_spec(parts[0])
        except ValueError:
            return None
        if spec is None:
            return None
        where = list(spec.submodule_search_locations) if spec.submodule_search_locations is not None else []
        origin = spec.origin
    return Path(origin) if origin and origin.endswith(".py") else None


def module_hash(module: str) -> str | None:
    """Hash of the present source of `module`, or None where it is gone or does not parse."""
    path = module_path(module)
    try:
        if path is None:
            return None
        stat = path.stat()
        return _file_hash(str(path), stat.st_mtime_ns, stat.st_size)
    except (OSError, SyntaxError, ValueError):
        return None


def loaded(packages: set[str]) -> dict[str, str]:
    """Hashes of the modules of `packages` (top-level names) that this process has imported, by name; no machinery."""
    names = sorted(m for m in list(sys.modules) if m.split(".")[0] in packages and m not in MACHINERY)
    hashes = {m: module_hash(m) for m in names if not f"{m}.".startswith(f"{SCHEDULING}.")}
    return {m: digest for m, digest in hashes.items() if digest is not None}


def sources(packages: set[str]) -> dict[str, str]:
    """Hashes of all modules of `packages` (top-level names), imported or not, by name; those not here are left out."""
    hashes: dict[str, str] = {}
    for package in sorted(packages):
        first = module_path(package)
        if first is None:
            continue
        if first.name != "__init__.py":
            names = [package]
        else:  # only folders that are packages: builds may leave copies in others
            inits = sorted(first.parent.rglob("__init__.py"))
            folders = [p.parent for p in inits if all((q / "__init__.py").exists() for q in _upto(p, first.parent))]
            files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
            parts = [(package, *path.relative_to(first.parent).with_suffix("").parts) for path in files]
            names = [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts]
        hashes |= {name: digest for name in names if (digest := module_hash(name)) is not None}
    return hashes


def _upto(path: Path, top: Path) -> list[Path]:
    """The folders from that of `path` up to `top`."""
    return [folder for folder in path.parents if folder.is_relative_to(top)]


def differing(expected: Mapping[str, str]) -> list[str]:
    """Those modules of `expected`, hashes by name, whose present source is another or not here."""
    return [module for module, digest in expected.items() if module_hash(module) != digest]
