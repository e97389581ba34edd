"""Estimator and predictor: GluonTS's face, determinism, files, the law of what is sampled, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gluonts.dataset.common import ListDataset
from gluonts.evaluation import make_evaluation_predictions
from gluonts.model.predictor import Predictor

from repro.studies.recurrent import Recurrent
from repro.studies.windows import Windows
from vsmd.adaptation import Adaptation
from vsmd.data.calendars import as_period
from vsmd.forecasting import VSMDEstimator, VSMDPredictor
from vsmd.forecasting.representation import REPRESENTATIONS
from vsmd.methods import METHODS

TINY: dict[str, Any] = {
    "steps": 5, "batch_size": 32, "width": 16, "depth": 2, "scale_window": 10, "sampling_steps": 4,
    "adaptation": Adaptation(rounds=2, paths=50, nodes=5),
}  # fmt: skip
PAPER: dict[str, Any] = {k: v for k, v in TINY.items() if k != "scale_window"}
PAPER |= {"model": Windows.name, "batch_size": 4, "width": 8, "context_length": 6}


def data(*lengths: int, dim: int = 2, freq: str = "B", seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    mix = np.linalg.cholesky(0.2 * np.eye(dim) + 0.8)
    walk = [(mix @ rng.standard_normal((dim, n))).cumsum(1) + 100 for n in lengths]
    return [{"start": as_period("2024-01-01", freq), "target": w, "item_id": f"s{i}"} for i, w in enumerate(walk)]


def samples(predictor: Any, items: list[dict[str, Any]], **kwargs: Any) -> list[np.ndarray]:
    return [f.samples for f in predictor.predict(items, **kwargs)]


@pytest.fixture(scope="module")
def predictor() -> VSMDPredictor:
    return VSMDEstimator(3, "B", **TINY).train(data(80))


@pytest.fixture(scope="module")
def paper() -> VSMDPredictor:
    return VSMDEstimator(3, "B", **PAPER).train(data(80))


@pytest.mark.parametrize("options", [TINY, PAPER], ids=["increments", "paper"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_predicts(method: str, options: dict[str, Any]) -> None:
    trained = VSMDEstimator(3, "B", method=method, **options).train(data(80, 70))
    assert isinstance(trained, Predictor)
    forecasts = list(trained.predict(data(40, 50), num_samples=7))
    assert [f.samples.shape for f in forecasts] == [(7, 3, 2)] * 2
    assert [f.item_id for f in forecasts] == ["s0", "s1"]
    assert str(forecasts[0].start_date) == "2024-02-26"  # 40 business days after 2024-01-01
    assert all(np.isfinite(f.samples).all() for f in forecasts)


@pytest.mark.parametrize(
    "options",
    [
        {"context": "none"},
        {"context": ("scales", "lags", "levels", "seasons"), "location": "season", "variational_score": "steered"},
        {"location": "linear", "lags_seq": (1, 24), "factors": 1, "rank": 1},
        {"basis": "coordinates", "bf16": True},
        {**PAPER, "batch_size": 2, "scaling": "mean", "lags_seq": (2, 24), "bf16": True},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    options = options if "model" in options else TINY | {"location": "last"} | options
    trained = VSMDEstimator(3, "h", **options).train(data(120, freq="h"))
    drawn = samples(trained, data(60, freq="h"), num_samples=5)[0]
    assert drawn.shape == (5, 3, 2)
    assert np.isfinite(drawn).all()


@pytest.mark.parametrize("options", [TINY, PAPER], ids=["increments", "paper"])
def test_univariate_targets(options: dict[str, Any]) -> None:
    items = [{**i, "target": i["target"][0]} for i in data(80)]
    trained = VSMDEstimator(3, "B", **options).train(items)
    assert samples(trained, items, num_samples=5)[0].shape == (5, 3)


@pytest.mark.parametrize("options", [{**TINY, "location": "linear"}, PAPER], ids=["increments", "paper"])
def test_missing_values_and_features(options: dict[str, Any]) -> None:
    """Gaps in training part and history, static and dynamic features; what is known of the future matters."""
    rng = np.random.default_rng(1)

    def item(length: int) -> dict[str, Any]:
        (panel,) = data(length)
        driver = rng.standard_normal((1, length + 3))
        panel["target"] = panel["target"] + 20 * driver[:, :length]
        panel["target"][0, 20:25] = np.nan
        panel["target"][:, -2] = np.nan
        return {**panel, "feat_dynamic_real": driver, "feat_static_real": np.array([1.0, 2.0])}

    options = {**options, "num_feat_dynamic_real": 1, "num_feat_static_real": 2, "method": "CLD"}
    trained = VSMDEstimator(3, "B", **options).train([item(90), item(80)])
    history = item(60)
    (drawn,) = samples(trained, [history], num_samples=6)
    assert np.isfinite(drawn).all()
    other = {**history, "feat_dynamic_real": history["feat_dynamic_real"].copy()}
    other["feat_dynamic_real"][:, -1] += 1.0
    (moved,) = samples(trained, [other], num_samples=6)
    assert np.array_equal(moved[:, :2], drawn[:, :2])
    assert not np.array_equal(moved[:, 2], drawn[:, 2])
    with pytest.raises(ValueError, match=r"feat_dynamic_real: shape \(0,\); must be \(1, 63\)"):
        samples(trained, [{k: v for k, v in history.items() if k != "feat_dynamic_real"}])


def test_gluonts_evaluates_it(predictor: VSMDPredictor) -> None:
    forecasts, truths = make_evaluation_predictions(ListDataset(data(60), "B", one_dim_target=False), predictor, 6)
    (drawn,), (truth,) = list(forecasts), list(truths)
    assert drawn.samples.shape == (6, 3, 2)
    assert drawn.start_date == truth.index[-3]


def test_a_history_is_read_once(paper: VSMDPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The LSTM reads it for the windows, then a step a day for windows x samples, apart only once they differ."""
    seen, read = [], Recurrent.read

    def watched(self: Recurrent, inputs: Any, state: Any = None) -> Any:
        seen.append(tuple(inputs.shape[:2]))
        return read(self, inputs, state)

    monkeypatch.setattr(Recurrent, "read", watched)
    samples(paper, data(40, 50), num_samples=7)
    assert seen == [(2, 6), (2, 1), (14, 1), (14, 1)]


@pytest.mark.parametrize("kind", ["predictor", "paper"])
def test_same_seed_same_samples(kind: str, request: pytest.FixtureRequest) -> None:
    items, predictor = data(40, 50), request.getfixturevalue(kind)
    again = VSMDEstimator(3, "B", **(PAPER if kind == "paper" else TINY)).train(data(80))
    assert all(np.array_equal(a, b) for a, b in zip(samples(predictor, items), samples(again, items)))
    assert not np.array_equal(samples(predictor, items, seed=1)[0], samples(predictor, items)[0])
    other = VSMDEstimator(3, "B", **{**TINY, "seed": 1}).train(data(80))
    assert not np.array_equal(samples(other, items, seed=0)[0], samples(predictor, items, seed=0)[0])


def test_a_window_does_not_depend_on_those_after_it(predictor: VSMDPredictor) -> None:
    alone, together = samples(predictor, data(40))[0], samples(predictor, data(40, 50))[0]
    assert np.allclose(alone, together, rtol=1e-5)


def test_only_the_end_of_a_history_matters(predictor: VSMDPredictor) -> None:
    (item,) = data(40)
    garbled = {**item, "target": item["target"].copy()}
    garbled["target"][:, :5] = np.nan
    assert np.array_equal(samples(predictor, [garbled])[0], samples(predictor, [item])[0])


def test_without_drift_paths_come_in_mirrored_pairs(predictor: VSMDPredictor) -> None:
    (item,) = data(40)
    for trained, pairs in ((predictor, True), (VSMDEstimator(3, "B", drift=True, **TINY).train(data(80)), False)):
        drawn = samples(trained, [item], num_samples=7)[0]
        assert drawn.shape == (7, 3, 2)
        assert np.allclose(drawn[:3] + drawn[4:], 2 * item["target"][:, -1]) == pairs


def test_gaussian_increments_come_back() -> None:
    """Correlated Gaussian steps: the untrained network is their exact score, so the fan is the walk's own."""
    trained = VSMDEstimator(4, "B", **{**TINY, "steps": 1, "scale_window": 200, "sampling_steps": 20}).train(
        data(6_000)
    )
    (items,) = data(3_000, seed=1)
    drawn = samples(trained, [items], num_samples=4_000)[0] - items["target"][:, -1]
    for h in range(4):
        expected = (h + 1) * np.array([[1.0, 0.8], [0.8, 1.0]])
        assert np.allclose(np.cov(drawn[:, h].T), expected, atol=0.17 * (h + 1))
    assert np.allclose(drawn.mean(0), 0, atol=1e-3)


def ragged(gap: int, length: int = 600) -> dict[str, Any]:
    (item,) = data(length, seed=2)
    item["target"][0, length - gap :] = np.nan
    return item


def test_the_spread_grows_over_a_ragged_end() -> None:
    """A random walk of steps of variance 1 whose first series ends 20 steps early: 21 … 23, the other's 1 … 3."""
    trained = VSMDEstimator(3, "B", **{**TINY, "steps": 1, "scale_window": 200, "context": "none"}).train(data(6_000))
    history = ragged(20)
    (drawn,) = samples(trained, [history], num_samples=2_000)
    assert np.allclose(drawn.var(0)[:, 0] / [21, 22, 23], 1, atol=0.25)
    assert np.allclose(drawn.var(0)[:, 1] / [1, 2, 3], 1, atol=0.25)
    assert np.allclose(drawn[:, 0, 0].mean(), history["target"][0, 579], atol=0.5)
    assert np.allclose(drawn[:, 0, 1].mean(), history["target"][1, -1], atol=0.15)
    whole = data(600)  # windows before and after are as they were alone
    assert np.array_equal(
        samples(trained, [*whole, history], num_samples=8)[0], samples(trained, whole, num_samples=8)[0]
    )


@pytest.mark.parametrize("options", [{"location": "linear"}, PAPER], ids=["increments", "paper"])
def test_what_is_known_in_a_ragged_end_counts(options: dict[str, Any]) -> None:
    """Forecasts go on from the values that one series has where the other has none."""
    trained = VSMDEstimator(3, "B", **TINY | options if "model" not in options else options).train(data(200))
    history = ragged(5, 80)
    (drawn,), moved = samples(trained, [history], num_samples=20), {**history, "target": history["target"].copy()}
    assert np.isfinite(drawn).all()
    moved["target"][1, -2] += 5
    assert not np.array_equal(samples(trained, [moved], num_samples=20)[0], drawn)


def test_steps_over_a_gap_are_not_one_step() -> None:
    """Half of a walk's values missing: its steps have variance 1 still, not the 2 of its differences."""
    (item,) = data(6_000)
    item["target"][np.random.default_rng(0).random((2, 6_000)) < 0.5] = np.nan
    both = (~np.isnan(item["target"])).all(0).nonzero()[0]
    item["target"] = item["target"][:, : both[-1] + 1]  # it ends with a value of both
    trained = VSMDEstimator(1, "B", **{**TINY, "steps": 1, "scale_window": 400, "context": "none"}).train([item])
    (drawn,) = samples(trained, [item], num_samples=2_000)
    assert np.allclose(drawn.var(0), 1, atol=0.3)


@pytest.mark.parametrize(("other", "freq"), [("h", "D"), ("15min", "h"), ("M", "3M"), ("D", "B")])
def test_another_frequency_is_refused(other: str, freq: str) -> None:
    items = data(80, freq=other)
    said = f"freq='{freq}': start='2024-01.*' is a period of freq='{other}'; must agree"
    with pytest.raises(ValueError, match=said):
        VSMDEstimator(3, freq, location="last", **TINY).train(items)
    trained = VSMDEstimator(3, freq, **TINY | {"location": "last", "steps": 1, "method": "CLD"}).train(
        data(80, freq=freq)
    )
    with pytest.raises(ValueError, match=said):
        samples(trained, items)


def test_counts_are_rounded(predictor: VSMDPredictor, tmp_path: Path) -> None:
    settings = predictor.settings | {"integer": True}
    counts = VSMDPredictor(predictor.model, predictor.representation, 3, "B", **settings)
    (rounded,), (plain,) = (samples(p, data(40), num_samples=9) for p in (counts, predictor))
    assert np.array_equal(rounded, plain.round())
    counts.serialize(tmp_path)
    assert VSMDPredictor.deserialize(tmp_path).integer
    assert VSMDEstimator(3, "B", integer=True).sampling["integer"]


def test_defaults_follow_the_frequency_and_the_tables() -> None:
    for freq, expected in (("B", "last"), ("h", "linear"), ("D", "linear"), ("MS", "linear"), ("YS", "last")):
        estimator = VSMDEstimator(3, freq)
        assert estimator.representation.settings["location"] == expected
        assert estimator.representation.settings["context"] == ["scales", "seasons"][: 1 + (expected == "linear")]
        assert (estimator.sampling["solver"], estimator.sampling["sampling_steps"]) == ("exponential", 10)
    assert VSMDEstimator(3, "QS-FEB").freq == "Q-JAN"


SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np, torch
from gluonts.model.predictor import Predictor
import repro.studies.windows
from vsmd.data.calendars import as_period
torch.set_num_threads(1)
target = np.array(json.loads(sys.argv[1]))
drawn = []
for folder in sys.argv[2:]:
    trained = Predictor.deserialize(Path(folder))
    (f,) = trained.predict([{"start": as_period("2024-01-01", "B"), "target": target}], num_samples=5)
    drawn.append(f.samples.tolist())
print(json.dumps(drawn))
"""


def test_a_saved_predictor_gives_the_same_samples_elsewhere(
    predictor: VSMDPredictor, paper: VSMDPredictor, tmp_path: Path
) -> None:
    ranked = VSMDEstimator(3, "B", location="linear", factors=1, rank=1, **TINY).train(data(80))
    trained, folders = [predictor, paper, ranked], [tmp_path / name for name in "abc"]
    for one, folder in zip(trained, folders):
        one.serialize(folder)
        assert {p.suffix for p in folder.iterdir()} == {".json", ".safetensors"}
    (item,) = data(40)
    target = item["target"].round(3)
    arguments = [sys.executable, "-c", SCRIPT, json.dumps(target.tolist()), *map(str, folders)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for one, there in zip(trained, json.loads(done.stdout)):
        expected = samples(one, [{**item, "target": target}], num_samples=5)[0]
        assert np.array_equal(np.array(there), expected)


def test_an_unknown_representation(paper: VSMDPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper.serialize(tmp_path)
    monkeypatch.delitem(REPRESENTATIONS, "paper")
    with pytest.raises(ValueError, match=r"^model='paper': must be one of 'increments'"):
        VSMDPredictor.deserialize(tmp_path)


def test_damaged_folders(predictor: VSMDPredictor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be in a folder written by VSMDPredictor\.serialize"):
        VSMDPredictor.deserialize(tmp_path)
    predictor.serialize(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"model\.safetensors.*damaged"):
        VSMDPredictor.deserialize(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prediction_length": 0}, "prediction_length=0: must be an integer >= 1"),
        ({"freq": "sometimes"}, "freq='sometimes': must be a pandas period frequency"),
        ({"method": "VSLUD"}, "did you mean 'VSULD'"),
        ({"beta": -1.0}, "beta=-1"),
        ({"damping": 2.0}, "damping=2"),
        ({"scale_window": 0}, "scale_window=0"),
        ({"context": "past"}, "context='past'"),
        ({"solver": "huen"}, "did you mean 'heun'"),
        ({"steps": 0}, "steps=0"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"device": "cuda:99"}, "device='cuda:99': not on this machine"),
        ({"basis": "dense"}, "basis='dense'"),
        ({"model": "papers"}, "did you mean 'paper'"),
        ({"location": "season"}, "location='season': must be another one, freq='B' has no season"),
        ({"rank": 0}, "rank=0"),
        ({"factors": -1}, "factors=-1: must be an integer >= 0"),
        ({"lags_seq": (0,)}, "lags_seq=0: must be an integer >= 1"),
        ({"lags_seq": ()}, r"lags_seq=\(\): must name at least one lag"),
        ({"num_feat_static_real": -1}, "num_feat_static_real=-1: must be an integer >= 0"),
        ({"patience": 0}, "patience=0"),
        ({"denoise": "no"}, "denoise='no': must be True or False"),
        ({"integer": 1}, "integer=1: must be True or False"),
        ({"bf16": None}, "bf16=None: must be True or False"),
        ({"drift": "yes"}, "drift='yes': must be True or False"),
    ],
)
def test_bad_arguments(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        VSMDEstimator(**{"prediction_length": 3, "freq": "B", **TINY, **changed})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PAPER | {"scaling": "max"}, "scaling='max'"),
        (PAPER | {"context_length": -1}, "context_length=-1"),
        (PAPER | {"lags_seq": (0,)}, "lags_seq=0: must be an integer >= 1"),
    ],
)
def test_bad_arguments_of_the_paper_model(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VSMDEstimator(3, "B", **options)


@pytest.mark.parametrize(("options", "name"), [(TINY | {"scaling": "mean"}, "scaling"), (PAPER | {"rank": 2}, "rank")])
def test_options_of_another_representation(options: dict[str, Any], name: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        VSMDEstimator(3, "B", **options)


def spoiled(what: str) -> list[dict[str, Any]]:
    items = data(80, 80)
    if what == "constant":
        for item in items:
            item["target"][1] = 3.0
    elif what == "missing":
        items[0]["target"][1] = np.nan
    elif what == "ragged":
        items[0]["target"] = [[1.0, 2.0], [3.0]]
    elif what == "mixed":
        items[0]["target"] = items[0]["target"][:1]
    else:
        return data(13) if what == "short" else []
    return items


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("short", r"13 time steps; must be at least 14 \(scale_window=10 \+ 1 of lags \+ horizon\)"),
        ("constant", r"series \[1\] never change"),
        ("missing", r"series \[1\] have no value at all"),
        ("ragged", "every series of the same length"),
        ("mixed", r"2 items with \[1, 2\] series"),
        ("empty", "0 items"),
    ],
)
def test_bad_training_data(what: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VSMDEstimator(3, "B", **TINY).train(spoiled(what))


@pytest.mark.parametrize(("what", "message"), [("short", "13 time steps; must be"), ("constant", "never change")])
def test_bad_training_data_of_the_paper_model(what: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VSMDEstimator(3, "B", **{**PAPER, "context_length": 10}).train(spoiled(what))


def test_bad_histories(predictor: VSMDPredictor) -> None:
    with pytest.raises(ValueError, match=r"5 time steps; must be at least 11 \(scale_window=10 \+ 1 of lags\)"):
        list(predictor.predict(data(5)))
    with pytest.raises(ValueError, match="3 series; the predictor was trained on 2"):
        list(predictor.predict(data(40, dim=3)))
    (gone,) = data(40)
    gone["target"][1, 20:] = np.nan
    with pytest.raises(ValueError, match=r"series \[1\] have no value in the last 11 steps"):
        list(predictor.predict([gone]))
    with pytest.raises(ValueError, match=r"14 time steps; must be at least 16 .* 5 since one of the series ends"):
        list(predictor.predict([ragged(5, 14)]))
    gone["target"][:, :28] = np.nan
    gone["target"][:, 28:] = [[1.0] * 4 + [np.nan] * 8, [np.nan] * 8 + [2.0] * 4]
    with pytest.raises(ValueError, match=r"series \[1\] have no value in the last 11 steps before another one ends"):
        list(predictor.predict([gone]))
    with pytest.raises(ValueError, match="num_samples=0"):
        list(predictor.predict(data(40), num_samples=0))
    with pytest.raises(ValueError, match="validation_data"):
        VSMDEstimator(3, "B", **TINY).train(data(80), validation_data=data(80))


@pytest.mark.parametrize("options", [TINY, PAPER], ids=["increments", "paper"])
def test_checkpoints_resume(options: dict[str, Any], tmp_path: Path) -> None:
    options = {**options, "checkpoint": tmp_path / "training.safetensors"}
    first = VSMDEstimator(3, "B", **options).train(data(80))
    resumed = VSMDEstimator(3, "B", **options).train(data(80))  # nothing left to do
    assert np.array_equal(samples(first, data(40))[0], samples(resumed, data(40))[0])
