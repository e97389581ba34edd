"""`python -m vsmd.images`: from a command line to files, every mistake one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import pictures, words

from vsmd.images.__main__ import Train, main, parsed
from vsmd.images.configs import FIELDS, config

SMALL = words(
    "--network.width 8 --network.multipliers 1 --network.frequencies 2 --network.patch 1 --training.steps 4 "
    "--training.batch-size 8 --checkpoints.every 4 --checkpoints.grid 4 --adaptation.rounds 1 --adaptation.paths 4 "
    "--adaptation.nodes 2 --sampling.evaluations 3 --data.held-out 8 --device cpu"
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's own images."""
    path = tmp_path_factory.mktemp("data") / "corners.npz"
    np.savez(path, images=pictures().train.permute(0, 2, 3, 1).numpy())
    return path


@pytest.fixture(scope="module")
def run(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on them."""
    folder = tmp_path_factory.mktemp("commands") / "run"
    assert main(["train", "--config", "digits", "--data.images", str(own), "--out", str(folder), *SMALL]) == 0
    return folder


def test_train_prints_and_saves_every_setting(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, options = tmp_path / "run", [*SMALL, "--checkpoints.grid", "0", "--process.beta", "4"]
    assert main(["train", "--config", "digits", "--data.images", str(own), "--out", str(out), *options]) == 0
    said = capsys.readouterr().err
    saved = json.loads((out / "config.json").read_text())
    assert saved["process"]["beta"] == 4.0
    assert all(f'"{part}"' in said for name in FIELDS for part in name.split("."))
    assert "step 4 of 4" in said
    assert "images/s" in said
    assert main(["train", "--out", str(out), "--resume", "--device", "cpu"]) == 0  # the settings are the run's own
    assert main(["train", "--out", str(out), "--resume", "--device", "cpu", "--seed", "3"]) == 2
    assert "seed: 0 -> 3" in capsys.readouterr().err


def help_of(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*argv, "--help"])
    assert stopped.value.code in (None, 0)


def test_help_says_meaning_and_default_of_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the configuration that is named, in groups."""
    help_of(["train", "--config", "digits"])
    said = " ".join(re.sub("[│─╭╮╰╯]", " ", capsys.readouterr().out).split())
    flags = sorted(f"--{name}".replace("_", "-") for name in FIELDS if "." in name or name == "seed")
    entries = {flag: said.split(f"{flag} ", 1)[-1].split(" --", 1)[0] for flag in flags}
    for flag, entry in entries.items():
        is_switch = f"{flag}, --" in said
        text = said.split(f"{flag}, --", 1)[1] if is_switch else entry
        assert re.match(r"\S+( \[INT \[INT \.\.\.\]\])? \S.*\(default: ", text), flag
    assert "(default: 1500)" in entries["--training.steps"]
    help_of(["train"])
    assert "(default: 400000)" in capsys.readouterr().out
    help_of([])
    assert "evaluate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ("--training.steps 12", "steps", 12),
        ("--training.batch_size 12", "batch_size", 12),
        ("--process.beta 4.5", "beta", 4.5),
        ("--data.no-flips", "flips", False),
        ("--data.flips", "flips", True),
        ("--data.size None", "size", None),
        ("--data.size 32", "size", 32),
        ("--data.images None", "images", "None"),
        ("--process.variational-score steered", "variational_score", "steered"),
        ("--network.multipliers 1 2 3", "multipliers", (1, 2, 3)),
        ("--network.attention", "attention", ()),
        ("--seed 3", "seed", 3),
    ],
)
def test_values_from_a_command_line(options: str, name: str, value: object) -> None:
    """One field differs from the configuration that is named, and no other."""
    command = parsed(["train", "--config", "mnist5k", *options.split()])
    assert isinstance(command, Train)
    assert command.settings == config("mnist5k").with_overrides({name: value})


def test_samples_as_pictures_and_arrays(run: Path, tmp_path: Path) -> None:
    options = ["-n", "3", "--seed", "7", "--evaluations", "4", "--device", "cpu"]
    assert main(["sample", str(run), "--out", str(tmp_path / "png"), *options]) == 0
    files = sorted((tmp_path / "png").iterdir())
    assert [f.name for f in files] == ["000007.png", "000008.png", "000009.png"]
    assert main(["sample", str(run / "best.safetensors"), "--out", str(tmp_path / "x.npz"), *options]) == 0
    assert main(["sample", str(run), "--out", str(tmp_path / "y.npz"), *options, "--batch-size", "2"]) == 0
    with np.load(tmp_path / "y.npz", allow_pickle=False) as found:
        assert found["images"].shape == (3, 4, 4, 1)
        assert found["images"].dtype == np.uint8
        assert found["seeds"].tolist() == [7, 8, 9]
        for file, image in zip(files, found["images"]):
            assert int(np.abs(np.asarray(Image.open(file)).astype(int) - image[..., 0]).max()) <= 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train"], "config=None: must be given"),
        (["train", "--training.steps", "3"], "config=None: must be given"),
        (["train", "--config", "cifar"], "config='cifar': must be one of"),
        (["train", "--config", "digits", "--training.steps", "x"], "Error parsing --training.steps: invalid"),
        (["train", "--config", "digits", "--training.steps", "1.5"], "Error parsing --training.steps: invalid"),
        (["train", "--config", "digits", "--network.attention", "{"], "Error parsing --network.attention: "),
        (["train", "--config", "digits", "--data.flips", "yes"], "Unrecognized options: yes"),
        (["train", "--config", "digits", "--training.steps", "0"], "error: steps=0: must be an integer >= 1"),
        (["train", "--config", "digits", "--process.method", "VSKLD"], "error: method='VSKLD': must be one of"),
        (
            ["train", "--config", "digits", "--process.method", "SGM", "--sampling.solver", "aboba"],
            "error: solver='aboba'",
        ),
        (
            ["train", "--config", "digits", "--training.step", "3"],
            "Unrecognized options: --training.step, 3 (did you mean",
        ),
        (["train", "--config", "digits", "--device", "cuda:99"], "device='cuda:99': not on this machine"),
        (["train", "--config", "digits", "--data.images", "nowhere/x.npz"], "images='nowhere/x.npz': no such folder"),
        (["sample", "nowhere.safetensors", "--out", "x"], "path='nowhere.safetensors': does not exist"),
        (["sample", "nowhere.safetensors"], "Missing from python -m vsmd.images sample: --out PATH"),
        (["paint"], "Unrecognized options: paint"),
        ([], "Expected one of {train, sample, evaluate}"),
    ],
)
def test_mistakes_are_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]  # the settings stand before it, once they are known
    assert last.startswith("error: ")
    assert message in last
    assert len(last) < 1_000


def test_bad_samples(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["-n", "0"], "n=0: must be an integer >= 1"),
        (["--solver", "hein"], "solver='hein': must be one of"),
        (["--evaluations", "2"], "evaluations=2: must be at least 3"),
        (["--label", "3"], "label=3: must be one of the model's 0 classes"),
        (["--precision", "int8"], "precision='int8'"),
        (["--batch-size", "0"], "batch_size=0"),
    ):
        assert main(["sample", str(run), "--out", str(tmp_path), "--device", "cpu", *options]) == 2
        assert message in capsys.readouterr().err
