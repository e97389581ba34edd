"""vsmd.images.configs: hyper-parameters as one typed table, read back as written, refused in one line."""

from __future__ import annotations

import typing
from typing import Any

import pytest
import torch

from vsmd.data.images import SETS
from vsmd.images import CONFIGS, Config
from vsmd.images import config as named
from vsmd.images.configs import Decayed, parser


@pytest.mark.parametrize("name", CONFIGS)
def test_written_and_read_back(name: str) -> None:
    assert Config.from_text(named(name).text) == named(name)
    assert named(name).data in SETS


def test_the_paper_s_table_2() -> None:
    paper = named("cifar10")
    assert (paper.learning_rate, paper.schedule, paper.ema, paper.batch_size) == (3e-4, "step", 0.9999, 256)
    assert (paper.beta, paper.damping, paper.solver, paper.evaluations) == (10.0, 0.9, "heun", 250)
    process = paper.process((3, 32, 32))
    assert (process.method, process.damping, process.variational_score) == ("VSULD", 0.9, "adaptive")


SHAPES = {"digits": (1, 8, 8), "mnist5k": (1, 28, 28), "cifar10-small": (3, 32, 32)}


@pytest.mark.parametrize("name", SHAPES)
def test_small_networks_for_processors(name: str) -> None:
    assert sum(p.numel() for p in named(name).build(SHAPES[name], 0).parameters()) <= 2e6


def test_the_medium_one_is_the_paper_s_with_half_the_channels() -> None:
    network, paper = (named(name).build((3, 32, 32), 0) for name in ("cifar10-medium", "cifar10"))
    sizes = [sum(p.numel() for p in n.parameters()) for n in (network, paper)]
    assert sizes == [11_058_115, 57_045_507]
    assert named("cifar10-medium").compute == named("cifar10").compute


def test_first_weights_are_a_function_of_the_seed() -> None:
    one, two, other = (named("digits").with_overrides({"seed": s}).build((1, 8, 8), 0) for s in (1, 1, 2))
    weights = [torch.cat([p.flatten() for p in n.parameters()]) for n in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_overrides() -> None:
    changed = named("digits").with_overrides({"method": "CLD", "network": {"width": 16}})
    assert changed.process((1, 8, 8)).damping == 1.0  # the configuration's is of ULD and VSULD
    assert changed.network == named("digits").network | {"width": 16}
    assert changed.steps == named("digits").steps


def test_step_decay_and_freezing() -> None:
    how = Config(rounds=4, steps=100, eta=0.5, decay=0.9, freeze=0.6).adaptation
    assert isinstance(how, Decayed)
    assert [how.step_size(k) for k in range(3)] == pytest.approx([0.5, 0.45, 0.405])
    assert how.schedule(100)[-1] == 60
    assert len(how.schedule(100)) == 4


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("steps", "12", 12),
        ("beta", "4.5", 4.5),
        ("flips", "true", True),
        ("flips", "False", False),
        ("size", "none", None),
        ("size", "32", 32),
        ("variational_score", "steered", "steered"),
        ("network", '{"width": 16}', {"width": 16}),
        ("data", "none", "none"),
    ],
)
def test_values_from_a_command_line(field: str, text: str, value: Any) -> None:
    assert parser(typing.get_type_hints(Config)[field])(text) == value


@pytest.mark.parametrize(("field", "text"), [("steps", "1.5"), ("flips", "yes"), ("network", "[1]"), ("network", "{")])
def test_bad_values_from_a_command_line(field: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parser(typing.get_type_hints(Config)[field])(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "VSKLD"}, r"^method='VSKLD': .*did you mean"),
        ({"steps": 0}, r"^steps=0: must be an integer >= 1$"),
        ({"schedule": "linear"}, r"^schedule='linear'"),
        ({"variational_score": "fixed"}, r"^variational_score='fixed'"),
        ({"precision": "half"}, r"^precision='half'"),
        ({"solver": "aboba", "method": "SGM"}, r"^solver='aboba': SGM has no velocity"),
        ({"evaluations": 2}, r"^evaluations=2: must be at least 3"),
        ({"held_out": -1}, r"^held_out=-1"),
        ({"freeze": 1.5}, r"^freeze=1.5"),
        ({"learning_rate": 0.0}, r"^learning_rate=0.0"),
    ],
)
def test_bad_configurations(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Config(**fields)
    assert "\n" not in str(error.value)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"^config='cifar': must be one of .*did you mean 'cifar10'"):
        named("cifar")
    with pytest.raises(ValueError, match=r"^config: .*widht"):
        Config.from_text('{"widht": 3}')
