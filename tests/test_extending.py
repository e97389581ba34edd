"""docs/extending.md, run: its blocks are a package from outside, and each thing that it adds works throughout."""

from __future__ import annotations

import importlib
import itertools
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
import torch
from torch import Tensor, nn

import vsmd
from repro.grid import Store
from repro.studies.sets.toys import toy
from vsmd.bases import BASES
from vsmd.data import images, panel_sources
from vsmd.forecasting import VSMDEstimator, forecast
from vsmd.images import Painter, train
from vsmd.images import config as image_config
from vsmd.methods import FAMILY, METHODS
from vsmd.networks import NETWORKS
from vsmd.priors import PRIORS
from vsmd.samplers import SOLVERS, as_solver, integrate, make_solver, time_grid
from vsmd.scores import Score

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
REGISTRIES: tuple[dict[str, Any], ...] = (METHODS, SOLVERS, NETWORKS, BASES, images.SETS, panel_sources.PANELS)
METHOD, SOLVER, NETWORK, BASIS = "HALF", "two-stage", "gated", "hadamard"


class Page(NamedTuple):
    """The folder that the page's files were written to, and the names that its other blocks defined."""

    folder: Path
    names: dict[str, Any]


def files_of_the_page() -> dict[str, list[str]]:
    """The blocks that begin with a file's name, by that name; those of a notebook are its cells."""
    named: dict[str, list[str]] = {}
    for block in BLOCKS:
        if match := re.match(r"# (\S+\.(?:py|ipynb))\n", block):
            named.setdefault(match[1], []).append(block[match.end() :])
    return named


def written(folder: Path) -> None:
    """Write the page's files; a notebook's first cell gets the tag that the page says."""
    (folder / "mine").mkdir()
    (folder / "mine/__init__.py").touch()
    for name, blocks in files_of_the_page().items():
        if name.endswith(".ipynb"):
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(b.strip()) for b in blocks])
            notebook.cells[0].metadata["tags"] = ["parameters"]
            nbformat.write(notebook, folder / name)
        else:
            (folder / name).write_text("".join(blocks), encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page carried out; afterwards the registries and modules are as they were."""
    folder = tmp_path_factory.mktemp("page")
    written(folder)
    before = [dict(registry) for registry in REGISTRIES]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    names: dict[str, Any] = {}
    there = os.getcwd()
    os.chdir(folder)
    try:
        for block in BLOCKS:
            if not re.match(r"# \S+\.(?:py|ipynb)\n", block):
                exec(block, names)
        for room in ("bases", "sets"):
            importlib.import_module(f"mine.{room}")
        yield Page(folder, names)
    finally:
        os.chdir(there)
        sys.path.remove(str(folder))
        for registry, entries in zip(REGISTRIES, before):
            registry.clear()
            registry.update(entries)
        for name in [n for n in sys.modules if n.split(".")[0] == "mine"]:
            del sys.modules[name]


def test_the_page_is_short_and_says_what_is_run() -> None:
    assert len(PAGE.splitlines()) <= 250
    rooms = ("methods", "solvers", "networks", "bases", "sets", "study")
    assert list(files_of_the_page()) == [*(f"mine/{room}.py" for room in rooms), "99_mine.ipynb"]
    assert [path for path in re.findall(r"`(tests/\S+\.py)`", PAGE) if not (ROOT / path).exists()] == []


def test_its_code_is_clean(page: Page) -> None:
    """Linted and formatted as the house's own."""
    files = [str(path) for path in page.folder.rglob("*.py")]
    for command in (
        ["check", "--ignore", "F401,I001"],
        ["format", "--check"],
    ):  # imports for their effect, of no package
        options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", *files]
        done = subprocess.run([sys.executable, "-m", "ruff", *command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_each_is_one_line() -> None:
    """A registry has one entry more for every thing that the page adds, and the page one line for it."""
    for name in (METHOD, "stripes", "waves"):
        assert len(re.findall(rf'^(?:METHODS|SETS|PANELS)\["{name}"\] = ', PAGE, re.MULTILINE)) == 1
    for kind, entry in (("SOLVERS", "TwoStage"), ("NETWORKS", "Gated"), ("BASES", "Hadamard")):
        assert len(re.findall(rf"^{kind}\[{entry}.name\] = {entry}$", PAGE, re.MULTILINE)) == 1


# --- the method -------------------------------------------------------------------------------------------------------


def quick(method: str, data: Any = None, shape: tuple[int, ...] = (2,), **options: Any) -> vsmd.Model:
    """A few steps, A adapted on the way where it is adaptive."""
    settings = {"steps": 20, "batch_size": 64, "seed": 0, "network": options.pop("network", None)}
    adaptation = vsmd.Adaptation(rounds=2, paths=32, nodes=8)
    process = vsmd.forward_process(method, shape, **options)
    return vsmd.fit(process, toy("spiral-8Y") if data is None else data, adaptation=adaptation, **settings)


@pytest.mark.parametrize("score", ["zero", "adaptive", "steered"])
@pytest.mark.parametrize("prior", PRIORS)
def test_the_method_everywhere(score: str, prior: str, tmp_path: Path) -> None:
    """Every way to A and every prior: trained, sampled from, with a likelihood, saved and loaded."""
    data = toy("spiral-8Y")(500, torch.Generator().manual_seed(0))
    model = quick(METHOD, data, variational_score=score, prior=prior)
    assert model.process.damping == 0.5
    assert (len(model.history) > 0) == (score == "adaptive")
    x = model.sample(30, SOLVER, 5, seed=1)
    assert bool(torch.isfinite(x).all())
    assert bool(torch.isfinite(model.log_prob(x[:2])).all())
    again = vsmd.load(model.save(tmp_path / "model.safetensors"))
    assert torch.equal(again.sample(30, SOLVER, 5, seed=1), x)


def test_the_method_is_what_its_row_says() -> None:
    """At stiffness 1 its friction is that of (14) for R = 1/2, and it is VSULD told so, bit for bit."""
    process = vsmd.forward_process(METHOD, (2,), gamma=2.0)
    assert float(process.stiffness.max()) == 1.0
    assert float(process.friction.max()) == pytest.approx(0.5**0.5, rel=1e-15)
    mine, theirs = quick(METHOD), quick("VSULD", damping=0.5)
    assert torch.equal(mine.sample(50, seed=2), theirs.sample(50, seed=2))
    with pytest.raises(
        ValueError, match=r"^damping=1.0: HALF is underdamped, 0 < R < 1; use another method for R = 1$"
    ):
        vsmd.forward_process(METHOD, (2,), damping=1)


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != SOLVER])
def test_every_solver_takes_the_method(page: Page, solver: str) -> None:
    assert bool(torch.isfinite(page.names["model"].sample(20, solver, 10)).all())


def test_the_method_in_latent_space(tmp_path: Path) -> None:
    data = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    autoencoder = vsmd.latent.pretrain(vsmd.latent.VectorAutoencoder((5,), 2), data, steps=5, seed=0)
    model = vsmd.latent.fit(data, autoencoder=autoencoder, bridge=METHOD, steps=5, seed=0)
    assert model.process.method == METHOD
    assert model.sample(3, SOLVER, 4).shape == (3, 5)


# --- the solver -------------------------------------------------------------------------------------------------------


class Zero(nn.Module):
    """The exact score of Gaussian data."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


def carried(process: vsmd.ForwardProcess, solver: str, steps: int, **options: Any) -> Tensor:
    """The flow's linear map from t = 1 to 1/100, by columns."""
    ready = make_solver(solver, Score(process, Zero()), time_grid(steps, 1e-2), **options)
    return integrate(ready, torch.eye(process.k, dtype=torch.float64)[..., None])


@pytest.mark.parametrize("at", [0.5, 2 / 3, 1.0])
@pytest.mark.parametrize("method", ["CLD", "SGM", METHOD])
def test_the_solver_has_order_two(page: Page, method: str, at: float) -> None:
    process = vsmd.forward_process(method, (1,), variational_score="zero")
    process = process.with_moments(torch.zeros(1), torch.tensor([20.0]))
    exact = carried(process, "rk45", 1, rtol=1e-9, atol=1e-9)
    errors = [float((carried(process, SOLVER, n, at=at) - exact).abs().max()) for n in (20, 40, 80)]
    assert errors[-1] > 1e-4
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("method", FAMILY)
def test_the_solver_by_name_class_and_instance(page: Page, method: str) -> None:
    """One and the same in all three ways, for every method; with `at` = 1 it is Heun's, piecewise A_t and all."""
    kind, model = page.names["TwoStage"], quick(method)
    ways: list[Any] = [(SOLVER, {"at": 0.25}), (kind, {"at": 0.25}), (kind(0.25), {})]
    one, two, three = (model.sample(40, solver, 6, seed=3, **options) for solver, options in ways)
    assert torch.equal(one, two)
    assert torch.equal(one, three)
    assert not torch.equal(one, model.sample(40, SOLVER, 6, seed=3))
    torch.testing.assert_close(model.sample(40, kind(1.0), 6, seed=3), model.sample(40, "heun", 6, seed=3))
    with pytest.raises(ValueError, match=r"^at: two-stage is made already"):
        as_solver(kind(0.25), at=1.0)


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_network_is_trained_saved_and_loaded(page: Page, tmp_path: Path) -> None:
    gated, same = page.names["gated"], page.names["same"]
    assert type(same.network) is page.names["Gated"]
    assert float(same.network.linear.weight.detach().abs().max()) > 0
    assert torch.equal(same.sample(20), gated.sample(20))
    checkpoint = tmp_path / "run.safetensors"
    options = {"network": page.names["Gated"]((2,)), "checkpoint": checkpoint, "checkpoint_every": 5, "seed": 0}
    vsmd.fit(page.names["process"], toy("moons"), steps=20, **options)
    assert checkpoint.exists()


@pytest.mark.parametrize("method", FAMILY)
def test_every_method_takes_the_network(page: Page, method: str) -> None:
    model = quick(method, network=page.names["Gated"]((2,)))
    assert bool(torch.isfinite(model.sample(10, SOLVER, 4)).all())


# --- the basis --------------------------------------------------------------------------------------------------------


def test_the_basis_is_an_orthonormal_turn() -> None:
    basis = BASES[BASIS]((2, 2, 4))
    x = torch.randn(300, 2, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
    z = basis.into(x)
    torch.testing.assert_close(z.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    torch.testing.assert_close(basis.back(z), x)
    matrix = basis.into(torch.eye(16, dtype=torch.float64).view(16, 2, 2, 4)).flatten(1)
    assert torch.equal(matrix.abs(), torch.full_like(matrix, 0.25))
    moments, _ = basis.fitted(iter(x.split(70)))
    torch.testing.assert_close(moments.var, basis.into(x - x.mean(0)).var(0, correction=0))
    with pytest.raises(ValueError, match=r"^basis='hadamard': data of shape \(3,\); the number"):
        vsmd.forward_process(METHOD, (3,), basis=BASIS)


@pytest.mark.parametrize(
    ("method", "score"), [*((m, None) for m in (*FAMILY, METHOD)), ("VSULD", "steered"), ("VSDM", "steered")]
)
def test_every_method_works_in_the_basis(method: str, score: str | None, tmp_path: Path) -> None:
    """By name; A is diagonal there, and the model keeps the basis."""
    mix = torch.tensor([[3.0, 2.8], [2.8, 3.0]])  # its axes are those of the basis, of variance 33.64 and 0.04
    data = torch.randn(2_000, 2, generator=torch.Generator().manual_seed(0)) @ mix
    process = vsmd.forward_process(method, (2,), variational_score=score, basis=BASIS, prior="moments").with_data(data)
    x = vsmd.Model(process, Zero()).sample(20_000, SOLVER, 40)  # Gaussian and independent there: the score is exact
    torch.testing.assert_close(x.T.cov(), data.T.cov(), rtol=0.05, atol=0)
    model = quick(method, data, variational_score=score, basis=BASIS)
    again = vsmd.load(model.save(tmp_path / "model.safetensors"))
    assert again.process.basis.name == BASIS
    assert torch.equal(again.sample(20, seed=1), model.sample(20, seed=1))


# --- data -------------------------------------------------------------------------------------------------------------

TINY = {"width": 8, "multipliers": [1], "depth": 1, "attention": [], "frequencies": 2, "held_out": 8, "grid": 0}


def test_images_by_name_with_the_others(tmp_path: Path) -> None:
    """The set, the method, the basis and the solver in one configuration: trained, saved, painted."""
    names = {"images": "stripes", "method": METHOD, "basis": BASIS, "solver": SOLVER, "evaluations": 5}
    sizes = {"steps": 4, "batch_size": 8, "rounds": 1, "paths": 6, "nodes": 8, "every": 4, "flips": False}
    model = train(image_config("digits").with_overrides(TINY | sizes | names), tmp_path)
    assert (model.process.method, model.process.basis.name) == (METHOD, BASIS)
    painted = Painter(model, SOLVER, 66)(range(3))
    assert painted.shape == (3, 1, 8, 8)
    assert painted.dtype == torch.uint8
    with pytest.raises(ValueError, match=r"^images='stripe': .*did you mean 'stripes'"):
        images.load("stripe")


def test_a_panel_by_name_with_the_others(tmp_path: Path) -> None:
    panel = panel_sources.panel("waves")
    options: dict[str, Any] = {"method": METHOD, "basis": BASIS, "solver": SOLVER, "sampling_steps": 4, "steps": 5}
    predictor = VSMDEstimator(24, "h", **options).train(panel.train)
    assert forecast(predictor, panel, num_samples=8).shape == (2, 8, 24, 2)


# --- elsewhere --------------------------------------------------------------------------------------------------------


def elsewhere(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """`code` in a process that knows nothing of the page but what is on its path."""
    path = os.pathsep.join(map(str, (ROOT, *paths)))
    return subprocess.run(
        [sys.executable, "-P", "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": METHOD}, "method='HALF': must be one of 'SGM'"),
        ({"method": "VSULD", "basis": BASIS}, "basis='hadamard': must be one of 'coordinates'"),
    ],
)
def test_a_file_says_what_was_not_imported(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = quick(**options).save(tmp_path / "model.safetensors")
    registries: tuple[dict[str, Any], ...] = (METHODS, BASES)
    for registry, name in itertools.product(registries, (METHOD, BASIS)):
        registry.pop(name, None)  # put back by the fixture below
    with pytest.raises(ValueError, match=re.escape(said)):
        vsmd.load(path)


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """Whatever a test takes out of the registries is put back."""
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, before):
        registry.clear()
        registry.update(entries)


def test_a_model_is_read_by_a_process_that_imports_the_package(page: Page) -> None:
    path = str(page.folder / "gated.safetensors")
    code = f"import vsmd, mine.methods, mine.networks; print(vsmd.load({path!r}).process.method)"
    done = elsewhere(code, page.folder)
    assert done.stdout.split() == [METHOD], done.stderr


# --- study and notebook -----------------------------------------------------------------------------------------------


def test_the_notebook(page: Page, tmp_path: Path) -> None:
    """Executed by the command, its runs in processes of their own, and stored with the code of the whole package."""
    reports = tmp_path / "reports"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "VSMD_REPORTS": str(reports), "VSMD_SLOTS": str(tmp_path / "slots")}
    command = [sys.executable, "-m", "repro", "--profile", "smoke", "--notebooks", str(page.folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "99_mine: done in " in done.stdout
    table = (reports / "smoke/tables/mine.csv").read_text().splitlines()
    assert table[0] == "method,steps,seed,std_1,std_2"
    assert [line.split(",")[:3] for line in table[1:]] == [["HALF", "5", "0"], ["VSULD", "5", "0"]]
    assert "**99_table.** Standard deviations" in (reports / "smoke/README.md").read_text()
    for entry in Store(reports / "smoke", "smoke").entries().values():
        assert {"mine.methods", "mine.solvers", "mine.study", "vsmd.kernels"} <= set(entry["code"])
