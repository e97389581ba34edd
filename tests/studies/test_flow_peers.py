"""repro.studies.flow_peers: torchcfm's matchers in our loop agree with ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from repro.studies import flow_matching as fm
from repro.studies import flow_peers as peers
from repro.studies.sets.toys import toy
from vsmd.metrics.distances import wasserstein2
from vsmd.random import generator

needed = pytest.mark.skipif(not peers.installed(), reason="torchcfm is not installed (extra `peers`)")
SETTINGS: dict[str, Any] = {
    "network": None, "steps": 4, "batch_size": 600, "learning_rate": 1e-3, "schedule": "cosine", "ema": 0.9,
    "clip": 1.0, "seed": 3, "device": torch.device("cpu"),
}  # fmt: skip


@needed
def test_same_network_batches_and_times() -> None:
    """Independent pairs are ours, number by number; the global generators stay as they were."""
    ours = fm.FlowTrainer("i-cfm-standardised", toy("moons"), (2,), "gaussian", **SETTINGS)
    theirs = peers.PeerTrainer("I-CFM-standardised", toy("moons"), (2,), **SETTINGS)
    before = torch.random.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    a, b = ours.pairs(), theirs.pairs()
    for name in ("z", "log_snr", "target"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name))
    for p, q in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == str(np.random.get_state())  # noqa: NPY002


@needed
@pytest.mark.parametrize("name", ["OT-CFM", "SB-CFM"])
def test_plans(name: str) -> None:
    """Optimal pairs are much nearer than independent ones, and as near as ours; SB-CFM's noise comes on top."""
    trainer = peers.PeerTrainer(name, toy("8gaussians"), (2,), **SETTINGS)
    ours = fm.FlowTrainer("ot-cfm", toy("8gaussians"), (2,), "gaussian", **SETTINGS)
    theirs = trainer.pairs()
    again = trainer.pairs()
    assert torch.equal(theirs.z, again.z)
    chosen = (theirs.log_snr[:, 0].abs() < 0.2).nonzero()[:, 0]  # near t = 1/2 SB-CFM's target is x_1 - x_0, too
    cost = float(theirs.target[chosen].square().sum(1).mean())
    want = float(ours.pairs().target.square().sum(1).mean())
    assert cost == pytest.approx(want, rel=0.2)  # of independent pairs: half as large again
    independent = peers.PeerTrainer("I-CFM", toy("8gaussians"), (2,), **SETTINGS).pairs().target
    assert cost < 0.85 * float(independent.square().sum(1).mean())


@needed
def test_ours_agrees_within_seeds() -> None:
    """W2 of ours and theirs on a small problem: as near as two seeds of one of them are."""
    data = toy("8gaussians")(1_500, generator(9))

    def quality(method: str, seed: int) -> float:
        options: Any = {"steps": 150, "batch_size": 256, "learning_rate": 8e-3, "seed": seed}
        train = peers.train if method in peers.METHODS else fm.train
        return wasserstein2(train(method, toy("8gaussians"), (2,), **options).sample(1_500, "heun", 8, seed), data)

    ours, theirs = ([quality(m, seed) for seed in (0, 1)] for m in ("ot-cfm", "OT-CFM"))
    spread = max(np.ptp(ours), np.ptp(theirs), 0.15 * np.mean(ours))
    assert abs(np.mean(ours) - np.mean(theirs)) < 2 * spread
    assert max(*ours, *theirs) < 2.5  # the source itself: 4.2


def test_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^method='OT-CMF': must be one of"):
        peers.train("OT-CMF", toy("moons"), (2,))
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="extra `peers`"):
        peers.train("OT-CFM", toy("moons"), (2,))
