"""`vsmd`: the method on files, for those who have some and no wish to program.
`vsmd points --help` and so on explain each part.

    vsmd points data.csv --out samples.csv                              more points like those of a file
    vsmd forecast panel.csv --freq h --horizon 24 --out forecast.csv    quantiles of what comes next
    vsmd check data.csv                                                 how good are samples of such points?
    vsmd images train --config digits                                   the same as python -m vsmd.images
    vsmd reproduce --profile smoke                                      from a checkout: the paper's notebooks
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

import vsmd
from vsmd import arguments, checks, files

ENOUGH, WIDE = 320, 16  # from so many points, and up to so many columns, a mixture of 32 Gaussians is the prior

# The comment behind a field is its help on the command line, the docstring of a class that of its command.


@dataclass(frozen=True, kw_only=True)
class Command:
    """What all commands have."""

    data: Positional[Path]  # a CSV file with a head line
    force: bool = False  # overwrite files that exist
    seed: int = 0  # of everything random: the same seed, the same file
    encoding: str | None = None  # of the file's text, such as latin-1; UTF-8 by default
    sep: str | None = None  # what separates its cells; seen without if it is , ; | or a tab
    decimal: str | None = None  # what precedes decimals; a comma is seen without

    def check_files(self) -> None:
        """Refuse files to write that are there, are named twice or cannot be written, before any work."""
        outputs = {name: path for name, path in vars(self).items() if isinstance(path, Path) and name != "data"}
        for name, path in outputs.items():
            if path.exists() and not self.force:
                raise ValueError(f"{name}={str(path)!r}: exists; give another name, or --force to overwrite it")
            if [p.absolute() for p in outputs.values()].count(path.absolute()) > 1:
                raise ValueError(f"{name}={str(path)!r}: is there for two files; give each a name of its own")
            files.check_writable(path, name)

    @property
    def csv(self) -> dict[str, Any]:
        """Arguments of `pandas.read_csv`."""
        return {k: v for k in ("encoding", "sep", "decimal") if (v := getattr(self, k)) is not None}


@dataclass(frozen=True, kw_only=True)
class Training(Command):
    """A command that trains on the points of a file, a row each."""

    columns: tuple[str, ...] = ()  # names of the columns to use; all that hold numbers by default
    method: Annotated[str, arg(help="SGM, VSDM, CLD, ULD, VSCLD or VSULD")] = "VSCLD"
    beta: float = 2.0  # rate of the noise
    score: Annotated[str, arg(help="variational score: zero, adaptive or steered")] = "steered"
    prior: Annotated[str | None, arg(help="gaussian, moments, mixture or empirical; else by the data's size")] = None
    steps: int = 4_000  # of training
    device: str = "cpu"  # or cuda

    def trained(self, points: Any) -> Any:
        """The model of points (n, d)."""
        n, d = points.shape
        prior = self.prior or ("mixture" if n >= ENOUGH and d <= WIDE else "moments")
        process = vsmd.forward_process(self.method, (d,), beta=self.beta, variational_score=self.score, prior=prior)
        return vsmd.fit(process, points, steps=self.steps, seed=self.seed, device=self.device, progress=True)


@dataclass(frozen=True, kw_only=True)
class Points(Training):
    """Draw more points like those of a file: vsmd points data.csv --out samples.csv"""

    out: Path  # the CSV file to write, with the same columns
    n: Annotated[int | None, arg(aliases=["-n"], help="how many; by default as many as the file has")] = None
    model: Path | None = None  # a file to keep the model in, for vsmd.load

    def __call__(self) -> None:
        table = numbers(self.data, self.columns, self.csv)
        n = len(table) if self.n is None else checks.positive_int("n", self.n)
        model = self.trained(table.to_numpy("float32"))
        if self.model is not None:
            model.save(self.model)
        write(type(table)(model.sample(n, seed=self.seed).numpy(), columns=table.columns), self.out)
        print(f"{n} points like the {len(table)} of {self.data} in {self.out}")


@dataclass(frozen=True, kw_only=True)
class Check(Training):
    """Train on three quarters of a file's points and hold samples against the rest: vsmd check data.csv"""

    def __call__(self) -> None:
        import torch

        points = numbers(self.data, self.columns, self.csv).sample(frac=1, random_state=self.seed).to_numpy("float32")
        train, held_out = torch.from_numpy(points).tensor_split([3 * len(points) // 4])
        print(vsmd.check(self.trained(train), (train, held_out), seed=self.seed))


@dataclass(frozen=True, kw_only=True)
class Forecast(Command):
    """Forecast series, times in the first column: vsmd forecast panel.csv --freq h --horizon 24 --out forecast.csv"""

    freq: str  # of the time stamps, as pandas has them: h, 15min, D, B (business days), W, M
    horizon: int  # steps to forecast
    out: Path  # the CSV file to write: a row a step, series and forecaster, with quantiles
    samples: Path | None = None  # a CSV file for the sampled paths themselves
    picture: Path | None = None  # a picture of the first series' end and the fan of its quantiles: png, svg, pdf
    location: Annotated[str | None, arg(help="last, season, profile or linear; else by the frequency")] = None
    windows: int = 3  # the last ones of so many steps score the forecasters before they forecast
    paths: int = 200  # sampled futures
    steps: int = 2_000  # of training

    def __call__(self) -> None:
        for name in ("horizon", "windows", "paths", "steps"):
            checks.positive_int(name, getattr(self, name))
        from vsmd.data.panels import from_wide
        from vsmd.forecasting import NaivePredictor, VSMDEstimator, accuracy, forecast
        from vsmd.forecasting.series import seasons

        if self.picture is not None:
            from matplotlib.backend_bases import FigureCanvasBase

            checks.one_of("picture", self.picture.suffix[1:], FigureCanvasBase.get_supported_filetypes())
        panel = from_wide(self.data, self.freq, self.horizon, windows=self.windows, csv=self.csv)
        options: dict[str, Any] = {"location": self.location, "steps": self.steps, "seed": self.seed, "progress": True}
        season = 5 if self.freq == "B" else (*seasons(self.freq), 1)[0]
        rules: dict[str, dict[str, int]] = {"random_walk": {"window": min(60, panel.first - 1)}}
        if season > 1 and 2 * season <= panel.first:
            rules["seasonal_bootstrap"] = {"season": season}
        forecasters: dict[str, Any] = {"vsmd": VSMDEstimator(self.horizon, self.freq, **options).train(panel.train)}
        forecasters |= {rule: NaivePredictor(rule, self.horizon, seed=self.seed, **o) for rule, o in rules.items()}
        print(f"CRPS-Sum on the last {self.windows} windows of {self.horizon} steps (lower is better):")
        drawn = {}
        for name, forecaster in forecasters.items():
            try:
                score = f"{accuracy(forecast(forecaster, panel), panel.targets)['crps_sum']:.4g}"
            except ValueError as error:  # of the past; what comes next is forecast all the same
                score = f"cannot be scored: {error}"
            print(f"  {name:20s} {score}")
            drawn[name] = next(forecaster.predict(panel.future, num_samples=self.paths)).samples
        self.write(panel, drawn)

    def write(self, panel: Any, drawn: dict[str, Any]) -> None:
        """The file of quantiles, and of paths (paths, horizon, series) and the picture where they are asked for."""
        import pandas as pd

        from vsmd.forecasting.outlook import fan_chart, of_paths

        parts = []
        for name, paths in drawn.items():
            parts.append(of_paths(paths, panel).stack("series", future_stack=True))  # a row a step and series
            parts[-1].insert(0, "forecaster", name)
            parts[-1].insert(1, "mean", paths.reshape(self.paths, -1).mean(0))
        write(pd.concat(parts).reset_index(), self.out)
        if self.samples is not None:
            flat = pd.DataFrame(drawn["vsmd"].reshape(self.paths, -1).T, parts[0].index)
            write(flat.add_prefix("path_").reset_index(), self.samples)
        if self.picture is not None:
            with files.replacing(self.picture) as temporary:
                figure = fan_chart(of_paths(drawn["vsmd"], panel), panel).figure
                figure.set_size_inches(9, 4)  # so that times side by side do not touch
                figure.savefig(temporary)
        print(f"{self.horizon} steps of {panel.dim} series in {self.out}")


def numbers(path: Path, columns: tuple[str, ...] = (), csv: dict[str, Any] | None = None) -> Any:
    """The named columns of a file, or all that hold numbers, finite float64 (n, d); else a one-line ValueError.

    Columns left out are said; one most of whose values are numbers is refused.
    """
    from vsmd.data import tables

    table = tables.read("data", path, csv)
    other = {c: _wrong(table[c]) for c in table if table[c].dtype.kind not in "iuf"}
    for name in columns:
        if checks.one_of("columns", name, map(str, table.columns)) in other:
            raise ValueError(f"columns={name!r}: holds no numbers, {other[name][0]}")
    if other and not columns:
        if mend := [f"{name!r} ({first})" for name, (first, mostly) in other.items() if mostly]:
            hint = "mend them, or name the columns to use by --columns"
            raise ValueError(f"data={str(path)!r}: not all are numbers in columns {checks.some(mend)}; {hint}")
        print("columns left out, since they hold no numbers:", checks.some([f"{c} ({v[0]})" for c, v in other.items()]))
    chosen = table[[c for c in columns or table if c not in other]]
    if not chosen.shape[1] or len(chosen) < 2:
        raise ValueError(f"data={str(path)!r}: must have a head line, a column of numbers and two rows at least")
    if missing := int((~chosen.abs().lt(float("inf"))).any(axis=1).sum()):
        raise ValueError(f"data={str(path)!r}: {missing} rows have missing or infinite values; drop them")
    return chosen.astype("float64")


def _wrong(column: Any) -> tuple[str, bool]:
    """The first value of a column that is no number, and whether most of its values are."""
    import pandas as pd

    known = column.reset_index(drop=True).dropna().astype(str)
    wrong = known[pd.to_numeric(known, errors="coerce").isna()]
    return f"{wrong.iloc[0]!r} in row {wrong.index[0] + 1}" if len(wrong) else "all empty", 2 * len(wrong) < len(known)


def write(table: Any, path: Path) -> None:
    """A table as a CSV file, whole or not at all."""
    with files.replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9g")


COMMANDS = {"points": Points, "forecast": Forecast, "check": Check}
ELSEWHERE = {"images": "vsmd.images", "reproduce": "repro"}  # modules that are run


@arguments.reported
def main(argv: list[str] | None = None) -> int:
    """Run a command."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if checks.one_of("command", argv[0], (*COMMANDS, *ELSEWHERE)) in ELSEWHERE:
        if importlib.util.find_spec(ELSEWHERE[argv[0]].split(".")[0]) is None:
            raise ValueError("reproduce: needs a checkout of the repository, where `make env` links `repro` in")
        return subprocess.run([sys.executable, "-m", ELSEWHERE[argv[0]], *argv[1:]]).returncode
    command = arguments.parsed(COMMANDS, args=argv, prog="vsmd")
    command.check_files()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # so small a network gains nothing from a second thread, and waits
    command()
    return 0


if __name__ == "__main__":
    sys.exit(main())
