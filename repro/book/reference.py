"""The reference: a page a room of `vsmd`, every public name on it, from docstrings that know nothing of Sphinx.

Also a Sphinx extension: docstrings of the house (equations set in, a line a parameter, names in backticks) as
reStructuredText.
"""

from __future__ import annotations

import ast
import inspect
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_PARAMETER = re.compile(r"(\w+(?:, \w+)*): ")
_EMPHASIS = re.compile(r"(?<![\w*])\*(\w(?:[^*]*\w)?)\*(?![\w*])")


class Module(NamedTuple):
    """A module's dotted name, its public names with the kind of each, and the first paragraph of its docstring.

    Kinds: "class", "subclass", "function", "data".
    """

    name: str
    names: dict[str, str]
    about: str


def modules(package: Path) -> list[Module]:
    """Every module below the folder `package` whose path has no leading underscore, packages before what is in them."""
    paths = sorted(package.rglob("*.py"), key=lambda path: (path.parent, path.stem != "__init__", path.stem))
    chosen = [p for p in paths if p.stem == "__init__" or not p.stem.startswith("_")]
    trees = {p: ast.parse(p.read_text(encoding="utf-8")) for p in chosen}
    return [Module(_dotted(p, package), _public(tree), _about(tree)) for p, tree in trees.items()]


def _about(tree: ast.Module) -> str:
    return " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())


def _dotted(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _public(tree: ast.Module) -> dict[str, str]:
    """Classes and functions of a module, and the constants that it documents, annotates or names in `__all__`."""
    names: dict[str, str] = {}
    listed = {name for node in tree.body for name in _all_of(node)}
    for node, after in zip(tree.body, [*tree.body[1:], None]):
        if isinstance(node, ast.ClassDef):
            names[node.name] = "subclass" if node.bases else "class"
        elif isinstance(node, ast.FunctionDef):
            names[node.name] = "function"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            registry = isinstance(node, ast.AnnAssign) and ast.unparse(target).isupper()
            if isinstance(target, ast.Name) and (documented or registry or target.id in listed):
                names[target.id] = "data"
    return {name: kind for name, kind in names.items() if not name.startswith("_")}


def _all_of(node: ast.stmt) -> list[str]:
    """The names of an assignment to `__all__`, else none."""
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        return [str(name) for name in ast.literal_eval(node.value)]
    return []


def pages(package: Path) -> dict[str, str]:
    """File names and texts of the reference, one page a room, and `index.rst`."""
    rooms: dict[str, list[Module]] = {}
    for module in modules(package):
        rooms.setdefault(".".join(module.name.split(".")[:2]), []).append(module)
    front = rooms.pop(package.name)
    texts = {f"{room}.rst": "\n".join(_page(room, found)) for room, found in sorted(rooms.items())}
    index = [*_title("Reference", "="), *_module(front[0])]
    index += ["Its names, and where each lives:", ""]
    home = {name: module.name for found in rooms.values() for module in found for name in module.names}
    for name in _face(package):
        index.append(f"* :py:obj:`vsmd.{name} <{home[name]}.{name}>`")
    index += ["", *_title("Rooms", "-")]
    for room, found in sorted(rooms.items()):
        index.append(f"* :doc:`{room}`" + (f" – {_inline(found[0].about)}" if found[0].about else ""))
    listed = (f"   {name.removesuffix('.rst')}" for name in texts)
    index += ["", ".. toctree::", "   :maxdepth: 1", "   :hidden:", "", *listed, ""]
    return {"index.rst": "\n".join(index), **texts}


def _face(package: Path) -> list[str]:
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    return [name for node in tree.body for name in _all_of(node)]


def _title(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def _module(module: Module) -> list[str]:
    lines = [f".. automodule:: {module.name}", ""]
    for name, kind in module.names.items():
        lines.append(f".. auto{kind.removeprefix('sub')}:: {module.name}.{name}")
        members = [":members:"]
        options = {"class": members, "subclass": [*members, ":show-inheritance:"], "data": [":no-value:"]}.get(kind, [])
        lines += [*(f"   {option}" for option in options), ""]
    return lines


def _page(room: str, found: list[Module]) -> Iterator[str]:
    yield from _title(room, "=")
    yield from _module(found[0])
    for module in found[1:]:
        yield from (*_title(module.name, "-"), *_module(module))


def missing(inventory: Path, package: Path) -> list[str]:
    """Public names of `package` that a built book's objects.inv lacks."""
    packed = inventory.read_bytes().split(b"\n", 4)[4]  # after four lines of text
    there = {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}
    wanted = (f"{module.name}.{name}" for module in modules(package) for name in module.names)
    return [name for name in wanted if name not in there]


def rst(lines: list[str]) -> list[str]:
    """A docstring of the house as reStructuredText: what is set in stands as it is, parameters are a list."""
    text: list[str] = []
    for block in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        rows = block.splitlines()
        if not rows:
            continue
        if rows[0].startswith(">>>"):
            text += rows
        elif rows[0].startswith("  "):
            text += ["::", "", *(f"    {row}" for row in rows)]
        else:
            text += [*_paragraphs(rows)]
        text.append("")
    return text


def _paragraphs(rows: list[str]) -> Iterator[str]:
    """Rows without a blank line between them: items "- …" and parameters "name: …" as bullets, the rest as it is."""
    entries: list[str] = []
    for row in rows:
        starts = row.startswith("- ") or _PARAMETER.match(row)
        if not entries or starts:
            entries.append(row.strip())
        else:
            entries[-1] += f" {row.strip()}"
    for i, entry in enumerate(entries):
        if match := _PARAMETER.match(entry):
            yield f"* **{_escaped(match[1])}**: {_inline(entry[match.end() :])}"
        elif entry.startswith("- "):
            if i and not entries[i - 1].startswith("- "):
                yield ""
            yield f"* {_inline(entry[2:])}"
        else:
            yield from (_inline(entry), *([""] if i + 1 < len(entries) else []))


def _inline(text: str) -> str:
    """Names in backticks as links where there is something to link to, `*words*` stressed, the rest literally."""
    parts = re.split(r"`+", text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            plain = _EMPHASIS.split(part)
            parts[i] = "".join(f"*{_escaped(p)}*" if j % 2 else _escaped(p) for j, p in enumerate(plain))
        elif re.fullmatch(r"[A-Za-z]\w*(\.\w+)*", part):
            parts[i] = rf":py:obj:`{part}`\ "
        else:
            parts[i] = rf"``{part}``\ " if part == part.strip() and part else _escaped(part)
    return "".join(parts).rstrip("\\ ")


def _escaped(text: str) -> str:
    return re.sub(r"([\\*|_`])", r"\\\1", text)


def plain(signature: str) -> str:
    """A signature as one reads it: what stands within `Annotated` is its type, and a default that is made is "...".

    Sphinx sets a signature in a line a parameter where it can read it, which it cannot with either.
    """
    signature = signature.replace("<factory>", "...")
    while match := re.search(r"~?(?:\w+\.)*~?Annotated\[", signature):
        depth, first, i = 1, 0, match.end()
        while depth and i < len(signature):
            depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(signature[i], 0)
            if signature[i] == "," and depth == 1:
                first = first or i
            i += 1
        signature = signature[: match.start()] + signature[match.end() : first or i - 1] + signature[i:]
    return signature


def setup(app: Any) -> dict[str, Any]:
    """What Sphinx calls."""

    def processed(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        of_its_type = what == "data" and inspect.getdoc(obj) == inspect.getdoc(type(obj))  # dict's own words
        lines[:] = [] if of_its_type else rst(lines)

    def signed(*about: Any) -> tuple[str, str] | None:  # app, what, name, obj, options, signature, what it returns
        return (plain(about[5]), about[6]) if about[5] else None

    app.connect("autodoc-process-docstring", processed)
    app.connect("autodoc-process-signature", signed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
