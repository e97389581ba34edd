"""What is known of a real set before any training, and a row of the study `points` made again to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import vsmd
from repro.grid.runs import Result
from repro.studies import points
from repro.studies.sets.points import KEPT, documented
from repro.studies.toys import process_of
from vsmd.metrics.points import Reference
from vsmd.quality import Check
from vsmd.samplers import as_solver

LEADING = 4  # widest axes that are looked at
BETA = 5  # of the plain process whose prior is judged


def law(dataset: str) -> Result:
    """A row of `point_laws`: sizes, shape and source of a set (`documented`), and what may tell which method wins.

    non_gaussianity: W2 between each of the widest whitened axes and N(0, 1), mean. prior_kl: of CLD at beta = 5 on
    standardised columns, in nats, the sum over principal axes. kept: whether nothing is chosen by this set.
    """
    data = points.load(dataset)
    row = documented(data)
    description = row.pop("description")
    leading = Reference.of(data.train, data.test).whiten(data.train)[:, :LEADING]
    process = vsmd.forward_process("CLD", tuple(data.train.shape[1:]), beta=BETA, basis="principal", prior="gaussian")
    row |= {"non_gaussianity": float(from_normal(leading).mean()), "kept": dataset in KEPT}
    row |= {"prior_kl": float(process.prior_kl(data.train).sum()), "description": description}
    return Result({"point_laws": [row]})


def from_normal(z: Tensor) -> Tensor:
    """W2 between the law of each column of z (n, k) and N(0, 1), by quantiles; (k,)."""
    levels = (torch.arange(len(z), dtype=torch.float64) + 0.5) / len(z)
    return (z.double().sort(0).values - torch.special.ndtri(levels)[:, None]).square().mean(0).sqrt()


def checked(row: Mapping[str, Any]) -> Check:
    """The model of a stored row of the family, trained again and held against the test part by `vsmd.check`."""
    data, seed = points.load(row["dataset"]), int(row["seed"])
    train, shape = data.train, tuple(data.train.shape[1:])
    R = None if row["R"] != row["R"] else row["R"]
    process = process_of(row["method"], row["beta"], R, row["schedule"], row["basis"], row["a_mode"], shape)
    model = vsmd.fit(
        process, train, units=row["units"], weighting=row["weighting"], network=points.network_of(shape[0], seed),
        steps=int(row["train_steps"]), seed=seed, learning_rate=row["learning_rate"], **points.TRAINING,
    )  # fmt: skip
    solver, _, clean = str(row["solver"]).partition("+")
    steps = max(1, (int(row["nfe"]) - bool(clean)) // as_solver(solver).evaluations)
    return vsmd.check(
        model.with_prior(row["prior"], train, seed=seed), data, n=int(row["n_samples"]), seed=seed, solver=solver,
        steps=steps, denoise=bool(clean), grid_power=row["grid_power"],
    )  # fmt: skip
