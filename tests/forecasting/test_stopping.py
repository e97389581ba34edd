"""Early stopping: when it stops, what it keeps, and that an interrupted run ends as an uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vsmd.data.calendars import as_period
from vsmd.family import forward_process
from vsmd.forecasting import VSMDEstimator
from vsmd.forecasting.stopping import EarlyStopping
from vsmd.model import Model
from vsmd.networks.mlp import MLP
from vsmd.random import generator


def model(shift: float) -> Model:
    process = forward_process("CLD", (2,)).with_moments(torch.zeros(2), torch.ones(2))
    network = MLP((2,), width=4, depth=1)
    with torch.no_grad():
        network.last.bias.fill_(shift)
    return Model(process, network)


DATA = torch.randn(500, 2, generator=generator(0, "data"))


def test_it_stops_after_patience_and_keeps_the_best() -> None:
    stopping = EarlyStopping(DATA, 2, seed=0)
    models = [model(shift) for shift in (1.0, 0.0, 0.5, 0.4, 0.3)]
    assert [stopping(step, m) for step, m in enumerate(models)] == [False, False, False, True, True]
    assert stopping.best() is models[1]


def test_the_loss_is_the_training_loss_of_the_rows() -> None:
    """Gaussian data of the process's own moments: the zero network is the score, its loss E kappa^2."""
    stopping = EarlyStopping(DATA, 2, seed=0)
    kappa = model(0.0).process.snr(torch.linspace(1e-3, 1, 5_000))[1].square().mean()
    assert stopping.loss(model(0.0)) == pytest.approx(float(kappa), rel=0.05)
    assert stopping.loss(model(1.0)) == pytest.approx(2 * float(kappa), rel=0.1)
    assert stopping.loss(model(1.0)) == stopping.loss(model(1.0))


def series() -> list[dict[str, Any]]:
    walk = np.random.default_rng(0).standard_normal((2, 90)).cumsum(1) + 100
    return [{"start": as_period("2024-01-01", "B"), "target": walk}]


def drawn(**options: Any) -> np.ndarray:
    tiny = {
        "steps": 40,
        "batch_size": 16,
        "width": 8,
        "depth": 1,
        "scale_window": 10,
        "sampling_steps": 3,
        "method": "CLD",
    }
    predictor = VSMDEstimator(3, "B", **{**tiny, "patience": 3, "learning_rate": 0.1, **options}).train(series())
    return next(iter(predictor.predict(series(), num_samples=4))).samples


def test_interrupted_runs_end_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn()
    assert not np.array_equal(whole, drawn(patience=None))
    look, calls = EarlyStopping.__call__, list[int]()

    def interrupted(self: EarlyStopping, step: int, model: Model) -> bool:
        calls.append(step)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return look(self, step, model)

    monkeypatch.setattr(EarlyStopping, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drawn(checkpoint=tmp_path / "training.safetensors")
    assert np.array_equal(drawn(checkpoint=tmp_path / "training.safetensors"), whole)
    assert calls[2] == calls[3]  # the look that was interrupted is taken again, those before it are not
    assert np.array_equal(drawn(checkpoint=tmp_path / "training.safetensors"), whole)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"3", b"[1]", b'{"1": [2]}', b'{"x": 2}', b"[" * 10**5])
def test_damaged_losses_are_named(content: bytes, tmp_path: Path) -> None:
    record = tmp_path / "run"
    for name in ("run", "run.best.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "run.losses.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^path='.*run\.losses\.json': is damaged or foreign [^\n]*$"):
        EarlyStopping(DATA, 2, seed=0, record=record)
