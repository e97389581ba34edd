"""vsmd.images.configs: hyper-parameters as one typed table, read back as written, refused in one line."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from vsmd.data.images import SETS
from vsmd.images import CONFIGS, Config
from vsmd.images import config as named
from vsmd.images.configs import FIELDS, Decayed


@pytest.mark.parametrize("name", CONFIGS)
def test_written_and_read_back(name: str) -> None:
    assert Config.from_text(named(name).text) == named(name)
    assert named(name).data.images in SETS


def test_the_paper_s_table_2() -> None:
    paper = named("cifar10")
    fitting = [paper.fitting[name] for name in ("learning_rate", "schedule", "ema", "batch_size")]
    assert fitting == [3e-4, "step", 0.9999, 256]
    assert (paper.process.beta, paper.process.damping) == (10.0, 0.9)
    assert (paper.sampling.solver, paper.sampling.evaluations) == ("heun", 250)
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
    assert changed.network == dataclasses.replace(named("digits").network, width=16)
    assert changed.training == named("digits").training
    dotted = {"process.method": "CLD", "network.width": 16}
    assert named("digits").with_overrides(dotted) == changed
    assert named("digits").with_overrides({"method": "CLD", "width": 16}) == changed
    assert changed.with_overrides({}) == changed


def test_every_field_has_one_short_name() -> None:
    """A field of the same name in two groups would hide one of them from `with_overrides`."""
    groups = [dataclasses.fields(getattr(Config(), f.name)) for f in dataclasses.fields(Config) if f.name != "seed"]
    names = [f.name for group in groups for f in group] + ["seed"]
    assert sorted(names) == sorted(name for name in FIELDS if "." not in name)


def test_step_decay_and_freezing() -> None:
    adaptation = Config().with_overrides({"rounds": 4, "eta": 0.5, "decay": 0.9, "freeze": 0.6}).adaptation()
    assert isinstance(adaptation, Decayed)
    assert [adaptation.step_size(k) for k in range(3)] == pytest.approx([0.5, 0.45, 0.405])
    assert adaptation.schedule(100)[-1] == 60
    assert len(adaptation.schedule(100)) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "VSKLD"}, r"^method='VSKLD': .*did you mean"),
        ({"steps": 0}, r"^steps=0: must be an integer >= 1$"),
        ({"schedule": "linear"}, r"^schedule='linear'"),
        ({"variational_score": "fixed"}, r"^variational_score='fixed'"),
        ({"precision": "half"}, r"^precision='half'"),
        ({"solver": "aboba", "method": "SGM"}, r"^solver='aboba': SGM has no velocity"),
        ({"evaluations": 1}, r"^evaluations=1: must be at least 2"),
        ({"held_out": -1}, r"^held_out=-1"),
        ({"freeze": 1.5}, r"^freeze=1.5"),
        ({"learning_rate": 0.0}, r"^learning_rate=0.0"),
        ({"grid_power": 0.0}, r"^grid_power=0.0"),
        # types, in every group
        ({"flips": "no"}, r"^flips='no': must be True or False$"),
        ({"size": 8.5}, r"^size=8.5: must be int or None$"),
        ({"conditional": 1}, r"^conditional=1: must be True or False$"),
        ({"damping": "R"}, r"^damping='R': must be float$"),
        ({"width": True}, r"^width=True: must be int$"),
        ({"multipliers": 3}, r"^multipliers=3: must be tuple\[int, ...\]$"),
        ({"attention": [8, 4.0]}, r"^attention=\(8, 4.0\): must be tuple\[int, ...\]$"),
        ({"clip": None}, r"^clip=None: must be float$"),
        ({"compile": "yes"}, r"^compile='yes': must be True or False$"),
        ({"grid": 3.5}, r"^grid=3.5: must be an integer >= 0$"),
        ({"denoise": "false"}, r"^denoise='false': must be True or False$"),
        ({"seed": "0"}, r"^seed='0': must be an integer >= 0$"),
    ],
)
def test_bad_configurations(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Config().with_overrides(fields)
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_numbers() -> None:
    assert Config().with_overrides({"learning_rate": np.float64(1e-3)}).training.learning_rate == 1e-3


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"^config='cifar': must be one of .*did you mean 'cifar10'"):
        named("cifar")
    with pytest.raises(ValueError, match=r"^field='widht': must be one of .*did you mean 'width'"):
        Config.from_text('{"widht": 3}')
    with pytest.raises(ValueError, match=r"^field='network.widht': must be one of .*did you mean 'network.width'"):
        Config.from_text('{"network": {"widht": 3}}')
    for text in ("[1]", "{", "[" * 10**5, '"' + "x" * 10**5):
        with pytest.raises(ValueError, match=r"^config=[^\n]{,84}: must be a JSON object \([^\n]{,100}\)$"):
            Config.from_text(text)
    with pytest.raises(ValueError, match=r"^field='method.x': must be one of [^\n]{,500}$"):
        Config().with_overrides({"method": {"x": 1}})
