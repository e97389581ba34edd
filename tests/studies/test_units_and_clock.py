"""repro.studies.units_and_clock: a constant score is a change of units and clock, direction by direction."""

from __future__ import annotations

import pytest
import torch

from repro.studies.units_and_clock import units_and_clock
from vsmd.family import forward_process

TIMES = [1e-3, 0.01, 0.1, 0.5, 1.0]
STIFFNESS = torch.tensor([0.04, 1.0, 7.0, 300.0], dtype=torch.float64)


@pytest.mark.parametrize(("method", "plain"), [("VSDM", "SGM"), ("VSCLD", "CLD"), ("VSULD", "ULD")])
def test_a_constant_score_is_units_and_clock(method: str, plain: str) -> None:
    """Every A_x that leaves a stiffness > 0, at every time: the kernel is the plain method's, rescaled, at beta'."""
    per_a = 1.0 if method == "VSDM" else 2.0
    process = forward_process(method, (4,), beta=3.0, variational_score=(1 - STIFFNESS) / (2 * per_a))
    mean, noise = units_and_clock(process, forward_process(plain, (1,), beta=3.0), TIMES)
    assert mean < 1e-11
    assert noise < 1e-9


def test_only_with_the_tied_friction() -> None:
    """A process of another damping is no such change: the check can fail."""
    process = forward_process("VSULD", (4,), beta=3.0, damping=0.5, variational_score=(1 - STIFFNESS) / 4)
    mean, noise = units_and_clock(process, forward_process("ULD", (1,), beta=3.0, damping=0.7), TIMES)
    assert min(mean, noise) > 1e-2


def test_the_marginal_start_is_not_the_same() -> None:
    """What is left over: v_0 ~ N(0, 1) has variance sqrt(s) in the new units, so Sigma_t differs early on."""
    s = STIFFNESS[2:3]
    process = forward_process("VSCLD", (1,), beta=3.0, variational_score=(1 - s) / 4)
    plain = forward_process("CLD", (1,), beta=3.0 * float(s.sqrt()))
    early = [p.transition(0.01).cov[0, 1, 1] * u for p, u in ((process, s.item() ** 0.5), (plain, 1.0))]
    assert float(early[0] / early[1]) == pytest.approx(float(s.sqrt()), rel=0.2)
