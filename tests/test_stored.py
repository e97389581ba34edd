"""vsmd.stored: a file whose digest is right is not trusted for that; what cannot be a model is one line, at once."""

from __future__ import annotations

import math
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vsmd import files, forward_process, latent, load
from vsmd import model as models
from vsmd.latent import model as latent_models
from vsmd.model import Model
from vsmd.networks.mlp import MLP

Contents = tuple[dict[str, Tensor], dict[str, Any]]


def small() -> Model:
    process = forward_process("VSULD", (2,)).with_moments(torch.zeros(2), torch.ones(2))
    return Model(process, MLP((2,), width=8, depth=2, frequencies=2).eval())


def put(where: str, value: Any) -> Callable[[Contents], None]:
    """Set an entry of the settings, named by its path."""

    def change(contents: Contents) -> None:
        *groups, last = where.split(".")
        table: Any = contents[1]
        for group in groups:
            table = table[group]
        table[last] = value

    return change


def fill(name: str, value: float) -> Callable[[Contents], None]:
    """Set a tensor's first value."""

    def change(contents: Contents) -> None:
        contents[0][name].flatten()[0] = value

    return change


def replace(name: str, value: Tensor) -> Callable[[Contents], None]:
    return lambda contents: contents[0].update({name: value})


CASES: dict[str, tuple[Callable[[Contents], None], str]] = {
    "NaN weights": (fill("network.first.weight", math.nan), r"network\.first\.weight has NaN or inf"),
    "infinite moments": (fill("process.mean", math.inf), r"process\.mean has NaN or inf"),
    "negative size": (put("process.shape", [-1]), r"shape=-1: must be an integer >= 1"),
    "other size": (put("process.shape", [3]), r"mean is \(2,\); must be \(3,\)"),
    "huge size": (put("process.shape", [10**12]), r"must be \(1000000000000,\)"),
    "no gamma": (put("process.gamma", 0), r"gamma=0: must be a finite number > 0"),
    "no damping": (put("process.damping", -0.5), r"damping=-0.5"),
    "negative variance": (fill("process.var", -1.0), r"var=-1"),
    "no stiffness": (fill("process.stiffness", 0.0), r"stiffness=0"),
    "unknown prior": (put("process.prior", "mine"), r"prior='mine'"),
    "late end": (put("t_min", 7.0), r"t_min=7.0"),
    "other precision": (replace("process.mean", torch.zeros(2)), r"process.mean: torch.float32; must be float64"),
    "whole moments": (replace("process.var", torch.ones(2).int()), r"process.var: torch.int32; must be float64"),
    "huge gamma": (put("process.gamma", 1e300), r"gamma=1e\+300: must be a number between 0.001 and 1000"),
    "no history": (put("history", 3), r"history is no list"),
    "no settings": (put("process", 3), r"damaged or foreign"),
    "deep network": (put("network.settings.depth", 10**7), r"depth=10000000"),
    "deeper network": (put("network.settings.depth", 200), r"a larger network than the file holds"),
    "wide network": (put("network.settings.width", 100), r"a larger network than the file holds"),
    "features": (put("network.settings.frequencies", 10**10), r"frequencies=10000000000"),
    "network of another shape": (put("network.settings.shape", [10**6]), r"shape=\[1000000\] of the network"),
    "moments of another shape": (replace("process.var", torch.ones(1).double()), r"var is \(1,\); must be \(2,\)"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_a_model(case: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    contents = models.state(small())
    contents = {k: v.clone() for k, v in contents[0].items()}, contents[1]
    change, message = CASES[case]
    change(contents)
    files.write(path, models.FORMAT, *contents)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(ValueError, match=rf"^path={re.escape(repr(str(path)))}: .*{message}") as error:
        load(path)
    assert "\n" not in str(error.value)
    assert time.perf_counter() - began < 3
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()


def test_a_mixture_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for name, value in (("prior.weights", -0.5), ("prior.scale", 0.0)):
        tensors, info = models.state(small().with_prior("mixture", torch.randn(40, 2), components=2))
        tensors[name].flatten()[0] = value
        files.write(path, models.FORMAT, tensors, info)
        with pytest.raises(ValueError, match="weights must be >= 0 and scales > 0"):
            load(path)
        tensors[name] = tensors[name].float()
        files.write(path, models.FORMAT, tensors, info)
        with pytest.raises(ValueError, match=rf"{name}: torch.float32; must be float64"):
            load(path)


def test_all_priors_and_networks_are_still_read(tmp_path: Path) -> None:
    """The bounds refuse nothing that is written here."""
    from repro.studies import mixer
    from vsmd import networks

    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    for name in ("moments", "mixture", "empirical"):
        path = small().with_prior(name, points, components=2).save(tmp_path / "model.safetensors")
        assert load(path).process.prior == name
    cases: list[tuple[str, dict[str, Any]]] = [
        ("conditional", {"features": 2}), (mixer.Mixer.name, {}), ("unet", {"shape": [2, 8, 8], "width": 8})
    ]  # fmt: skip
    for name, settings in cases:
        network = networks.build(name, **{"shape": [2]} | settings)
        process = forward_process("CLD", tuple(settings.get("shape", [2])))
        process = process.with_moments(torch.zeros(process.shape), torch.ones(process.shape))
        again = load(Model(process, network.eval()).save(tmp_path / "model.safetensors"))
        assert all(torch.equal(p, q) for p, q in zip(again.network.parameters(), network.parameters()))


def test_layers_made_elsewhere_are_not_counted(tmp_path: Path) -> None:
    path = small().save(tmp_path / "model.safetensors")
    load(path)
    assert nn.Linear(100, 100).weight.numel() == 10_000  # the bound ends with the reading


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("autoencoder", [3]), "damaged or foreign"),
        (put("autoencoder", {"name": "vector", "settings": 3}), "damaged or foreign"),
        (put("autoencoder.settings.width", 10**7), "width=10000000"),
        (put("scale", math.nan), "scale=nan"),
        (put("shape", None), "damaged or foreign"),
        (put("shape", [4]), r"shape=\[3\] of the network; must be \[4\]"),
        (put("bridge", 3), "damaged or foreign"),
        (replace("bridge.process.var", torch.ones(2).int()), "process.var: torch.int32; must be float64"),
    ],
)
def test_what_cannot_be_a_latent_model(change: Callable[[Contents], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = latent_models.LatentModel(latent.VectorAutoencoder((3,), 2, width=4), small(), 1.0, (3,))
    contents = files.read(model.save(path), latent_models.FORMAT)
    assert latent.load(path).shape == (3,)
    change(contents)
    files.write(path, latent_models.FORMAT, *contents)
    with pytest.raises(ValueError, match=rf"^path={re.escape(repr(str(path)))}: .*{message}"):
        latent.load(path)
