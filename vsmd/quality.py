"""Is a trained model any good? Measures of its samples beside their floors, and in words what to change.

report = vsmd.check(model, data)  # what `vsmd.data.points.read` returns, or a pair (training points, held-out ones)
print(report); report.frame; report.picture("samples.png")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vsmd import checks, files
from vsmd.data.points import PointSet
from vsmd.diagnostics import PriorGap, gap_of
from vsmd.metrics.points import Reference
from vsmd.model import Model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

OFF = 0.1  # beyond a floor: of a standard deviation, a spread, an AUC, a share: worth saying
LONGER = "train longer, or with a wider network"
MOMENTS = ("mean in standard deviations, worst axis", "spread over the data's, narrowest axis", "…, widest axis")
MEASURES = {
    "tail_error": "1 % and 99 % quantiles, 4 widest axes", "sw2": "sliced W2, whitened", "auc": "AUC of a classifier",
    "energy": "energy distance, whitened", "memorised": "nearer to training points",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Check:
    """What `check` measured; print it for a table and words.

    rows: value and floor by name of the measure; a floor is what training points have in place of samples. advice: what
    is wrong and what to change. samples: (n, d), the finite ones. reference: what they were held against.
    """

    rows: dict[str, tuple[float, float]]
    advice: tuple[str, ...]
    samples: Tensor
    reference: Reference

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a table with columns samples and floor."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.rows, orient="index", columns=["samples", "floor"])

    def __str__(self) -> str:
        lines = [f"{name:<40}{value:>10.3g}{floor:>10.3g}" for name, (value, floor) in self.rows.items()]
        return "\n".join([f"{'':<40}{'samples':>10}{'floor':>10}", *lines, "", *self.advice])

    def picture(self, path: str | Path | None = None) -> Figure:
        """Samples over held-out points in the four widest axes: a matplotlib figure, saved where there is a path."""
        from matplotlib.figure import Figure

        points = [self.reference.whiten(z)[:2_000] for z in (self.reference.test, self.samples)]
        last = points[0].shape[1] - 1
        figure = Figure(figsize=(8, 4), layout="constrained")
        for axes, i in zip(figure.subplots(1, 2), (0, min(2, last))):
            for z, label in zip(points, ("held-out points", "samples")):
                axes.scatter(z[:, i], z[:, min(i + 1, last)], s=4, alpha=0.4, linewidths=0, label=label)
            axes.set(xlabel=f"axis {i + 1}", ylabel=f"axis {min(i + 1, last) + 1}")
        axes.legend()
        if path is not None:
            with files.replacing(Path(path)) as temporary:
                figure.savefig(temporary)
        return figure


def check(
    model: Model, data: PointSet | tuple[Tensor, Tensor], *, n: int = 5_000, seed: int = 0, **options: Any
) -> Check:
    """Draw samples of a model and hold them against data that it was not trained on.

    data: a `PointSet`, or a pair of training and held-out points, each (n, *shape).
    n: samples (default 5,000). seed: of samples and measures (default 0).
    options: of `Model.sample`, such as solver and steps.

    Raises TypeError for other data, ValueError for points of another shape than the model's, or where fewer than ten
    samples are finite.
    """
    parts = (data.train, data.test) if isinstance(data, PointSet) else data
    if not isinstance(parts, tuple) or len(parts) != 2:
        raise TypeError(f"data={type(data).__name__}: must be a PointSet, or a pair of training and held-out points")
    shape = model.process.shape
    train, test = (checks.points(f"data: {part} points", x, shape) for part, x in zip(("training", "held-out"), parts))
    reference = Reference.of(train, test, seed)
    x = model.sample(n, seed=seed, **options).flatten(1)
    finite = x[x.isfinite().all(1)]
    if len(finite) < 10:
        raise ValueError(f"model: {len(finite)} of {n} samples are finite; take more steps or another solver")
    m = reference.measures(finite)
    moments = [_moments(reference.whiten(z), reference.whiten(reference.test)) for z in (finite, reference.train)]
    rows = dict(zip(MOMENTS, zip(*moments))) | {label: (m[key], m[f"{key}_floor"]) for key, label in MEASURES.items()}
    gap = gap_of(model.process, train, seed)
    rows["prior, sliced W2 from the process's end"] = (gap.gap, gap.floor)
    advice = _advice(m, moments, n - len(finite), gap)
    return Check(rows, tuple(advice) or ("Nothing is wrong that these measures see.",), finite, reference)


def _moments(z: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Largest shift in standard deviations, least and largest ratio of standard deviations, of whitened axes."""
    ratio = z.std(0) / y.std(0)
    return float(((z.mean(0) - y.mean(0)) / y.std(0)).abs().max()), float(ratio.min()), float(ratio.max())


def _advice(m: dict[str, float], moments: list[tuple[float, float, float]], diverged: int, gap: PriorGap) -> list[str]:
    """What is wrong, the causes first, a sentence each."""
    (shift, least, most), (shift_floor, least_floor, most_floor) = moments
    steps, wide = "take more steps, or solver='exponential'", f"standardise or whiten the data, or {LONGER}"
    copies = "samples lie nearer to training points than to as many others: train less, on more data"
    over = {key: m[key] > m[f"{key}_floor"] + OFF for key in MEASURES}
    sentences = (
        (diverged > 0, f"{diverged} samples are not finite: {steps}."),
        (gap.clear, f"The prior misses the data's law at t = 1: {gap}."),
        (shift > shift_floor + OFF, f"The mean is off by {shift:.2g} standard deviations along an axis: {LONGER}."),
        (least < least_floor - OFF, f"An axis is too narrow, {least:.2g} times the data's spread: {LONGER}."),
        (most > most_floor + OFF, f"An axis is too wide, {most:.2g} times the data's spread: {wide}."),
        (over["tail_error"], f"Tails are off by {m['tail_error']:.0%} of their reach: {LONGER}, or prior='mixture'."),
        (over["auc"], f"Trees tell samples from held-out points (AUC {m['auc']:.2f}): {LONGER}."),
        (over["memorised"], f"{m['memorised']:.0%} of the {copies}, or with a smaller network."),
    )
    return [sentence for wrong, sentence in sentences if wrong]
