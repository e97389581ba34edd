"""Calls that train for a step or two, sample and score: solvers x priors x methods x bases x units."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

import vsmd
from torture import arguments as a
from torture import seeds
from torture.call_algebra import PROCESS
from torture.calls import Call, Kind
from vsmd import latent
from vsmd.data.calendars import as_period
from vsmd.forecasting import VSMDEstimator
from vsmd.latent.autoencoder import VectorAutoencoder
from vsmd.training import Compute

SHAPE = st.sampled_from([(1,), (2,), (3,)])
TRAINING: dict[str, Any] = {
    "units": a.units, "batch_size": st.integers(1, 40), "learning_rate": a.rate, "ema": st.floats(0, 1),
    "clip": st.floats(0, 2),
    "schedule": st.sampled_from(["cosine", "constant", "step"]), "weighting": st.sampled_from(["score", "unit",
    "backbone"]),
    "seed": st.integers(-1, 99), "compute": st.sampled_from([None, Compute(accumulate=2)]),
    "context_dropout": st.sampled_from([0.0, 0.1]),
}  # fmt: skip
SAMPLING: dict[str, Any] = {
    "solver": a.solver, "steps": st.integers(1, 12), "seed": st.integers(0, 9), "grid_power": st.floats(0.5, 3),
    "denoise": st.sampled_from([None, True, False]), "guidance": st.sampled_from([1.0, 0.0, 2.0]),
    "batch_size": a.count,
    "trajectory": st.booleans(), "seeds": st.sampled_from([None, (0, 1, 2), (1,), range(5)]),
    "context": st.sampled_from([None, torch.tensor(1), torch.zeros(3, dtype=torch.int64), torch.ones(3, 2),
    torch.tensor(9)]),
}  # fmt: skip
SMALL: dict[str, Any] = {
    "adaptation": seeds.ADAPTATION,
    "mixture": vsmd.couplings.MixtureFit(2, steps=3, batch_size=16),
}


def network(shape: tuple[int, ...], classes: int = 0) -> torch.nn.Module:
    """One that costs next to nothing."""
    size = {"width": 4, "depth": 1, "frequencies": 2}
    return vsmd.networks.build("conditional", shape=shape, classes=classes, **size)


@st.composite
def fits(draw: st.DrawFn) -> Call:
    """A process, a fit of a step or two, and samples or densities of the model."""
    shape = draw(SHAPE)
    process = draw(a.chosen({"method": a.method, **PROCESS}, ("method",), 10))
    training = draw(a.chosen(TRAINING, wrong=6))
    data = draw(a.points(shape))
    labels = draw(st.sampled_from([None, None, None, torch.arange(len(data)) % 2, torch.zeros(len(data))]))
    sampling = draw(a.chosen({k: v for k, v in SAMPLING.items() if k in ("solver", "steps", "denoise")}))
    ask, steps = draw(st.sampled_from(["sample", "log_prob", "saved", "with_prior"])), draw(st.sampled_from([1, 2, 3]))
    text = (
        f"m = fit({a.words('forward_process', {'shape': shape, **process})}, {a.told(data)}, labels={a.told(labels)}, "
        f"{steps=}, {training}); {ask} {sampling}"
    )

    def do() -> Any:
        made = vsmd.forward_process(shape=shape, **process)
        classes = 2 if labels is not None else 0
        both = data if labels is None else (data, labels)
        options = {"batch_size": 8, **training}
        model = vsmd.fit(made, both, steps=steps, network=network(shape, classes), **SMALL, **options)
        if ask == "log_prob":
            return model.log_prob(data[:3], context=None if labels is None else labels[:3])
        if ask == "with_prior":
            model = model.with_prior("mixture", data, components=2)
        context = None if labels is None else labels[:1].repeat(4)
        return model.sample(4, context=context, **{"steps": 20, **sampling})

    return Call(text[:900], do)


@cache
def model(method: str, conditional: bool) -> vsmd.Model:
    """One to sample from."""
    data = seeds.points(64, 2)
    labels = torch.arange(64) % 3
    process = vsmd.forward_process(method, (2,), beta=4.0)
    options: dict[str, Any] = {"context_dropout": 0.1} if conditional else {}
    both = (data, labels) if conditional else data
    net = network((2,), 3 if conditional else 0)
    return vsmd.fit(process, both, steps=3, batch_size=8, network=net, adaptation=seeds.ADAPTATION, **options)


@st.composite
def samples(draw: st.DrawFn) -> Call:
    """Samples of a trained model by any solver, with odd arguments."""
    method, conditional = draw(a.method), draw(st.booleans())
    fields = draw(a.chosen({"n": st.integers(1, 9), **SAMPLING}, (), 3))
    fields = {k: v for k, v in fields.items() if v is not None or k in ("denoise", "context", "seeds")}
    if isinstance(fields.get("n"), int) and fields["n"] > 10**9:  # more than any memory holds is no finding
        fields["n"] = 0
    text = f"{a.words('sample', fields)} of {method}{' with labels' * conditional}"
    return Call(text, lambda: model(method, conditional).sample(**fields))


@st.composite
def densities(draw: st.DrawFn) -> Call:
    """Densities of a trained model at points near and far."""
    method, far = draw(a.method), draw(st.sampled_from([0.0, 1.0, 10.0, 1e3]))
    fields = draw(
        a.chosen({"velocities": st.integers(1, 2), "rtol": st.sampled_from([1e-4, 1e-2]), "seed": st.integers(0, 9)})
    )
    x: Any = draw(
        st.sampled_from([torch.ones(2, 2) * far, torch.ones(1, 2).double() * far, torch.ones(2, 3), np.ones((2, 2))])
    )
    text = f"{a.words('log_prob', fields)} of {method} at {a.told(x)}"
    return Call(text, lambda: model(method, False).log_prob(x, **fields))


@st.composite
def forecasts(draw: st.DrawFn) -> Call:
    """A forecaster trained for a step, and its forecast."""
    freq = draw(st.sampled_from(["B", "h", "D", "MS"]))
    options = draw(a.chosen({
        "method": a.method, "beta": st.floats(0.5, 9), "basis": st.sampled_from(["coordinates", "principal"]),
        "variational_score": st.sampled_from(["zero", "adaptive", "steered"]), "location": st.sampled_from(["last",
        "season"]),
        "context": st.sampled_from(["none", "scales", ("scales", "lags", "levels")]), "lags": st.integers(1, 3),
        "solver": a.solver, "sampling_steps": st.integers(1, 5), "patience": st.integers(1, 3),
        "integer": st.booleans(),
        "drift": st.booleans(), "rank": st.integers(1, 2), "factors": st.integers(0, 1), "bf16": st.booleans(),
    }, (), 6))  # fmt: skip
    steps, scale = draw(st.sampled_from([5, 90, 200])), draw(st.sampled_from([1.0, 1e-5, 1e6]))
    values = np.random.default_rng(0).normal(size=(2, steps)).cumsum(1) * scale
    for i in draw(st.lists(st.integers(0, 1), max_size=2)):
        values[i, draw(st.integers(0, steps - 1)) :][:20] = draw(st.sampled_from([math.nan, 1.0, 1e12, math.inf]))

    def do() -> Any:
        item = {"start": as_period("2024-01-01", freq), "target": values}
        small = {
            "width": 4,
            "depth": 1,
            "steps": 2,
            "batch_size": 8,
            "scale_window": 10,
            "adaptation": seeds.ADAPTATION,
        }
        predictor = VSMDEstimator(3, freq, **{**small, **options}).train([item])
        return [f.samples for f in predictor.predict([item], num_samples=4)]

    return Call(f"{a.words('VSMDEstimator', options)} at {freq} of {steps} steps, scale {scale:g}"[:900], do)


@st.composite
def latents(draw: st.DrawFn) -> Call:
    """An autoencoder and a bridge, a step each."""
    data = draw(a.points((3,)))
    fields = draw(a.chosen({"bridge": st.sampled_from(["LSBDM", "CLD", "VSULD", "SGM"]), "stop": st.floats(0.5, 0.9999),
                            "seed": st.integers(0, 9)}, (), 4))  # fmt: skip
    size = draw(a.chosen({"latent": st.integers(1, 4), "width": st.integers(1, 9)}, ("latent", "width"), 6))
    noise = draw(st.sampled_from([0.0, 0.1, -1.0]))

    def do() -> Any:
        codec = latent.pretrain(VectorAutoencoder((3,), **size), data, steps=1, batch_size=8, code_noise=noise)
        fitted = latent.fit(data, autoencoder=codec, steps=2, batch_size=8, adaptation=seeds.ADAPTATION, **fields)
        return fitted.sample(3), fitted.reconstruct(data[:2])

    return Call(f"{a.words('latent.fit', fields)} codec {size} noise={noise} of {a.told(data)}"[:900], do)


@st.composite
def checks(draw: st.DrawFn) -> Call:
    """`vsmd.check` of a model on data."""
    train, test = draw(a.points((2,))), draw(a.points((2,)))
    fields = draw(
        a.chosen({"n": st.integers(10, 60), "seed": st.integers(0, 9), "steps": st.integers(5, 20)}, ("n",), 4)
    )
    return Call(
        f"{a.words('vsmd.check', fields)} of {a.told(train)}, {a.told(test)}",
        lambda: vsmd.check(model("CLD", False), (train, test), **fields).rows,
    )


KINDS = {
    "samples": Kind(samples(), 1_200, "samples of trained models by any solver"),
    "fits": Kind(fits(), 700, "fits of a step or two, then samples, densities, priors"),
    "densities": Kind(densities(), 100, "densities of trained models"),
    "forecasts": Kind(forecasts(), 150, "forecasters, trained and asked"),
    "latents": Kind(latents(), 60, "autoencoders and bridges"),
    "checks": Kind(checks(), 25, "vsmd.check"),
}
