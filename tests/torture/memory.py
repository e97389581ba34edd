"""Resident memory over long training, many forecasts, and models saved and loaded again: flat, or it leaks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import vsmd
from torture import seeds
from torture.reading import status
from torture.tally import Tally, scaled
from vsmd import memory

STEPS, FORECASTS, FILES = 100_000, 1_000, 1_000
WARM = 0.2  # share of a curve that is left out: caches fill
ALLOWED = 8.0  # megabytes that the rest may grow, beyond what it scatters


def grown(curve: list[tuple[float, float]]) -> tuple[float, float]:
    """Megabytes that a curve has grown after its warm part, by a line through it, and how it scatters about that."""
    x, y = np.array(curve[int(WARM * len(curve)) :]).T
    slope, start = np.polyfit(x - x[0], y, 1)
    return float(slope * (x[-1] - x[0])), float((y - start - slope * (x - x[0])).std())


def judge(tally: Tally, name: str, what: str, n: int, work: Callable[[Callable[[float], None]], object]) -> None:
    """Run `work`, which says now and then how far it is; its curve must be flat."""
    curve: list[tuple[float, float]] = []
    with tally.kind(name, what) as row:

        def look(at: float) -> None:
            memory.give_back()
            curve.append((at, status("RssAnon") / 1e6))  # pages of files come and go
            tally.did(row, round(at) - row.count)

        work(look)
        growth, scatter = grown(curve)
        row.note = f"{growth:+.1f} MB after the first fifth, ±{scatter:.1f}"
        if growth > ALLOWED + 3 * scatter:
            tally.failed(row, "grows", f"{name} for {n:,}", f"grows by {growth:.1f} MB, scatter {scatter:.1f}")
        tally.curves[what] = curve


def trained(steps: int, look: Callable[[float], None]) -> None:
    """A training of so many steps."""
    every = max(1, steps // 100)
    vsmd.fit(
        vsmd.forward_process("VSULD", (3,)), seeds.points(1_000), network=seeds.mlp(), steps=steps, batch_size=16,
        adaptation=vsmd.Adaptation(rounds=30, paths=50, nodes=8), snapshots=range(every, steps + 1, every),
        on_snapshot=lambda step, _: look(step),
    )  # fmt: skip


def forecast(count: int, look: Callable[[float], None]) -> None:
    """So many forecasts of one predictor."""
    predictor = seeds.estimator().train(seeds.walk())
    every = max(1, count // 100)
    for i in range(1, count + 1):
        list(predictor.predict(seeds.walk(), num_samples=20))
        if i % every == 0:
            look(i)


def filed(count: int, look: Callable[[float], None]) -> None:
    """A model saved, loaded and sampled so many times."""
    model = vsmd.fit(vsmd.forward_process("CLD", (3,)), seeds.points(), network=seeds.mlp(), **seeds.SMALL)
    every = max(1, count // 100)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(1, count + 1):
            model = vsmd.load(model.save(Path(folder) / "model.safetensors"))
            model.sample(50, steps=5)
            if i % every == 0:
                look(i)


def run(tally: Tally, scale: float) -> None:
    """The three curves."""
    counts = [scaled(n, max(scale, 0.005)) for n in (STEPS, FORECASTS, FILES)]
    judge(tally, "training", "training steps", counts[0], lambda look: trained(counts[0], look))
    judge(tally, "forecasts", "forecasts", counts[1], lambda look: forecast(counts[1], look))
    judge(tally, "files", "models saved, loaded, sampled", counts[2], lambda look: filed(counts[2], look))
