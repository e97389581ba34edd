"""How far samples of a model are from held-out points of the same law, in five numbers, each beside its floor.

    reference = Reference.of(data.train, data.test)
    row = reference.measures(samples)  # {"sw2": …, "sw2_floor": …, "energy": …, "auc": …, "tail_error": …, …}

All but the classifier see points whitened by the training part: standardised columns along their principal axes, axes
that do not vary left out. A floor is the measure of training points in place of samples, as many as there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vsmd import checks, random
from vsmd.metrics._inputs import Array, pair, rows
from vsmd.metrics.distances import sliced_wasserstein2
from vsmd.metrics.neighbours import memorisation

MOST, MOST_PAIRS = 5_000, 2_000  # points of a set that are compared; by classifiers and neighbours
RANK = 1e-10  # of the largest eigenvalue: axes below do not vary
BLOCK = 2**22  # distances computed in one go


def energy_distance(x: Array, y: Array) -> float:
    """Return the energy distance √(2 E|X - Y| - E|X - X'| - E|Y - Y'|) of point sets x (n, *shape) and y (m, *shape).

    Means over all pairs, equal ones too: never negative, and 0 for equal sets; biased upwards by about E|X - X'| (1/n +
    1/m) under the root, so compare at equal sizes. In √ of the points' units.
    """
    a, b = pair(("x", "y"), x, y)
    a, b = a - b.mean(0), b - b.mean(0)  # distances by products: they cancel far from the origin

    def mean(p: Tensor, q: Tensor) -> Tensor:
        blocks = p.split(max(1, BLOCK // len(q)))
        return torch.stack([torch.cdist(block, q).sum() for block in blocks]).sum() / (len(p) * len(q))

    return (2 * mean(a, b) - mean(a, a) - mean(b, b)).clamp(min=0).sqrt().item()


def classifier_auc(x: Array, y: Array, folds: int = 5, seed: int = 0) -> float:
    """Return the area under the ROC curve of a classifier that tells x (n, *shape) from y (m, *shape).

    Gradient-boosted trees of scikit-learn (50 of 8 leaves), the mean over `folds` of cross-validation shuffled by the
    seed. 1/2 where they cannot be told apart, 1 where every point can. ValueError for fewer points than folds.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    a, b = pair(("x", "y"), x, y)
    if min(len(a), len(b)) < checks.positive_int("folds", folds) or folds < 2:
        raise ValueError(f"folds={folds}: must be from 2 to the number of points, {min(len(a), len(b))}")
    labels = np.repeat([0, 1], (len(a), len(b)))
    trees = HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=8, learning_rate=0.2, early_stopping=False, random_state=seed
    )
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return float(cross_val_score(trees, torch.cat([a, b]).cpu().numpy(), labels, scoring="roc_auc", cv=parts).mean())


def tail_error(x: Array, y: Array, axes: int = 4) -> float:
    """Return how far the 1 % and 99 % quantiles of x's first coordinates are from those of y, relative to their range.

    Mean over the first `axes` coordinates and both levels of |q(x) - q(y)| / ½(q₉₉(y) - q₀₁(y)); x (n, d), y (m, d).
    """
    a, b = (z[:, : checks.positive_int("axes", axes)] for z in pair(("x", "y"), x, y))
    levels = torch.tensor([0.01, 0.99], dtype=torch.float64, device=a.device)
    p, q = torch.quantile(a, levels, 0), torch.quantile(b, levels, 0)
    return ((p - q).abs() / ((q[1] - q[0]) / 2)).nan_to_num(0.0, torch.inf).mean().item()  # 0/0: equal constants


@dataclass(frozen=True, eq=False)
class Reference:
    """Training and held-out points, and the whitening of the former: what samples are measured against.

    train, test: (n, d) float64. mean, axes: (d,) and (d, r), of whitened axes, the widest first. seed: of directions,
    folds and of which points are compared where there are many. floors: of so many points, quick or not, once taken.
    """

    train: Tensor
    test: Tensor
    mean: Tensor
    axes: Tensor
    seed: int = 0
    floors: dict[tuple[int, bool], dict[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, train: Array, test: Array, seed: int = 0) -> Reference:
        """That of points (n, *shape) and (m, *shape). ValueError for sets of other shapes, or of points all equal."""
        x, y = (z.cpu() for z in pair(("train", "test"), train, test))
        unit = torch.where((std := x.std(0)) > 0, std, 1.0)
        values, axes = torch.linalg.eigh((x / unit).T.cov().view(2 * std.shape))
        if not values[-1] > 0:
            raise ValueError("train: all points are equal")
        rank = int((values > RANK * values[-1]).sum())
        scaled = (axes[:, -rank:] / values[-rank:].sqrt()).flip(1) / unit[:, None]
        first, second = (z[torch.randperm(len(z), generator=random.generator(seed, "compared"))] for z in (x, y))
        return cls(first, second, x.mean(0), scaled, seed)

    def whiten(self, x: Array) -> Tensor:
        """Points (n, *shape) along the axes, (n, r) float64: the training part has mean 0 and covariance I."""
        return (rows("x", x).to(self.mean) - self.mean) @ self.axes

    def measures(self, samples: Array, quick: bool = False) -> dict[str, float]:
        """The five measures of samples (n, *shape) and their floors: a row of a table; quick: sw2 and energy alone.

        sw2: sliced W2; energy: `energy_distance`; auc: `classifier_auc` in the columns and the axes; tail_error: of the
        four widest axes; memorised: `memorisation`; each also with _floor. As many samples count as there are training
        points, 5,000 of a set at most. ValueError for samples of another shape or not finite.
        """
        x = pair(("test", "samples"), self.test, rows("samples", samples).cpu())[1][:MOST]
        n = min(len(x), len(self.train))
        if (n, quick) not in self.floors:
            floors = self._distances(self.train[:n], quick)
            self.floors[n, quick] = floors if quick else floors | {"memorised": 0.5}  # a half is what fresh draws have
        row = self._distances(x[:n], quick)
        if not quick:
            row["memorised"] = memorisation(*map(self.whiten, (x[:MOST_PAIRS], self.train, self.test)))
        return row | {f"{name}_floor": value for name, value in self.floors[n, quick].items()}

    def _distances(self, x: Tensor, quick: bool) -> dict[str, float]:
        y = self.test[:MOST]
        a, b = self.whiten(x), self.whiten(y)
        row = {
            "sw2": sliced_wasserstein2(a, b, generator=random.generator(self.seed, "sliced-wasserstein")),
            "energy": energy_distance(a, b),
        }
        if quick:
            return row
        fakes, reals = (torch.cat(z, 1)[:MOST_PAIRS] for z in ((x, a), (y, b)))
        return row | {"auc": classifier_auc(fakes, reals, seed=self.seed), "tail_error": tail_error(a, b)}


def measures(samples: Array, train: Array, test: Array, seed: int = 0) -> dict[str, float]:
    """`Reference.of(train, test, seed).measures(samples)`, for one set of samples."""
    return Reference.of(train, test, seed).measures(samples)
