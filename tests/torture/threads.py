"""One training, its samples and densities in processes of 1, 2 and 4 threads: the same bits for as many, near else."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from torture import children
from torture.tally import Row, Tally, scaled

COUNTS = (1, 2, 4)
TOLERANCE = 2e-3  # of the samples' own spread, between numbers of threads
STEPS = 60


def results(steps: int = STEPS) -> dict[str, Any]:
    """Samples, densities and weights of trainings with matrices large enough to be shared among threads."""
    import vsmd

    values: dict[str, Any] = {}
    for method in ("VSULD", "SGM"):
        process = vsmd.forward_process(method, (8,), beta=4.0)
        data = torch.randn(4_000, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9)
        model = vsmd.fit(
            process, data, steps=steps, batch_size=1_024, adaptation=vsmd.Adaptation(rounds=3, paths=500, nodes=10)
        )
        values[method] = model.sample(200, seed=1).double().flatten().tolist()
        values[f"{method} density"] = model.log_prob(data[:20]).tolist()
    return values


def apart(one: dict[str, Any], two: dict[str, Any]) -> float:
    """Largest difference of two results over the standard deviation of the first."""
    pairs = [(torch.tensor(one[k], dtype=torch.float64), torch.tensor(two[k], dtype=torch.float64)) for k in one]
    return max(float((a - b).abs().max() / a.std()) for a, b in pairs)


def child(threads: int, steps: int, python: str = sys.executable, env: dict[str, str] | None = None) -> tuple[str, str]:
    """The line that such a process prints, and all that it says if it has none."""
    words = ["-c", f"from torture.threads import main; main({threads}, {steps})"]
    status, said = children.ended(children.start(words, env or children.environment(threads), python=python))
    lines = [line for line in said.splitlines() if line.startswith("{")]
    return (lines[-1] if lines and status == 0 else ""), said[-400:]


def main(threads: int, steps: int) -> None:
    """Print the results of so many threads."""
    torch.set_num_threads(threads)
    print(json.dumps(results(steps)))


def compared(tally: Tally, row: Row, name: str, first: str, second: str, said: str, tolerance: float) -> None:
    """Count a comparison of two processes' lines; tolerance 0: bit for bit."""
    tally.did(row)
    if not first or not second:
        tally.failed(row, "ends", name, f"one of the two did not end well: {said}")
    elif first != second and (tolerance == 0 or (far := apart(json.loads(first), json.loads(second))) > tolerance):
        what = "are not the same bits" if tolerance == 0 else f"are {far:.2g} standard deviations apart"
        tally.failed(row, "differ", name, f"results {what}")


def run(tally: Tally, scale: float) -> None:
    """Twice each number of threads."""
    steps, lines = scaled(STEPS, scale), {}
    for threads in COUNTS[: 2 if scale < 0.5 else 3]:
        with tally.kind(f"{threads} threads", "twice, the same bits") as row:
            (lines[threads], said), (again, more) = child(threads, steps), child(threads, steps)
            compared(tally, row, f"{threads} threads twice", lines[threads], again, said + more, 0.0)
    with tally.kind("other numbers of threads", f"within {TOLERANCE:g} standard deviations of the samples") as row:
        for threads in list(lines)[1:]:
            compared(tally, row, f"1 and {threads} threads", lines[1], lines[threads], "", TOLERANCE)
            if lines[1] and lines[threads]:
                far = apart(json.loads(lines[1]), json.loads(lines[threads]))
                row.note += f"{'; ' * bool(row.note)}{threads} threads: {far:.2g}"
