"""Numbers of README and the pages that come from a table, recomputed: (the sentence with places, what stands there)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from repro.reports import units

ROOT = Path(__file__).parents[2]


@cache
def pages() -> str:
    """The text of README and the pages of docs/, emphasis and line breaks aside."""
    paths = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    return re.sub(r"[*\s]+", " ", "\n".join(path.read_text(encoding="utf-8") for path in paths))


@cache
def table(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / f"reports/tables/{name}.csv")


def text(value: float, digits: int) -> str:
    """As the pages write numbers: no zero before the point."""
    return f"{value:.{digits}f}".removeprefix("0")


def toys(**chosen: object) -> pd.DataFrame:
    """Rows of toys.csv in coordinates, with `x_floor`: PMF-RMSE over the noise floor of the set."""
    rows = table("toys")
    floor = rows[rows.method == "real"].groupby("dataset").pmf_rmse.mean()
    rows = rows[rows.basis == "coordinates"].assign(x_floor=lambda r: r.pmf_rmse / r.dataset.map(floor))
    for column, value in chosen.items():
        rows = rows[rows[column].isin(value if isinstance(value, list) else [value])]
    return rows


SETS = ("spiral-8Y", "checkerboard-6X")
FOUR_COUNTS = (5, 10, 20, 60)
MIXTURE, STEERED = "VSCLD with a mixture score", "steered VSCLD"
HEUN = {"solver": "heun", "prior": "gaussian", "a_mode": ["zero", "adaptive"]}


def steered(beta: float) -> list[str]:
    rows = toys(a_mode="steered", R=1, beta=beta, prior="mixture", solver="exponential")
    means = rows.groupby(["dataset", "nfe"]).x_floor.mean()
    return [text(means[name, nfe], 2) for name in SETS for nfe in (5, 10, 20, 60)]


@cache
def in_units() -> pd.DataFrame:
    """The study of units on the sets that are reported, x_floor and numbers of evaluations in columns."""
    return units.reported(table("units"), SETS, [5, 10, 20, 60])


def chosen(
    name: str,
    prior: str,
    few: tuple[int, ...] = (5, 10, 20),
    components: int | None = None,
    scale: str = "standardised",
    sets: tuple[str, ...] = SETS,
) -> list[str]:
    """A method at its best setting by development sets, after `few` evaluations of either set."""
    rows = in_units()
    rows = rows[(rows.name == name) & (rows.units == scale) & (rows.prior == prior)]
    if components is not None:
        rows = rows[rows.components == components]
    assert set(rows.groupby(["dataset", "evaluations"]).seed.nunique()) == {3}
    means = rows.groupby(["dataset", "evaluations"]).x_floor.mean()
    return [text(means[dataset, n], 2) for dataset in sets for n in few]


def worth() -> list[str]:
    """By how many per cent CLD is over steered in raw units from the moments prior, checkerboard, least and most."""
    rows = in_units()
    rows = rows[(rows.prior == "moments") & (rows.evaluations > 5)]
    ours = rows[(rows.name == STEERED) & (rows.units == "raw")].groupby(["dataset", "evaluations"]).x_floor.mean()
    plain = rows[(rows.name == "CLD") & (rows.units == "standardised")].groupby(["dataset", "evaluations"])
    gains = 100 * (plain.x_floor.mean() / ours - 1)
    assert gains[SETS[0]].max() < 0
    return [f"{gains[SETS[1]].min():.0f}", f"{gains[SETS[1]].max():.0f}"]


def energies() -> list[str]:
    """Path energy of a mixture score of 8 components over that of minibatch OT from N(0, I), in the data's units."""
    rows = in_units()
    rows = rows[(rows.prior == "gaussian") & (rows.units == "standardised") & rows.path_energy.notna()]
    ours = rows[(rows.name == MIXTURE) & (rows.components == 8)].groupby("dataset").path_energy.mean()
    theirs = rows[rows.name == "ot-cfm"].groupby("dataset").path_energy.mean()
    return [text(ours[name] / theirs[name], 1) for name in SETS]


def flow(method: str, *few: int) -> list[str]:
    """The best of the solvers at each number of evaluations."""
    rows = table("toys")
    floor = rows[rows.method == "real"].groupby("dataset").pmf_rmse.mean()
    rows = rows[(rows.method == method) & (rows.prior != "mixture")]
    means = rows.assign(x_floor=rows.pmf_rmse / rows.dataset.map(floor)).groupby(["dataset", "nfe", "solver"])
    best = means.x_floor.mean().groupby(["dataset", "nfe"]).min()
    return [text(best["spiral-8Y", nfe], 2) for nfe in (5, 10, 20, 60)] + [
        text(best["checkerboard-6X", nfe], 2) for nfe in few
    ]


def heun(measure: str, nfe: int, dataset: str, *settings: tuple[str, float], digits: int = 2) -> list[str]:
    means = toys(**HEUN, nfe=nfe, dataset=dataset).groupby(["method", "beta"])[measure].mean()
    return [text(means[setting], digits) for setting in settings]


def less(dataset: str, axis: str) -> list[str]:
    """By how many per cent VSCLD-5 and VSULD-5 bend less than CLD-10 on an axis."""
    bends = toys(**HEUN, nfe=100, dataset=dataset).groupby(["method", "beta"])[f"straightness_{axis}"].mean()
    return [f"{100 * (1 - bends[m, 5] / bends['CLD', 10]):.0f}" for m in ("VSCLD", "VSULD")]


def more() -> list[str]:
    """How many times as much they bend on the stretched axis: the least and the most of both sets."""
    ratios = []
    for dataset, axis in zip(SETS, "yx", strict=True):
        bends = toys(**HEUN, nfe=100, dataset=dataset).groupby(["method", "beta"])[f"straightness_{axis}"].mean()
        ratios += [bends[m, 5] / bends["CLD", 10] for m in ("VSCLD", "VSULD")]
    return [text(min(ratios), 1), text(max(ratios), 1)]


def exponential(*settings: tuple[str, float], nfe: int = 20) -> list[str]:
    rows = toys(solver="exponential", prior="gaussian", a_mode=["zero", "adaptive"], nfe=nfe, dataset="spiral-8Y")
    means = rows.groupby(["method", "beta"]).x_floor.mean()
    return [text(means[setting], 2) for setting in settings]


def splitting() -> list[str]:
    """ABOBA's error over Euler–Maruyama's at equal step, over methods and steps."""
    errors = table("orders").pivot_table(index=["method", "h"], columns="solver", values="error")
    ratio = errors["aboba"] / errors["euler-maruyama"]
    return [text(ratio.min(), 1), text(ratio.max(), 1)]


def kernel() -> list[str]:
    ratios = table("bench").set_index("name").ratio
    return [f"{1 / ratios[name]:.0f}" for name in ("kernel_2000x2", "kernel_64x3072")]


def published() -> list[str]:
    rows, floor = table("toys_ablations"), toys_floor("spiral-8Y")
    means = rows.groupby("ablation").pmf_rmse.mean() / floor
    return [text(means[n], 1) for n in ("Algorithm 2's start", "no terminal constraint", "z = s, no constraint")]


def toys_floor(dataset: str) -> float:
    rows = table("toys")
    return float(rows[(rows.method == "real") & (rows.dataset == dataset)].pmf_rmse.mean())


def planes(*settings: tuple[str, int]) -> list[str]:
    """The least block_w2 of a method at a number of evaluations, over its solvers; ours with the Gaussian prior."""
    rows = table("highdim")
    means = rows[rows.prior != "mixture"].groupby(["method", "nfe", "solver"]).block_w2.mean()
    return [text(means[method, nfe].min(), 4) for method, nfe in settings]


def whole(method: str, digits: int) -> str:
    rows = table("highdim")
    return text(rows[rows.method == method].block_w2.mean(), digits)


def forecasts(method: str, digits: tuple[int, ...], *names: str, column: str = "method") -> list[str]:
    rows = table("crps")
    rows = rows[(rows.protocol == "original") & (rows[column] == (1 if column == "selected" else method))]
    means = rows.groupby("dataset").crps_sum.mean()
    return [text(means[name], d) for name, d in zip(names, digits, strict=True)]


def paper_model(*methods: str) -> list[str]:
    rows = table("crps")
    rows = rows[(rows.protocol == "original") & (rows.model == "paper") & (rows.solver == "heun") & (rows.nfe == 40)]
    means = rows[rows.dataset == "exchange_rate_nips"].groupby("method").crps_sum.mean()
    return [text(means[m], 4) for m in methods]


def images(dataset: str, solver: str, *methods: str, digits: int = 0) -> list[str]:
    rows = table("images")
    rows = rows[(rows.dataset == dataset) & (rows.metric == "FD-EffNet") & (rows.nfe == 20) & (rows.solver == solver)]
    means = rows[rows.images_seen == rows.images_seen.max()].groupby("method").value.mean()
    return [text(means[m], digits) for m in methods]


def codes(dataset: str, *methods: str, digits: int = 1) -> list[str]:
    rows = table("latent")
    means = rows[rows.experiment == dataset].groupby("method").fd.mean()
    return [text(means[m], digits) for m in methods]


def exponents(inside: int) -> list[str]:
    """Mean over seeds of the exponent in R^64, and the least and the largest end of the single fits' intervals."""
    rows = table("latent_rates")
    fits = rows[(rows.quantity == "excess_w2") & (rows.setting == f"d* {inside}, d 64")].groupby("seed").first()
    return [text(fits.fitted.mean(), 2), text(fits.low.min(), 2).replace("-0", "−"), text(fits.high.max(), 2)]


FOUR = ("exchange_rate_nips", "ecb_rates", "simbench_load", "simbench_renewables")
NUMBERS: list[tuple[str, Callable[[], list[str]]]] = [
    ("mixture prior, exponential solver | {} · {} · {} · {} | {} · {} · {} · {} |", lambda: steered(2)),
    ("the same, β = 3 | {} · {} · {} · {} | {} · {} · {} · {} |", lambda: steered(3)),
    (
        "minibatch OT, standardised data | {} · {} · {} · {} | {} (Heun, 4) · {} · {} · {} |",
        lambda: flow("ot-cfm-standardised", 4, 10, 20, 60),
    ),
    (
        "independent coupling, standardised data | {} · {} · {} · {} | {} · {} · {} · {} |",
        lambda: flow("i-cfm-standardised", 5, 10, 20, 60),
    ),
    (
        "ends at {} · {} · {} after 5 · 10 · 20 network evaluations of spiral-8Y and {} · {} · {} of checkerboard-6X",
        lambda: chosen("CLD", "mixture"),
    ),
    (
        "flow matching from a mixture has {} · {} · {} and {} · {} · {}, "
        "from a Gaussian {} · {} · {} and {} · {} · {}.",
        lambda: chosen("ot-cfm", "mixture") + chosen("ot-cfm", "gaussian"),
    ),
    ("8 components give {} · {} · {} and {} · {} · {}", lambda: chosen(MIXTURE, "gaussian", components=8)),
    (
        "| CLD, standardised, mixture prior (steered: the same process) | {} · {} · {} · {} | {} · {} · {} · {} |",
        lambda: chosen("CLD", "mixture", FOUR_COUNTS),
    ),
    (
        "| CLD, standardised, moments prior | {} · {} · {} · {} | {} · {} · {} · {} |",
        lambda: chosen("CLD", "moments", FOUR_COUNTS),
    ),
    (
        "| mixture score of 8 components, from N(0, I) | {} · {} · {} · {} | {} · {} · {} · {} |",
        lambda: chosen(MIXTURE, "gaussian", FOUR_COUNTS, 8),
    ),
    (
        "| mixture score of 50 components, from N(0, I) | {} · {} · {} · {} | {} · {} · {} · {} |",
        lambda: chosen(MIXTURE, "gaussian", FOUR_COUNTS, 50),
    ),
    (
        "| minibatch OT, standardised, from a mixture | {} · {} · {} · {} | {} · {} · {} · {} |",
        lambda: chosen("ot-cfm", "mixture", FOUR_COUNTS),
    ),
    (
        "| minibatch OT, standardised, from N(0, I) | {} · {} · {} · {} | {} · {} · {} · {} |",
        lambda: chosen("ot-cfm", "gaussian", FOUR_COUNTS),
    ),
    ("gains at 5 of the spiral only ({}; checkerboard {})", lambda: chosen(STEERED, "mixture", (5,), scale="raw")),
    (
        "({} · {} · {} there, {} · {} · {} · {} on the checkerboard)",
        lambda: chosen(STEERED, "mixture", FOUR_COUNTS, scale="raw")[1:],
    ),
    (
        "it has {} · {} · {} on the checkerboard after 10 · 20 · 60 where plain CLD has {} · {} · {}:",
        lambda: (
            chosen(STEERED, "moments", FOUR_COUNTS[1:], scale="raw", sets=SETS[1:])
            + chosen("CLD", "moments", FOUR_COUNTS[1:], sets=SETS[1:])
        ),
    ),
    ("A is worth {} to {} % there, and nothing on the spiral", worth),
    ("at paths of {} and {} times its energy", energies),
    ("variational methods bend {}–{} % (spiral-8Y)", lambda: less("spiral-8Y", "x")),
    ("and {}–{} % (checkerboard-6X)", lambda: less("checkerboard-6X", "y")),
    ("on the stretched axis they bend {} to {} times as much", more),
    (
        "at 20 CLD-10 is ahead ({} against {} and {} times the floor on spiral-8Y)",
        lambda: heun("x_floor", 20, "spiral-8Y", ("CLD", 10), ("VSCLD", 5), ("VSULD", 5), digits=1),
    ),
    (
        "exponential solver and 20 evaluations VSULD-5 and VSCLD-5 are ahead ({} and {} against {})",
        lambda: exponential(("VSULD", 5), ("VSCLD", 5), ("CLD", 10)),
    ),
    (
        "ULD-10 is the best of all on spiral-8Y ({} times the floor, CLD-10 {})",
        lambda: heun("x_floor", 100, "spiral-8Y", ("ULD", 10), ("CLD", 10)),
    ),
    (
        "VSULD-5 and VSCLD-5 ({} and {}) differ by less",
        lambda: heun("x_floor", 100, "spiral-8Y", ("VSULD", 5), ("VSCLD", 5)),
    ),
    ("Without that constraint VSULD-5 ends {} (Algorithm 2's start), {} (fixed start) and {} (z = s) times", published),
    ("with {} to {} times the error of Euler–Maruyama", splitting),
    ("by a factor of {} (2,000 × 2) and {} (64 × 3,072)", kernel),
    (
        "the planes' sliced W2 is {} and {} after 10 and 20 evaluations",
        lambda: planes(("VSCLD-whitened", 10), ("VSCLD-whitened", 20)),
    ),
    (
        "best rows are {} and {} (minibatch OT, half as long again in training) and {} and {} (independent)",
        lambda: planes(*((m, n) for m in ("ot-cfm-whitened", "i-cfm-whitened") for n in (10, 20))),
    ),
    ("real data {}, a mixture of 32 Gaussians {}", lambda: [whole("real", 4), whole("mixture-32", 2)]),
    ("without whitening the planes end at {}", lambda: [planes(("VSCLD", 10))[0][:4]]),
    (
        "The last value ({}) and a random walk ({})",
        lambda: [forecasts(m, (4,), FOUR[0])[0] for m in ("last_value", "random_walk")],
    ),
    ("three seeds: Exchange {}", lambda: forecasts("", (4,), FOUR[0], column="selected")),
    ("ECB rates {} – level", lambda: forecasts("", (4,), FOUR[1], column="selected")),
    ("SimBench load {} (", lambda: forecasts("", (4,), FOUR[2], column="selected")),
    ("DeepAR scores {}, {}, {} and {} there", lambda: forecasts("deepar", (4, 4, 4, 3), *FOUR)),
    ("a VAR {}, {}, {} and {}.", lambda: forecasts("var", (4, 4, 4, 3), *FOUR)),
    (
        "VSDM {}, SGM {}, VSCLD {}, VSULD {}, ULD {}, CLD {}, each",
        lambda: paper_model("VSDM", "SGM", "VSCLD", "VSULD", "ULD", "CLD"),
    ),
    ("one seed: VSCLD {}, SGM {}, real", lambda: images("cifar10", "exponential+denoise", "VSCLD", "SGM")),
    ("has {} where VSCLD has {} and SGM {}", lambda: images("cifar10", "exponential", "CLD", "VSCLD", "SGM")),
    (
        "three seeds: SGM {} ± 8 is ahead of CLD {} ± 12 and VSCLD {} ± 7",
        lambda: images("mnist5k", "exponential+denoise", "SGM", "CLD", "VSCLD"),
    ),
    (
        "VSCLD {} ± .5, CLD {} ± .9, SGM {} ± .9",
        lambda: images("digits", "exponential+denoise", "VSCLD", "CLD", "SGM", digits=1),
    ),
    (
        "LSBDM's own bridge {}, CLD {}, VSCLD {}, VSULD {}, VSDM {} (",
        lambda: codes("mnist5k", "LSBDM", "CLD", "VSCLD", "VSULD", "VSDM"),
    ),
    ("steered VSULD {} and VSCLD {};", lambda: codes("mnist5k", "steered VSULD", "steered VSCLD")),
    ("the autoencoder alone has {}, real digits {}", lambda: codes("mnist5k", "reconstruction", "real")),
    ("{} (single fits: {} to {}) for d = 4", lambda: exponents(4)),
    ("{} ({} to {}) for d = 2", lambda: exponents(2)),
]


@pytest.mark.parametrize(("sentence", "values"), NUMBERS, ids=[sentence[:40] for sentence, _ in NUMBERS])
def test_a_number_of_the_pages_is_its_table_s(sentence: str, values: Callable[[], list[str]]) -> None:
    expected = re.sub(r"[*\s]+", " ", sentence).format(*values())
    pattern = re.escape(re.sub(r"[*\s]+", " ", sentence)).replace(r"\{\}", r"(−?\d*\.?\d+)")
    there = [match[0] for match in re.finditer(pattern, pages())]
    assert there, f"no such sentence: {sentence}"
    assert set(there) == {expected}
