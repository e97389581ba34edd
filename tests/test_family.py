"""vsmd.family: six methods by name, their defaults, and one clear line for every argument that is not allowed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from vsmd import forward_process
from vsmd.methods import FAMILY, METHODS
from vsmd.schedules import BetaSchedule

# method, k, variational_score, R: DESIGN's table
TABLE = [
    ("SGM", 1, "zero", None),
    ("VSDM", 1, "adaptive", None),
    ("CLD", 2, "zero", 1.0),
    ("ULD", 2, "zero", 0.7),
    ("VSCLD", 2, "adaptive", 1.0),
    ("VSULD", 2, "adaptive", 0.7),
]


def test_six_names() -> None:
    assert list(FAMILY) == [name for name, *_ in TABLE]
    assert set(METHODS) == {*FAMILY, "LSBDM"}


@pytest.mark.parametrize(("method", "k", "mode", "damping"), TABLE)
def test_defaults(method: str, k: int, mode: str, damping: float | None) -> None:
    process = forward_process(method, (2, 3))
    assert (process.k, process.variational_score, process.damping) == (k, mode, damping)
    assert (process.method, process.shape, process.dim, process.pieces) == (method, (2, 3), 6, 1)
    assert process.schedule == BetaSchedule(5.0, 5.0)
    assert (process.gamma, process.prior, process.basis.name) == (2.0, "moments", "coordinates")
    assert process.score_matching == "hybrid"
    assert torch.equal(process.a_x, torch.zeros(1, 2, 3, dtype=torch.float64))
    assert (process.a_v is None) == (k == 1)
    if k == 2:
        assert damping is not None
        assert process.a_v is not None
        np.testing.assert_allclose(process.a_v.numpy(), 0.5 - math.sqrt(damping) / 2, rtol=1e-14, atol=1e-15)


def test_the_public_example() -> None:
    process = forward_process(
        "VSULD",
        shape=(2,),
        beta=5.0,
        gamma=2.0,
        damping=0.7,
        variational_score="adaptive",
        prior="moments",
        basis="coordinates",
        score_matching="hybrid",
    )
    assert process.settings == forward_process("VSULD", (2,)).settings


def test_values_are_plain() -> None:
    """Numbers of other libraries and lists come out as float, int and tuple."""
    process = forward_process("ULD", [np.int64(2)], beta=np.float32(5), gamma=np.float64(2), damping=np.float64(0.5))  # type: ignore[arg-type]
    assert process.shape == (2,)
    for value in (process.schedule.b_min, process.gamma, process.damping, process.shape[0]):
        assert type(value) in {float, int}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"method": "VSUDL"}, r"^method='VSUDL': must be one of 'SGM', .*\(did you mean 'VSULD'\?\)$"),
    ({"method": "cld"}, r"^method='cld': .*\(did you mean 'CLD'\?\)$"),
    ({"method": None}, r"^method=None: must be one of"),
    ({"beta": 0.0}, r"^beta=0.0: must be a finite number > 0$"),
    ({"beta": -1}, r"^beta=-1: must be a finite number > 0$"),
    ({"beta": math.nan}, r"^beta=nan: must be a finite number > 0$"),
    ({"beta": math.inf}, r"^beta=inf: must be a finite number > 0$"),
    ({"beta": True}, r"^beta=True: must be a finite number > 0$"),
    ({"beta": "5"}, r"^beta='5': must be a finite number > 0$"),
    ({"gamma": 0}, r"^gamma=0: must be a finite number > 0$"),
    ({"gamma": math.nan}, r"^gamma=nan: must be"),
    ({"gamma": 1e300}, r"^gamma=1e\+300: must be a number between 0.001 and 1000$"),
    ({"gamma": 1e-300}, r"^gamma=1e-300: must be a number between"),
    ({"beta": 1e300}, r"^beta=1e\+300: must be a number between 1e-06 and 1e\+06$"),
    ({"beta": 1e-300}, r"^beta=1e-300: must be a number between"),
    ({"gamma": torch.ones(2, 2)}, r"^gamma=tensor\(\[\[1\., 1\.\], \[1\., 1\.\]\]\): must be"),
    ({"damping": torch.ones(2, 2)}, r"^damping=tensor\(\[\[1.*must be"),
    ({"shape": torch.ones(2, 2)}, r"^shape=tensor\(\[\[1.*must be"),
    ({"method": "SGM", "damping": torch.ones(2, 2)}, r"^damping=tensor.*SGM has no velocity"),
    ({"basis": torch.eye(2), "variational_score": -torch.eye(2)}, r"^basis=tensor.*a full A has its own eigenvectors"),
    ({"damping": 0.0}, r"^damping=0.0: must be a finite number > 0$"),
    ({"damping": -0.7}, r"^damping=-0.7: must be"),
    ({"damping": math.nan}, r"^damping=nan: must be"),
    ({"damping": True}, r"^damping=True: must be"),
    ({"damping": 1.0}, r"^damping=1.0: VSULD is underdamped, 0 < R < 1; use VSCLD for R = 1$"),
    ({"method": "ULD", "damping": 1.5}, r"^damping=1.5: ULD is underdamped, 0 < R < 1; use CLD for R = 1$"),
    ({"method": "CLD", "damping": 0.7}, r"^damping=0.7: CLD is critically damped \(R = 1\); use ULD$"),
    ({"method": "VSCLD", "damping": 2.0}, r"^damping=2.0: VSCLD is critically damped"),
    ({"method": "SGM", "damping": 1.0}, r"^damping=1.0: SGM has no velocity; leave damping out$"),
    ({"shape": ()}, r"^shape=\(\): must be a non-empty tuple of integers >= 1$"),
    ({"shape": 2}, r"^shape=2: must be a non-empty tuple"),
    ({"shape": "2"}, r"^shape='2': must be a non-empty tuple"),
    ({"shape": (2, 0)}, r"^shape=0: must be an integer >= 1$"),
    ({"shape": (2.0,)}, r"^shape=2.0: must be an integer >= 1$"),
    ({"shape": (True,)}, r"^shape=True: must be an integer >= 1$"),
    ({"prior": "normal"}, r"^prior='normal': must be one of"),
    ({"basis": "principl"}, r"^basis='principl': .*did you mean 'principal'"),
    ({"score_matching": "hybird"}, r"^score_matching='hybird': .*did you mean 'hybrid'"),
    ({"variational_score": "adaptve"}, r"^variational_score='adaptve': .*did you mean 'adaptive'"),
    ({"variational_score": "fixed"}, r"^variational_score='fixed': must be one of"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[str(a) for a, _ in BAD])
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        forward_process(**{"method": "VSULD", "shape": (2,)} | arguments)
    assert "\n" not in str(error.value)


# s = 1 - 4 A at gamma = 2 must be positive, and D = 1 - 2 A for the overdamped ones
BAD_SCORES: list[tuple[str, Any, str]] = [
    ("VSULD", 0.25, r"stiffness 1 - 4 A is 0 at its least, must be > 0 \(A < 0.25\)$"),
    ("CLD", 1.0, r"stiffness 1 - 4 A is -3 at its least"),
    ("SGM", 0.5, r"stiffness 1 - 2 A is 0 at its least, must be > 0 \(A < 0.5\)$"),
    ("VSULD", torch.tensor([0.1, 0.3]), r"stiffness 1 - 4 A is -0.2 at its least"),
    ("VSULD", torch.tensor([[0.2, 0.1], [0.1, 0.2]]), r"stiffness 1 - 4 A is -0.2 at its least"),
    ("VSULD", torch.tensor([[0.0, 0.1], [0.0, 0.0]]), r"a full A must be symmetric$"),
    ("VSULD", torch.tensor([0.0, math.nan]), r"A must be finite"),
    ("VSULD", -math.inf, r"A must be finite"),
    ("VSULD", -1e300, r"stiffness 1 - 4 A is 4e\+300, at most 1e\+100"),
    ("VSULD", torch.zeros(3), r"A has shape \(3,\), must be a number, \(2,\) or \(2, 2\)$"),
    ("VSULD", torch.zeros(3, 3), r"A has shape \(3, 3\), must be a number, \(2,\) or \(2, 2\)$"),
]


@pytest.mark.parametrize(("method", "a", "message"), BAD_SCORES)
def test_bad_scores_by_hand(method: str, a: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        forward_process(method, (2,), variational_score=a)
    assert str(error.value).startswith("variational_score")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["VSULD", "VSDM"])
@pytest.mark.parametrize("a", [0.1, -2, [0.0, -1.0], np.array([0.0, -1.0]), torch.tensor([0.2, -3.0])])
def test_scores_by_hand(method: str, a: Any) -> None:
    process = forward_process(method, (2,), variational_score=a)
    assert process.variational_score == "fixed"
    want = torch.as_tensor(a, dtype=torch.float64).expand(2)
    torch.testing.assert_close(process.a_x, want[None], rtol=1e-12, atol=1e-15)
    if process.k == 2:
        assert process.damping is not None
        torch.testing.assert_close(process.friction, (process.damping * process.stiffness).sqrt(), rtol=1e-12, atol=0)


def test_one_dimension() -> None:
    """d = 1: a number, a vector and a 1 x 1 matrix are the same A."""
    laws = [
        forward_process("CLD", (1,), variational_score=a).transition(0.5).cov
        for a in (-0.5, torch.tensor([-0.5]), torch.tensor([[-0.5]]))
    ]
    for law in laws[1:]:
        torch.testing.assert_close(law, laws[0], rtol=1e-13, atol=0)


@pytest.mark.parametrize("method", ["VSULD", "VSCLD", "VSDM"])
@pytest.mark.parametrize(("beta", "gamma"), [(1e-6, 1e-3), (1e-6, 1e3), (1e6, 1e-3), (1e6, 1e3)])
def test_laws_at_the_bounds_are_finite(method: str, beta: float, gamma: float) -> None:
    process = forward_process(method, (2,), beta=beta, gamma=gamma).with_moments(torch.zeros(2), torch.ones(2))
    assert all(bool(law.isfinite().all()) for law in process.transition(torch.tensor([1e-3, 0.5, 1.0])))
    assert bool(process.prior_law().sample(3, torch.Generator().manual_seed(0)).isfinite().all())
