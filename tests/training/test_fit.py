"""vsmd.fit: reproducible bits, averaged weights, adaptation inside, clear refusals of bad data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from vsmd import Adaptation, Model, fit, forward_process, load
from vsmd.networks.mlp import MLP
from vsmd.training.trainer import Trainer

METHODS = ("SGM", "VSDM", "CLD", "ULD", "VSCLD", "VSULD")
FEW = Adaptation(rounds=3, paths=200, nodes=8)
STRETCHED = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 8.0]) + 3


def tiny(shape: tuple[int, ...] = (2,)) -> MLP:
    torch.manual_seed(0)
    return MLP(shape, width=16, depth=2, frequencies=4)


def train(method: str = "VSULD", data: Any = STRETCHED, **arguments: Any) -> Model:
    """A short run; arguments of `forward_process` go by their own names."""
    ours = {"damping", "score_matching", "basis", "variational_score", "prior", "shape", "beta"}
    process = forward_process(method, **{"shape": (2,)} | {k: v for k, v in arguments.items() if k in ours})
    settings: dict[str, Any] = {"steps": 40, "batch_size": 32, "adaptation": FEW}
    settings |= {k: v for k, v in arguments.items() if k not in ours}
    if "network" not in settings:
        settings["network"] = tiny(process.shape)
    return fit(process, data, **settings)


def weights(model: Model) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.network.parameters()])


# --- reproducible -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "matching"), [*((m, "hybrid") for m in METHODS), ("CLD", "plain"), ("VSULD", "plain")]
)
def test_same_seed_same_bits(method: str, matching: str) -> None:
    runs = []
    for noise in (1, 2):  # the global stream does not matter, and is left alone
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        network = tiny()
        torch.set_rng_state(state)
        runs.append(train(method, seed=3, steps=20, network=network, score_matching=matching))
        assert torch.equal(torch.get_rng_state(), state)
    one, two = runs
    assert torch.equal(weights(one), weights(two))
    assert one.history == two.history
    assert torch.equal(one.sample(7, steps=3), two.sample(7, steps=3))
    assert not torch.equal(weights(one), weights(train(method, seed=4, steps=20, score_matching=matching)))


def test_default_network_is_a_function_of_the_seed() -> None:
    models = [train("CLD", network=None, steps=2, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


def test_inputs_are_left_alone() -> None:
    process, network, data = forward_process("VSULD", (2,)), tiny(), STRETCHED.clone()
    before = [p.clone() for p in network.parameters()]
    model = fit(process, data, network=network, steps=30, batch_size=16, adaptation=FEW)
    assert all(torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))
    assert torch.equal(data, STRETCHED)
    assert process.moments is None
    assert float((process.stiffness - 1).abs().max()) == 0
    assert model.network is not network
    assert model.score.network is model.network


def test_progress_bar_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = train()
    assert capsys.readouterr() == ("", "")
    loud = train(progress=True)
    assert "40/40" in capsys.readouterr().err
    assert torch.equal(weights(quiet), weights(loud))


# --- it learns --------------------------------------------------------------------------------------------------------


def clusters(n: int, generator: torch.Generator) -> Tensor:
    """+-2 with standard deviation .3: no Gaussian."""
    sign = torch.randint(2, (n, 1), generator=generator) * 4.0 - 2
    return sign + 0.3 * torch.randn(n, 1, generator=generator)


@pytest.mark.parametrize("method", ["CLD", "VSULD", "SGM"])
def test_two_clusters(method: str) -> None:
    """The model fits held-out points far better than a Gaussian, and leaves the gap empty."""
    network = MLP((1,), width=32, depth=2, frequencies=8)
    model = train(method, clusters, shape=(1,), steps=700, batch_size=256, network=network, ema=0.98, beta=8.0)
    x = model.sample(2_000, steps=30)
    assert float((x.abs() < 0.8).float().mean()) < 0.06  # a Gaussian: .31
    assert float((x.abs().mean() - 2).abs()) < 0.15
    held = clusters(200, torch.Generator().manual_seed(9))
    gaussian = -0.5 * (held.double() ** 2 / 4.09 + math.log(2 * math.pi * 4.09)).mean()
    exact = math.log(0.5) - 0.5 * math.log(2 * math.pi * 0.09) - 0.5
    assert float(gaussian) + 0.6 * (exact - float(gaussian)) < float(model.log_prob(held).mean()) < exact + 0.15


def test_moments_are_the_data_s() -> None:
    model = train("CLD", steps=1, units="raw")
    mean, var = model.process.known()
    torch.testing.assert_close(mean, STRETCHED.double().mean(0))
    torch.testing.assert_close(var, STRETCHED.double().var(0, correction=0))


def test_full_matrix_is_in_the_principal_axes() -> None:
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    model = train("VSULD", (STRETCHED - 3) @ turn.T, basis="principal")
    basis, var = model.process.basis.tensors["matrix"], model.process.known().var
    torch.testing.assert_close(basis.T @ basis, torch.eye(2, dtype=torch.float64))
    directions = model.process.to_directions((STRETCHED.double() - 3) @ turn.T.double())
    cov = torch.cov(directions.T, correction=0)
    torch.testing.assert_close(cov, torch.diag(var), rtol=1e-5, atol=1e-5)
    assert float(model.sample(500, steps=8).std(0).max()) > 4


def test_learning_rate_schedules() -> None:
    constant, cosine, steps = (weights(train("CLD", schedule=s)) for s in ("constant", "cosine", "step"))
    assert not torch.equal(constant, cosine)
    assert not torch.equal(constant, steps)
    start = weights(Model(forward_process("CLD", (2,)), tiny()))
    assert float((constant - start).norm()) > float((cosine - start).norm()) > 0


# --- averaged weights -------------------------------------------------------------------------------------------------


def path_of_weights(ema: float, steps: int = 30) -> Tensor:
    """Weights of the model after every step, (steps, parameters)."""
    seen: list[Tensor] = []
    snapshots = range(1, steps + 1)
    model = train("CLD", steps=steps, ema=ema, snapshots=snapshots, on_snapshot=lambda _, m: seen.append(weights(m)))
    assert torch.equal(seen[-1], weights(model))
    return torch.stack(seen).double()


def test_the_model_has_averaged_weights() -> None:
    """avg <- d avg + (1 - d) w with one d <= ema for all parameters; ema = 0 gives the last weights themselves."""
    raw, average = path_of_weights(0.0), path_of_weights(0.9)
    assert not torch.equal(raw[-1], average[-1])
    decays = []
    for k in range(1, len(raw)):
        pull, move = raw[k] - average[k - 1], average[k] - average[k - 1]
        gain = float(pull @ move / (pull @ pull))
        torch.testing.assert_close(move, gain * pull, rtol=1e-3, atol=1e-7)
        decays.append(1 - gain)
    assert max(decays) <= 0.9 + 1e-6
    assert decays[-1] > 0.5
    assert float(average.diff(dim=0).norm()) < float(raw.diff(dim=0).norm())


# --- adaptation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["VSDM", "VSCLD", "VSULD"])
def test_the_score_adapts_to_stretched_axes(method: str) -> None:
    model = train(method)
    s = model.process.stiffness[0]
    assert float(s[1]) > 1.05
    assert float(s[1]) > float(s[0])
    assert len(model.history) == FEW.rounds
    assert [row["step"] for row in model.history] == FEW.schedule(40)
    assert [row["eta"] for row in model.history] == [FEW.step_size(k) for k in range(FEW.rounds)]
    torch.testing.assert_close(torch.tensor(model.history[-1]["stiffness"]).double(), model.process.stiffness)


@pytest.mark.parametrize("method", ["CLD", "ULD", "SGM"])
def test_zero_and_fixed_scores_stay(method: str) -> None:
    assert torch.equal(train(method).process.stiffness, torch.ones(1, 2, dtype=torch.float64))
    fixed = train(method, variational_score=-0.5)
    assert float((fixed.process.a_x + 0.5).abs().max()) == 0
    assert fixed.history == []


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("start", ["target", "terminal"])
def test_time_varying_adaptation(tied: bool, start: str) -> None:
    """Pieces of their own for A, all finite; more pieces than nodes of the simulation do no harm."""
    for pieces in (4, 30):
        how = Adaptation(rounds=2, paths=100, nodes=8, pieces=pieces, tied=tied, start=start)
        model = train("VSULD", adaptation=how)
        assert model.process.pieces == pieces
        assert bool(torch.isfinite(model.process.stiffness).all())
        assert float((model.process.stiffness - 1).abs().max()) > 1e-3
        assert bool(torch.isfinite(model.sample(20, steps=10)).all())


# --- data -------------------------------------------------------------------------------------------------------------

GOOD = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
BAD: list[tuple[Any, type[Exception], str]] = [
    (torch.zeros(0, 2), ValueError, r"^data: shape \(0, 2\) must be \(n, 2\) with n >= 2$"),
    (GOOD[:1], ValueError, r"^data: shape \(1, 2\) must be"),
    (GOOD[:, :1], ValueError, r"^data: shape \(50, 1\) must be"),
    (GOOD[0], ValueError, r"^data: shape \(2,\) must be"),
    (GOOD[:, :, None], ValueError, r"^data: shape \(50, 2, 1\) must be"),
    (torch.where(torch.arange(50)[:, None] < 3, math.nan, GOOD), ValueError, r"^data: must be finite, 3 of 50 rows"),
    (torch.where(torch.arange(50)[:, None] < 1, math.inf, GOOD), ValueError, r"^data: must be finite, 1 of 50 rows"),
    (GOOD.long(), TypeError, r"^data: dtype torch.int64 must be a floating one"),
    (GOOD.bool(), TypeError, r"^data: dtype torch.bool must be"),
    (GOOD.tolist(), TypeError, r"^data=list: must be a tensor"),
    (GOOD.long().numpy(), TypeError, r"^data: dtype torch.int64 must be a floating one"),
    (None, TypeError, r"^data=NoneType: must be a tensor"),
    ((GOOD[:, :1], GOOD), ValueError, r"^data: shape \(50, 1\) must be"),
    (lambda n, _: torch.zeros(n, 3), ValueError, r"^data: shape \(\d+, 3\) must be"),
    (lambda n, _: torch.full((n, 2), math.nan), ValueError, r"^data: must be finite"),
    (lambda n, _: np.zeros((n, 2), dtype=bool), TypeError, r"^data: dtype torch.int64 must be"),
    (lambda n, _: torch.zeros(n, 2, dtype=torch.int64), TypeError, r"^data: dtype torch.int64 must be"),
    ((GOOD, GOOD[:20]), ValueError, r"^(data|context)"),
]


@pytest.mark.parametrize(("data", "error", "message"), BAD)
def test_bad_data(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        train("CLD", data, steps=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, r"^steps=0: must be an integer >= 1$"),
        ({"steps": 10.0}, r"^steps=10.0: must be"),
        ({"batch_size": -1}, r"^batch_size=-1: must be"),
        ({"learning_rate": 0.0}, r"^learning_rate=0.0: must be a finite number > 0$"),
        ({"learning_rate": math.nan}, r"^learning_rate=nan"),
        ({"schedule": "cosin"}, r"^schedule='cosin': .*did you mean 'cosine'"),
        ({"ema": 1.5}, r"^ema=1.5: must be a number between 0 and 1$"),
        ({"clip": -1.0}, r"^clip=-1.0: must be"),
        ({"checkpoint_every": 0}, r"^checkpoint_every=0: must be"),
        ({"device": "cuda:99"}, r"^device='cuda:99': not on this machine, which has cpu"),
        ({"device": "tpu"}, r"^device='tpu': not on this machine"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        train(**arguments)
    assert "\n" not in str(error.value)


def test_a_process_is_needed() -> None:
    with pytest.raises(TypeError, match=r"^process=str: must come from vsmd.forward_process$"):
        fit("VSULD", GOOD)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["VSULD", "CLD", "VSDM"])
@pytest.mark.parametrize("value", [0.0, 1000.1])
def test_constant_column(method: str, value: float) -> None:
    """It simply works: the column comes out constant but for what is left at t_min, .07 at most."""
    data = torch.cat([GOOD[:, :1], torch.full((50, 1), value)], 1)
    model = train(method, data)
    x = model.sample(200, steps=50)
    assert bool(torch.isfinite(x).all())
    assert float((x[:, 1] - value).abs().max()) < 0.35
    assert 0.5 < float(x[:, 0].std()) < 2


def test_everything_constant() -> None:
    x = train("VSULD", torch.full((5, 2), 2.0)).sample(50, steps=50)
    assert float((x - 2).abs().max()) < 0.25


def test_columns_that_are_copies() -> None:
    """A full matrix meets a direction without variance."""
    model = train("VSULD", GOOD[:, :1].expand(50, 2).contiguous(), basis="principal")
    x = model.sample(200, steps=50)
    assert bool(torch.isfinite(x).all())
    assert float((x[:, 0] - x[:, 1]).abs().max()) < 0.25


@pytest.mark.parametrize("method", METHODS)
def test_one_dimension(method: str) -> None:
    x = train(method, GOOD[:, :1], shape=(1,)).sample(30, steps=4)
    assert x.shape == (30, 1)
    assert bool(torch.isfinite(x).all())


def test_float64_and_pictures() -> None:
    data = torch.randn(20, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert train("VSULD", data, shape=(1, 2, 2)).sample(3, steps=2).dtype == torch.float32


def test_samplers_of_data() -> None:
    """Called with (n, generator), all randomness from there: the same seed gives the same bits."""
    sizes: list[int] = []

    def sampler(n: int, generator: torch.Generator) -> Tensor:
        sizes.append(n)
        return torch.randn(n, 2, generator=generator) * torch.tensor([1.0, 5.0]) - 2

    one, two = (train("VSULD", sampler, seed=1, units="raw") for _ in range(2))
    assert torch.equal(weights(one), weights(two))
    assert sizes.count(32) == 2 * 40
    mean, var = one.process.known()
    torch.testing.assert_close(mean, torch.full((2,), -2.0).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(var, torch.tensor([1.0, 25.0]).double(), atol=0, rtol=0.05)


class Conditional(nn.Module):
    """Two layers on (z, level, context)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 48), nn.Linear(48, 1)

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        return self.last(silu(self.first(torch.cat([z, log_snr.expand_as(z) / 4, context], 1))))


@pytest.mark.parametrize("method", ["CLD", "VSULD"])
@pytest.mark.parametrize("callable_data", [False, True])
def test_context(method: str, callable_data: bool) -> None:
    """x given c is N(2 c, .2^2) with c = +-1: samples follow the context that they are given."""

    def sampler(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        c = torch.randint(2, (n, 1), generator=generator) * 2.0 - 1
        return 2 * c + 0.2 * torch.randn(n, 1, generator=generator), c

    torch.manual_seed(0)
    data = sampler if callable_data else sampler(500, torch.Generator().manual_seed(0))
    arguments: dict[str, Any] = {"steps": 300, "batch_size": 128, "learning_rate": 1e-2, "ema": 0.95}
    model = train(method, data, shape=(1,), network=Conditional(), beta=8.0, **arguments)
    c = torch.where(torch.arange(300) % 3 == 0, 1.0, -1.0)[:, None]
    x = model.sample(300, steps=20, context=c, batch_size=70)
    assert float(((x * c) > 0).float().mean()) > 0.99
    assert float((x - 2 * c).abs().mean()) < 0.5


# --- going on from a model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["CLD", "VSULD"])
def test_a_model_goes_on(method: str, tmp_path: Path) -> None:
    """From its weights and its A; the model itself stays; from its file it is the same."""
    first = train(method, network=None)
    before = weights(first)
    later = train(method, network=None, init=first, steps=1, learning_rate=1e-12)
    torch.testing.assert_close(weights(later), before)
    assert torch.equal(weights(first), before)
    went = train(method, network=None, init=first, steps=10)
    assert torch.equal(
        weights(train(method, network=None, init=load(first.save(tmp_path / "a.safetensors")), steps=10)), weights(went)
    )
    if method == "VSULD":
        fixed = Adaptation(rounds=1, paths=50, nodes=8, begin=0.98, end=1.0)
        seen: list[Tensor] = []
        train(
            method, network=None, init=first, steps=40, adaptation=fixed, snapshots=[1],
            on_snapshot=lambda _, model: seen.append(model.process.stiffness),
        )  # fmt: skip
        torch.testing.assert_close(seen[0], first.process.stiffness)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"init": "model.safetensors"}, TypeError, r"^init=str: must be a model, as vsmd.fit or vsmd.load returns it$"),
        ({"init": Model(forward_process("CLD", (2,)), tiny()), "network": tiny()}, ValueError, r"^network=MLP: init"),
        (
            {"init": Model(forward_process("CLD", (3,)), tiny((3,)))},
            ValueError,
            r"^init: is a model of data \(3,\); must",
        ),
    ],
)
def test_bad_init(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train("CLD", **{"network": None} | arguments)


# --- stopping ---------------------------------------------------------------------------------------------------------


def failing_after(calls: int) -> Any:
    """A sampler whose draws turn so large after that many calls that their squares are no numbers."""
    count = 0

    def sampler(n: int, generator: torch.Generator) -> Tensor:
        nonlocal count
        count += 1
        x = torch.randn(n, 2, generator=generator)
        return x * 1e30 if count > calls else x

    return sampler


def test_nan_loss_stops() -> None:
    with pytest.raises(FloatingPointError, match=r"^loss is (nan|inf) .*\b100\b.*learning_rate=") as error:
        train("CLD", failing_after(80), steps=400)
    assert "\n" not in str(error.value)


def test_nan_loss_keeps_the_last_good_checkpoint(tmp_path: Any) -> None:
    path = tmp_path / "run.safetensors"
    good = train("CLD", failing_after(10_000), steps=200)
    with pytest.raises(FloatingPointError, match=r"the last good checkpoint is .*run\.safetensors$"):
        train("CLD", failing_after(130), steps=200, checkpoint=path, checkpoint_every=50)
    healed = train("CLD", failing_after(10_000), steps=200, checkpoint=path, checkpoint_every=50)
    assert torch.equal(weights(healed), weights(good))
    assert bool(torch.isfinite(weights(healed)).all())


def test_snapshots() -> None:
    """After each of the steps named, with the model as it then stands."""
    seen: list[tuple[int, Model]] = []
    model = train("VSULD", snapshots=(7, 40, 20), on_snapshot=lambda step, m: seen.append((step, m)))
    assert [step for step, _ in seen] == [7, 20, 40]
    assert torch.equal(weights(seen[-1][1]), weights(model))
    assert (
        torch.equal(weights(seen[0][1]), weights(train("VSULD", snapshots=(7,), on_snapshot=lambda *_: None))) is False
    )
    assert len(seen[0][1].history) == sum(step <= 7 for step in FEW.schedule(40))


def test_a_snapshot_may_end_training() -> None:
    seen: list[int] = []

    def enough(step: int, model: Model) -> bool:
        seen.append(step)
        return step >= 20

    stopped = train("VSULD", snapshots=(7, 20, 40), on_snapshot=enough)
    assert seen == [7, 20]
    kept: dict[int, Tensor] = {}
    train("VSULD", snapshots=(20,), on_snapshot=lambda step, m: bool(kept.update({step: weights(m)})))
    assert torch.equal(weights(stopped), kept[20])


def test_the_average_keeps_no_graph() -> None:
    """A step's memory must not grow with the steps before it; the model can be trained on."""
    settings: dict[str, Any] = {"steps": 9, "batch_size": 8, "learning_rate": 1e-3, "schedule": "cosine", "ema": 0.9}
    process, device = forward_process("CLD", (2,)), torch.device("cpu")
    trainer = Trainer(process, STRETCHED, tiny(), **settings, clip=1.0, adaptation=None, seed=0, device=device)
    for _ in range(3):
        trainer.advance()
    assert all(p.is_leaf and p.grad_fn is None for p in trainer.averages)
    model = trainer.model()
    assert not torch.equal(weights(fit(process, STRETCHED, network=model.network, steps=5)), weights(model))


@pytest.mark.parametrize("basis", ["coordinates", "principal", "cosine", torch.eye(4).flip(0)])
def test_time_varying_adaptation_in_every_basis(basis: str | Tensor, tmp_path: Path) -> None:
    x = torch.randn(300, 1, 2, 2, generator=torch.Generator().manual_seed(0)).cumsum(-1) * 3
    adaptation = Adaptation(rounds=2, paths=50, nodes=6, pieces=3)
    model = train("VSULD", x, shape=(1, 2, 2), basis=basis, steps=12, adaptation=adaptation)
    assert model.process.pieces == 3
    assert not torch.equal(model.process.stiffness[0], model.process.stiffness[1])
    again = load(model.save(tmp_path / "model.safetensors"))
    assert bool(torch.isfinite(model.sample(5, steps=4)).all())
    assert torch.equal(again.sample(5, steps=4), model.sample(5, steps=4))
