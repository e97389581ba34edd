"""`python -m vsmd.images`: from a command line to files, every mistake one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import NETWORK, pictures

from vsmd.images.__main__ import main

SMALL = ["--network", json.dumps(NETWORK), "--steps", "4", "--every", "4", "--batch-size", "8", "--rounds", "1"]
SMALL += ["--paths", "4", "--nodes", "2", "--grid", "4", "--evaluations", "3", "--held-out", "8", "--device", "cpu"]


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
    assert main(["train", "--config", "digits", "--data", str(own), "--out", str(folder), *SMALL]) == 0
    return folder


def test_train_prints_and_saves_every_setting(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, options = tmp_path / "run", [*SMALL, "--grid", "0", "--beta", "4"]
    assert main(["train", "--config", "digits", "--data", str(own), "--out", str(out), *options]) == 0
    said = capsys.readouterr().err
    saved = json.loads((out / "config.json").read_text())
    assert saved["beta"] == 4.0
    assert all(f'"{name}"' in said for name in saved)
    assert "step 4 of 4" in said
    assert "images/s" in said
    assert main(["train", "--out", str(out), "--resume", "--device", "cpu"]) == 0  # the settings are the run's own
    assert main(["train", "--out", str(out), "--resume", "--device", "cpu", "--seed", "3"]) == 2
    assert "seed: 0 -> 3" in capsys.readouterr().err


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
        (["train", "--config", "cifar"], "config='cifar': must be one of"),
        (["train", "--config", "digits", "--steps", "x"], "argument --steps: invalid"),
        (["train", "--config", "digits", "--step", "3"], "unrecognized arguments: --step 3"),
        (["train", "--config", "digits", "--device", "cuda:99"], "device='cuda:99': not on this machine"),
        (["train", "--config", "digits", "--data", "nowhere/x.npz"], "images='nowhere/x.npz': no such folder"),
        (["sample", "nowhere.safetensors", "--out", "x"], "path='nowhere.safetensors': does not exist"),
        (["paint"], "argument command: invalid choice: 'paint'"),
        ([], "the following arguments are required: command"),
    ],
)
def test_mistakes_are_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


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
