"""Plans of runs: what they mean, and what is refused before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from repro.studies import highdim, plans, toys
from repro.studies import images as image_runs
from repro.studies.plans import Draw
from vsmd.samplers import SOLVERS

LINE: dict[str, Any] = {"prior": "mixture", "solver": "heun", "evaluations": [4, 6]}


def test_draws_in_order() -> None:
    plan = [LINE, {"prior": "gaussian", "solver": "exponential", "evaluations": [5], "denoise": True}]
    draws = plans.draws_of(plan, SOLVERS, priors=True)
    assert draws == [Draw("heun", 4, "mixture"), Draw("heun", 6, "mixture"), Draw("exponential", 5, "gaussian", True)]
    assert [draw.name for draw in draws] == ["heun", "heun", "exponential+denoise"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prio": "mixture"}, r"plan\[1\]: field='prio': must be one of .*did you mean 'prior'"),
        ({"prior": "mixtur"}, r"plan\[1\]: prior='mixtur': .*did you mean 'mixture'"),
        ({"solver": "hein"}, r"plan\[1\]: solver='hein': .*did you mean 'heun'"),
        ({"evaluations": 4}, r"plan\[1\]: evaluations=4: must be a list"),
        ({"evaluations": []}, r"plan\[1\]: evaluations=\[\]: must be a list"),
        ({"evaluations": [4, 0]}, r"plan\[1\]: evaluations=0: must be an integer >= 1"),
        ({"denoise": "yes"}, r"plan\[1\]: denoise='yes': must be true or false"),
    ],
)
def test_damaged_lines_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        plans.draws_of([LINE, LINE | change], SOLVERS, priors=True)
    assert "\n" not in str(caught.value)


def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"plan\[0\]=\['heun', 4\]: must be a dict of prior, solver, evaluations"):
        plans.draws_of([["heun", 4]], SOLVERS, priors=True)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"plan=\[\]"):
        plans.draws_of([], SOLVERS)
    with pytest.raises(ValueError, match="field='prior'"):  # where nothing starts from a prior
        plans.draws_of([LINE], SOLVERS)
    with pytest.raises(ValueError, match="prior=None"):
        plans.draws_of([{"solver": "heun", "evaluations": [4]}], SOLVERS, priors=True)
    with pytest.raises(ValueError, match="field='denoise'"):
        plans.draws_of([{"solver": "heun", "evaluations": [4], "denoise": True}], SOLVERS, options=())
    with pytest.raises(ValueError, match="field='sigma_max'"):
        plans.draws_of([LINE | {"sigma_max": 80}], SOLVERS, priors=True)
    with pytest.raises(ValueError, match=r"plan\[0\]: sigma_max=-1"):
        plans.draws_of([{"solver": "heun", "evaluations": [4], "sigma_max": -1}], SOLVERS, options=("sigma_max",))


def test_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsmd.fit", lambda *_, **__: pytest.fail("was trained"))
    monkeypatch.setattr(image_runs, "fit", lambda *_, **__: pytest.fail("was trained"))
    wrong = [{"prior": "gaussian", "solver": "heun", "evaluation": [4]}]
    with pytest.raises(ValueError, match="did you mean 'evaluations'"):
        toys.run("spiral-8Y", "CLD", 5, 1, "constant", 0, wrong)
    with pytest.raises(ValueError, match="did you mean 'evaluations'"):
        highdim.run("CLD", 0, 5, wrong)
    with pytest.raises(ValueError, match="did you mean 'evaluations'"):
        image_runs.run("digits", "CLD", 0, [{"solver": "heun", "evaluation": [4]}], 6)
    with pytest.raises(ValueError, match=r"adaptation: field='etta': .*did you mean 'eta'"):
        toys.run("spiral-8Y", "CLD", 5, 1, "constant", 0, [LINE], adaptation={"etta": 0.3})
    with pytest.raises(ValueError, match=r"basis='principle': .*did you mean 'principal'"):
        toys.run("spiral-8Y", "CLD", 5, 1, "constant", 0, [LINE], basis="principle")
