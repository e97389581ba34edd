"""An executed notebook as a report keeps it: the same text for the same results, on any machine."""

from __future__ import annotations

import base64
import contextlib
import io
import os
from typing import Any

from repro.grid.profiles import repository_root
from repro.grid.rows import MAX_BYTES


def text_of(nb: Any, kernelspec: Any) -> str:
    """The notebook's text, without what differs from one execution to the next and without paths.

    Where it is larger than 2 MB its pictures get a palette of 256 colours; figures/ has them as they are.
    """
    import nbformat

    _clean(nb, kernelspec)
    if len(nbformat.writes(nb).encode()) >= MAX_BYTES:
        for cell in nb.cells:
            for output in cell.get("outputs", []):
                if "image/png" in (data := output.get("data", {})):
                    data["image/png"] = _with_palette(data["image/png"])
    return str(nbformat.writes(nb)) + "\n"


def _clean(nb: Any, kernelspec: Any) -> None:
    nb.metadata.pop("papermill", None)
    nb.metadata.pop("kernelspec", None)
    if kernelspec:
        nb.metadata["kernelspec"] = kernelspec
    for number, cell in enumerate(nb.cells):
        cell["id"] = f"cell-{number}"
        for name in ("papermill", "execution", "collapsed", "scrolled"):
            cell.metadata.pop(name, None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for holder, key in ((output, "text"), *((data, kind) for kind in data if kind.startswith("text/"))):
                if key in holder:
                    holder[key] = _placeless(holder[key])


def _placeless(text: str) -> str:
    """Paths in the repository, if the current folder is in one, relative to it; the folder of the data as "…"."""
    text = text.replace(folder, "…") if (folder := os.environ.get("VSMD_DATA")) else text
    with contextlib.suppress(ValueError):
        text = text.replace(f"{repository_root()}{os.sep}", "")
    return text


def _with_palette(png: str) -> str:
    from PIL import Image

    packed = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode() + "\n"
