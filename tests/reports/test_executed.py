"""repro.reports.executed: what is kept of an executed notebook."""

from __future__ import annotations

import base64
import io
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

from repro.grid.profiles import repository_root
from repro.grid.rows import MAX_BYTES
from repro.reports import executed


def notebook(*pictures: np.ndarray, text: str = "") -> Any:
    """A notebook with one cell that shows pictures (rows, columns, 3) and prints a text."""
    outputs = [nbformat.v4.new_output("stream", name="stderr", text=text)]
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": text}
        outputs.append(nbformat.v4.new_output("display_data", data=data))
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=outputs)])


def first_picture(text: str) -> np.ndarray:
    data = nbformat.reads(text, 4).cells[0].outputs[1].data["image/png"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_paths_of_the_machine_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSMD_DATA", "/somewhere/data")
    said = f"{repository_root()}/vsmd/model.py:3: no a.npz in VSMD_DATA='/somewhere/data'"
    kept = executed.text_of(notebook(np.zeros((2, 2, 3), np.uint8), text=said), None)
    outputs = nbformat.reads(kept, 4).cells[0].outputs
    assert outputs[0].text == outputs[1].data["text/plain"] == "vsmd/model.py:3: no a.npz in VSMD_DATA='…'"


def test_too_large_a_notebook_gets_palettes_and_others_keep_their_colours() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)  # a PNG of 1.9 MB
    large = executed.text_of(notebook(noise), None)
    assert len(large.encode()) <= MAX_BYTES
    assert len(np.unique(first_picture(large).reshape(-1, 3), axis=0)) <= 256
    assert np.array_equal(first_picture(executed.text_of(notebook(noise[:300]), None)), noise[:300])
