"""repro.studies.rates: each term's rate against the spectrum or the exponent that it must have."""

from __future__ import annotations

import numpy as np
import pytest

from repro.studies import rates as rt
from repro.studies.convergence import Row, backward_laws, flow_end, gaussian_process, kl, solver_law, target_law
from repro.studies.derivations import forward_covariance, scaled_error


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(rt.terms(40, [0.3, 1.0, 2.0]).tables["rates"])


def picked(rows: list[Row], quantity: str, setting: str = "") -> list[Row]:
    return [r for r in rows if r["quantity"] == quantity and setting in r["setting"]]


@pytest.mark.parametrize(
    ("method", "damping", "stiffness", "want"),
    [("SGM", None, 3.0, 3.0), ("CLD", None, 4.0, 2.0), ("ULD", 0.49, 4.0, 1.4)],
)
def test_spectral_rate(method: str, damping: float | None, stiffness: float, want: float) -> None:
    assert rt.spectral_rate(gaussian_process(method, 1.0, 5.0, damping, stiffness)) == pytest.approx(want)


@pytest.mark.parametrize(("setting", "r"), [("SGM", 1.0), ("CLD", 1.0), ("ULD, R 0.7", 0.7**0.5)])
def test_horizon(rows: list[Row], setting: str, r: float) -> None:
    """KL of centred data falls twice as fast as a point's, and the SDE forgets what the flow keeps."""
    for quantity, rate in (("forward_kl", 2 * r), ("forward_kl_point", r), ("end_sde", 2 * r), ("end_flow", r)):
        (first, *_) = picked(rows, quantity, setting)
        assert first["expected"] == pytest.approx(-rate)
        assert first["fitted"] == pytest.approx(-rate, rel=0.06)


def test_horizon_s_ends_are_the_laws_of_the_reverse_process() -> None:
    """end_sde and end_flow against the laws themselves, where differences still have digits."""
    process = gaussian_process("ULD", 2.0, 6.0, 0.7)
    start, data = target_law(process), np.diag([4.0, 1.0])[None]
    _, laws = backward_laws(process, np.linspace(1, 0, 5), start)
    found = rt.horizon("ULD", 2.0, 0.7, longest=24.0)
    assert picked(found, "end_sde")[0]["y"] == pytest.approx(scaled_error(laws[-1], data), rel=1e-6)
    assert picked(found, "end_flow")[0]["y"] == pytest.approx(scaled_error(flow_end(process, start), data), rel=1e-6)
    end = forward_covariance(process, np.ones(1))[0]
    assert picked(found, "forward_kl")[0]["y"] == pytest.approx(float(kl(end - start, start)[0]), rel=1e-6)


def test_decay_is_fastest_at_critical_damping(rows: list[Row]) -> None:
    fitted = {}
    for damping in (0.3, 1.0, 2.0):
        setting = f"R {damping:g}, std 2"
        (first, *_) = mine = picked(rows, "kl", setting)
        fitted[damping] = -first["fitted"]
        assert fitted[damping] == pytest.approx(-first["expected"], rel=0.06)
        assert [r["y"] for r in mine] == sorted((r["y"] for r in mine), reverse=True)
        for row in picked(rows, "twisted_slowest", setting):  # the Lyapunov function has no plateau, KL has
            assert row["y"] >= row["expected"] * (1 - 1e-6)
        (slowest,) = picked(rows, "kl_slowest", setting)
        assert slowest["y"] < 0.25 * slowest["expected"]
    assert fitted[1.0] > 1.5 * max(fitted[0.3], fitted[2.0])


def test_score_error_is_as_large_as_said() -> None:
    """The changed gain is off by eps z with E z^2 = 1 under the data's law at every node."""
    process = gaussian_process("CLD", 2.0, 5.0)
    right, wrong = (rt.perturbed(process, 10, e) for e in (0.0, 0.05))
    law = forward_covariance(process, right.times.numpy())[:, 0]
    off = np.stack([(w - r)[:, 0].double().numpy() for w, r in zip(wrong.table.gain, right.table.gain)], -1)
    np.testing.assert_allclose(np.einsum("ni,nij,nj->n", off, law, off), 0.05**2, rtol=1e-3)


def test_score_error(rows: list[Row]) -> None:
    assert picked(rows, "score_w2", "CLD")[0]["fitted"] == pytest.approx(1, abs=0.05)
    assert picked(rows, "score_kl", "CLD")[0]["fitted"] == pytest.approx(2, abs=0.05)
    shares = [r["y"] for r in picked(rows, "score_bound")]
    assert 0.3 < min(shares) < max(shares) < 1


def test_together_is_within_the_sum(rows: list[Row]) -> None:
    (total,) = picked(rows, "all_terms", "CLD")
    parts = [picked(rows, f"term_{n}", "CLD")[0]["y"] for n in ("start", "step", "score")]
    assert min(parts) > 1e-3
    assert total["fitted"] == pytest.approx(total["y"] / sum(parts))
    assert total["fitted"] < 1


def test_adapted(rows: list[Row]) -> None:
    """sqrt(eta) for each A, eta for the law averaged over A's noise."""
    for quantity, exponent in (("eta_stale", 0.5), ("eta_matched", 0.5), ("eta_matched_mean", 1.0)):
        (first, *_, last) = picked(rows, quantity)
        assert first["expected"] == exponent
        assert first["fitted"] == pytest.approx(exponent, abs=0.03)
        assert first["y"] < last["y"]


def test_perturbed_by_nothing_is_the_solver() -> None:
    process = gaussian_process("CLD", 2.0, 5.0)
    start, end = forward_covariance(process, np.array([1.0, 1e-2]))
    law = solver_law(rt.perturbed(process, 200, 0.0), start)
    np.testing.assert_allclose(law, end, rtol=2e-3, atol=2e-3)
