"""vsmd.model: samples with the right law, files that come back bit for bit, one clear line for a bad one."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vsmd import fit, forward_process, load
from vsmd.bases import BASES
from vsmd.model import Model
from vsmd.networks import NETWORKS
from vsmd.networks.mlp import MLP
from vsmd.processes import ForwardProcess
from vsmd.samplers import SOLVERS
from vsmd.schedules import BetaSchedule


class Zero(nn.Module):
    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.zeros_like(z)


def double(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def random_model(process: ForwardProcess) -> Model:
    """A model with a network that does something."""
    torch.manual_seed(0)
    network = MLP(process.shape, width=16, depth=2, frequencies=4)
    nn.init.normal_(network.last.weight, std=0.2)
    return Model(process, network.eval(), [{"step": 3, "eta": 0.1, "stiffness": [[1.5, 0.1 + 0.2]]}])


def known(method: str = "VSULD", **arguments: Any) -> ForwardProcess:
    return forward_process(method, (2,), **arguments).with_moments(double([3.0, -1.0]), double([1.0, 9.0]))


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["CLD", "VSULD", "SGM"])
def test_samples_of_gaussian_data(method: str) -> None:
    """Mean and covariance of the data, correlations included, within five standard errors and 2 % for t_min."""
    mean, cov = np.array([1.0, -2.0]), np.array([[4.0, 1.5], [1.5, 1.0]])
    var, basis = np.linalg.eigh(cov)
    process = forward_process(method, (2,), basis=double(basis), prior="moments", beta=6.0)
    process = process.with_moments(double(mean), double(var))
    n = 20_000
    x = Model(process, Zero()).sample(n, steps=40, seed=1).numpy().astype(np.float64)
    assert x.shape == (n, 2)
    assert (np.abs(x.mean(0) - mean) < 5 * np.sqrt(np.diag(cov) / n)).all()
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
    assert (np.abs(np.cov(x.T) - cov) < 5 * error + 0.02 * np.sqrt(np.outer(np.diag(cov), np.diag(cov)))).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_samples_are_a_function_of_the_seed(solver: str) -> None:
    model = random_model(known())
    torch.manual_seed(1)
    one = model.sample(20, solver=solver, steps=5, seed=4, checked=False)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two = model.sample(20, solver=solver, steps=5, seed=4, checked=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert one.dtype == torch.float32
    assert torch.equal(one, two)
    assert not torch.equal(one, model.sample(20, solver=solver, steps=5, seed=5, checked=False))


@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_batches_are_invisible(solver: str) -> None:
    model = random_model(known())
    whole = model.sample(50, solver=solver, steps=6)
    parts = model.sample(50, solver=solver, steps=6, batch_size=17)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ["euler-maruyama", "baoab"])
def test_batches_have_noise_of_their_own(solver: str) -> None:
    """Rows of different batches are independent: 300 starts that differ in their noise too."""
    model = Model(known("CLD"), Zero())
    x = model.sample(600, solver=solver, steps=20, batch_size=300)
    start = model.sample(600, solver="heun", steps=20)
    noise = (x - start) / (x - start).std(0)
    r = float((noise[:300] * noise[300:]).mean())
    assert abs(r) < 5 / 600**0.5


@pytest.mark.parametrize("solver", ["heun", "euler-maruyama"])
def test_trajectories(solver: str) -> None:
    """x at every node, the prior's draw first and the sample last; batches are joined along the samples."""
    model = random_model(known())
    path = model.sample(30, solver=solver, steps=8, seed=2, batch_size=12, trajectory=True)
    assert path.shape == (9, 30, 2)
    assert torch.equal(path[-1], model.sample(30, solver=solver, steps=8, seed=2, batch_size=12, denoise=False))
    more = model.sample(30, solver=solver, steps=3, seed=2, batch_size=12, trajectory=True)
    assert torch.equal(path[0], more[0])
    assert not torch.equal(path[0], path[1])


def test_shapes_of_pictures() -> None:
    process = forward_process("CLD", (1, 3, 3)).with_moments(torch.zeros(1, 3, 3), torch.ones(1, 3, 3))
    assert Model(process, Zero()).sample(4, steps=2).shape == (4, 1, 3, 3)


def test_grid_power_moves_the_steps() -> None:
    model = random_model(known())
    assert not torch.equal(model.sample(5, "heun", 4), model.sample(5, "heun", 4, grid_power=3.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, r"^n=0: must be an integer >= 1$"),
        ({"n": 2.0}, r"^n=2.0: must be an integer"),
        ({"steps": 0}, r"^steps=0: must be an integer >= 1$"),
        ({"steps": -3}, r"^steps=-3: must be"),
        ({"batch_size": 0}, r"^batch_size=0: must be"),
        ({"solver": "huen"}, r"^solver='huen': must be one of .*did you mean 'heun'"),
        ({"grid_power": 0.0}, r"^grid_power=0.0|^power=0.0"),
        ({"denoise": "no"}, r"^denoise='no': must be True or False$"),
        ({"checked": 1}, r"^checked=1: must be True or False$"),
        ({"trajectory": "False"}, r"^trajectory='False': must be True or False$"),
    ],
)
def test_bad_sampling_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Model(known(), Zero()).sample(**{"n": 5} | arguments)


def test_options_that_a_solver_does_not_have() -> None:
    with pytest.raises(TypeError, match=r"^solver='exponential': got an unexpected keyword argument 'sede'$"):
        Model(known(), Zero()).sample(5, sede=1)
    with pytest.raises(TypeError, match=r"^solver='rk45': got an unexpected keyword argument 'tol'$"):
        Model(known(), Zero()).sample(5, "rk45", tol=1e-3)


@pytest.mark.parametrize("velocities", [0, -1, 1.5])
def test_bad_velocities(velocities: Any) -> None:
    with pytest.raises(ValueError, match=r"^velocities=.*must be an integer >= 1$"):
        Model(known(), Zero()).log_prob(torch.zeros(1, 2), velocities=velocities)


def test_rk45_says_when_it_cannot_go_on() -> None:
    """A network that returns NaN must not end in samples of some earlier time."""

    class Broken(Zero):
        def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
            return torch.full_like(z, math.nan) if float(log_snr.max()) > 0 else torch.zeros_like(z)

    model = Model(known(), Broken())
    try:
        x = model.sample(4, solver="rk45", steps=3)
    except (FloatingPointError, RuntimeError, ValueError):
        return
    assert not bool(torch.isfinite(x).any())


# --- files ------------------------------------------------------------------------------------------------------------

PROCESSES = {
    "CLD": known("CLD"),
    "piecewise VSULD": known("VSULD", beta=BetaSchedule(0.1, 10.0, 1.7), damping=0.3).with_stiffness(
        double([[1.0, 2.0], [0.1 + 0.2, 5.0], [1 / 3, 1e-3]])
    ),
    "untied": known("VSULD").with_variational_score(double([[0.1, -2.0]]), double([[-0.7, 0.3]])),
    "full": known("VSCLD", variational_score=double([[0.0, 0.1], [0.1, -1.0]]), prior="moments", gamma=1.5),
    "SGM": known("SGM"),
    "plain VSDM": known("VSDM", score_matching="plain"),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_save_and_load(name: str, tmp_path: Path) -> None:
    """Samples, densities, process and history come back bit for bit."""
    model = random_model(PROCESSES[name])
    path = model.save(tmp_path / "deep" / "model.safetensors")
    again = load(path)
    for solver in ("heun", "euler-maruyama"):
        samples = (m.sample(9, solver=solver, steps=4, checked=False) for m in (model, again))
        assert torch.equal(*samples)
    x = torch.tensor([[2.0, 0.5], [4.0, -3.0]])
    assert torch.equal(model.log_prob(x), again.log_prob(x))
    assert again.process.settings == model.process.settings
    assert again.history == model.history
    assert again.t_min == model.t_min
    assert not again.network.training
    for one, two in zip(model.process.transition(0.3), again.process.transition(0.3), strict=True):
        assert torch.equal(one, two)
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]  # nothing temporary is left


def test_save_over_an_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    random_model(known("CLD")).save(str(path))
    random_model(known("SGM")).save(str(path))
    assert load(str(path)).process.method == "SGM"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return random_model(known()).save(tmp_path_factory.mktemp("model") / "model.safetensors").read_bytes()


def refused(path: Path) -> str:
    """The one line with which `load` refuses a file."""
    with pytest.raises(ValueError, match=rf"^path={re.escape(repr(str(path)))}: ") as error:
        load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_such_file(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.6, 0.999])
def test_truncated_file(saved: bytes, share: float, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved[: int(share * len(saved))])
    assert "damaged" in refused(path)


@pytest.mark.parametrize("content", [b"name,value\n1,2\n", b"PK\x03\x04" + bytes(100), bytes(1000), b"\xff" * 50])
def test_foreign_bytes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path)


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    assert "vsmd-model-2" in refused(path)


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path)


def test_a_checkpoint_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    fit(forward_process("CLD", (1,)), torch.randn(9, 1), steps=1, batch_size=2, checkpoint=path)
    assert "vsmd-checkpoint-2" in refused(path)


def test_missing_parts(saved: bytes, tmp_path: Path) -> None:
    """A file of the right format that lacks a tensor or its settings."""
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"format": "vsmd-model-2"})
    refused(path)
    save_file({"weight": torch.zeros(3)}, path, {"format": "vsmd-model-2", "info": "{}"})
    refused(path)


@pytest.mark.parametrize("part", ["header", "weights"])
def test_flipped_bytes(saved: bytes, part: str, tmp_path: Path) -> None:
    """One wrong byte anywhere is found out."""
    path = tmp_path / "model.safetensors"
    header = 8 + int.from_bytes(saved[:8], "little")
    low, high = (0, header) if part == "header" else (header, len(saved))
    for i in range(low, high, (high - low) // 60):
        for value in (0, 0x39):
            if saved[i] not in {value, 0x20}:  # the header is padded with spaces
                path.write_bytes(saved[:i] + bytes([value]) + saved[i + 1 :])
                refused(path)


def test_a_basis_of_another_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = random_model(known(basis="principal").with_data(torch.randn(9, 2))).save(tmp_path / "model.safetensors")
    monkeypatch.delitem(BASES, "principal")
    with pytest.raises(ValueError, match=r"damaged or foreign \(basis='principal': must be one of 'coordinates'"):
        load(path)


def test_network_without_settings(tmp_path: Path) -> None:
    """A network of the user's own cannot be rebuilt from a file: say so, and leave nothing behind."""
    with pytest.raises((TypeError, ValueError), match=r"^network=Zero: ") as error:
        Model(known(), Zero()).save(tmp_path / "model.safetensors")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


class Tied(MLP):
    """A perceptron whose hidden layers are one and the same."""

    name = "tied"

    def __init__(self, shape: tuple[int, ...], **settings: Any) -> None:
        super().__init__(shape, **settings)
        self.hidden = nn.ModuleList([self.hidden[0]] * len(self.hidden))


def test_tied_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, saved, loaded and trained on: they stay tied."""
    monkeypatch.setitem(NETWORKS, "tied", Tied)
    process, x = forward_process("CLD", (2,)), torch.randn(50, 2)
    path = tmp_path / "checkpoint.safetensors"
    options: dict[str, Any] = {"batch_size": 8, "checkpoint": path, "network": Tied((2,), width=8)}
    fit(process, x, steps=3, **options)
    model = fit(process, x, steps=6, **options)
    again = load(model.save(tmp_path / "model.safetensors"))
    assert torch.equal(again.sample(5, steps=3), model.sample(5, steps=3))
    assert again.network.hidden[0] is again.network.hidden[1]  # type: ignore[index]


def test_devices() -> None:
    """A copy elsewhere ("meta" has no numbers, and is on every machine); one line for a device that is not there."""
    model = random_model(known())
    there = model.to("meta")
    assert (there.score.device.type, model.score.device.type) == ("meta", "cpu")
    assert torch.equal(model.to("cpu").sample(3, steps=2), model.sample(3, steps=2))
    with pytest.raises(ValueError, match=r"^device='cuda:99': not on this machine"):
        model.to("cuda:99")


def test_a_file_is_loaded_onto_a_device(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved)
    assert load(path, device="meta").score.device.type == "meta"
    with pytest.raises(ValueError, match=r"^device='tpu': not on this machine"):
        load(path, device="tpu")


def test_a_model_shows_itself_in_a_few_lines() -> None:
    text = repr(random_model(known()))
    assert len(text) < 300
    assert text.startswith("Model of data (2,): VSULD, beta 5, A adapted in 1 rounds, prior 'moments'\n  MLP, ")
    assert "on cpu" in text
    assert "beta 0.1 to 10, A zero" in repr(Model(known("CLD", beta=BetaSchedule(0.1, 10.0)), Zero()))


# --- denoising and seeds of samples -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "left"), [("SGM", 0.07), ("CLD", 0.0025), ("LSBDM", 0.01)])
def test_the_noise_of_the_last_time_is_taken_off(method: str, left: float) -> None:
    """Of a constant coordinate noise stays without denoising (`left`), and for a bridge that stops early."""
    process = forward_process(method, (2,), beta=0.1 if method == "LSBDM" else 5.0)
    model = Model(process.with_moments(double([3.0, 1.0]), double([0.0, 1.0])), Zero())
    noisy, default, clean = (model.sample(4_000, "exponential", 3, seed=0, denoise=d) for d in (False, None, True))
    assert float(noisy[:, 0].std()) == pytest.approx(left, rel=0.05)
    assert torch.equal(clean[:, 0], torch.full((4_000,), 3.0))
    assert torch.equal(default, noisy if method == "LSBDM" else clean)


def test_denoising_is_one_evaluation_more() -> None:
    model, calls = random_model(known()), []
    model.network.register_forward_pre_hook(lambda *_: calls.append(1))
    model.sample(5, "euler", 4, denoise=False)
    model.sample(5, "euler", 4)
    assert len(calls) == 4 + 5
    assert model.generation("heun", 3).evaluations == 7


def test_the_last_node_of_a_trajectory_is_denoised_where_asked_for() -> None:
    model = random_model(known())
    path = model.sample(6, "euler", 4, trajectory=True, denoise=True)
    assert torch.equal(path[-1], model.sample(6, "euler", 4))
    assert torch.equal(path[:-1], model.sample(6, "euler", 4, trajectory=True)[:-1])


@pytest.mark.parametrize("solver", ["heun", "euler-maruyama"])
def test_a_sample_is_a_function_of_its_seed(solver: str) -> None:
    model = random_model(known())
    whole = model.sample(solver=solver, steps=4, seeds=[3, 1, 4, 1], batch_size=3)
    torch.testing.assert_close(model.sample(solver=solver, steps=4, seeds=[4, 3]), whole[[2, 0]])
    torch.testing.assert_close(whole[1], whole[3])
    with pytest.raises(ValueError, match=r"^seeds: 2 of them for n=3; must be one a sample$"):
        model.sample(3, seeds=[0, 1])
    with pytest.raises(ValueError, match=r"^n=None: must be an integer >= 1$"):
        model.sample()
