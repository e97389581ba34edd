"""`python -m vsmd.images`: from a command line to files, every mistake one line."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_image_evaluation import Pixels
from tinyimages import pictures, words

from vsmd.images import Painter, evaluation
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


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_help_of_drawing_says_meaning_and_default(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    help_of([command])
    said = " ".join(re.sub("[│─╭╮╰╯]", " ", capsys.readouterr().out).split())
    entries = re.split(r" (?=--?[a-z][\w-]*[ ,])", said.split("options ", 1)[1])
    for flag in ("solver", "evaluations", "grid-power", "device", "seed", "batch-size", "precision", "out"):
        (entry,) = [e for e in entries if e.startswith(f"--{flag} ")]
        assert re.match(r"--\S+ (\{None\}\|)?[A-Z]+ [^(]{8,}.*\((default: |required)", entry), entry
    assert "(default: exponential)" in said
    assert "(default: 20)" in said


def test_one_sheet_of_samples(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-n", "4", "--evaluations", "2", "--device", "cpu"]
    assert main(["sample", str(run), "--out", str(tmp_path / "x.png"), *options]) == 0
    assert np.asarray(Image.open(tmp_path / "x.png")).shape == (9, 9, 3)
    assert main(["sample", str(run), "--out", str(tmp_path / "x.jpg"), *options]) == 2
    assert "x.jpg': must be a folder, or a file ending in .npz or .png" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_own_images_need_no_configuration(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder and its size are enough, and the run has the folder's name; so it has where a configuration is named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").mkdir()
    for i, image in enumerate(pictures(3).train.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).resize((6, 6)).save(tmp_path / "flowers" / f"{i}.png")
    options = [*SMALL, "--checkpoints.grid", "0"]
    assert main(["train", "--data.images", "flowers", "--data.size", "4", *options]) == 0
    saved = json.loads((tmp_path / "runs" / "flowers" / "config.json").read_text())
    assert saved["data"]["size"] == 4
    assert saved["training"]["learning_rate"] == config("cifar10-small").training.learning_rate
    assert main(["train", "--resume", "--data.images", "flowers", "--device", "cpu"]) == 0
    assert main(["train", "--config", "digits", "--data.images", str(own), *options]) == 0
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"flowers", "corners"}


def test_before_the_first_model(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    for command in (["sample", "--out", str(tmp_path / "x")], ["evaluate"]):
        assert main([command[0], str(tmp_path), *command[1:], "--device", "cpu"]) == 2
        said = capsys.readouterr().err
        assert f"error: model='{tmp_path}': holds no model.safetensors yet; its run writes one after" in said
        assert len(said.splitlines()) == 1


def test_evaluation_checks_before_it_draws(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metrics, solver, where the figures go, and weights that cannot be had here: one line each, nothing drawn."""

    def never(*_: object) -> None:
        raise AssertionError("drawn")

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(Painter, "batches", never)
    monkeypatch.setitem(sys.modules, "cleanfid", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cleanfid.resize", SimpleNamespace(build_resizer=lambda mode: None))
    monkeypatch.setitem(sys.modules, "cleanfid.features", SimpleNamespace(build_feature_extractor=None))
    monkeypatch.setitem(sys.modules, "cleanfid.downloads_helper", SimpleNamespace(check_download_inception=offline))
    (tmp_path / "file").write_text("in the way")
    for options, message in (
        (["--metrics", "FDI"], "metrics='FDI': must be one of"),
        (["--metrics", "FID"], "FID: clean-fid or its Inception weights cannot be had here (no network)"),
        (["--out", str(tmp_path / "file" / "x.csv")], "x.csv': could not be written"),
        (["--solver", "hein"], "solver='hein': must be one of"),
    ):
        assert main(["evaluate", str(run), "--device", "cpu", *options]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert len(said.splitlines()) == 1


def test_figures_reach_a_terminal_without_signs(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(evaluation, "METRICS", {"FD-EffNet": Pixels})
    options = ["--metrics", "FD-EffNet", "-n", "8", "--evaluations", "2", "--out", str(tmp_path / "x.csv")]
    assert main(["evaluate", str(run), "--device", "cpu", *options]) == 0
    terminal.flush()
    assert b"FD-EffNet" in terminal.buffer.getvalue()
    assert (tmp_path / "x.csv").read_text().startswith("metric,value,floor")


def test_models_are_readable_by_others(run: Path, tmp_path: Path) -> None:
    mask = os.umask(0o022)
    os.umask(mask)
    assert {p.stat().st_mode & 0o777 for p in run.glob("*.safetensors")} == {0o666 & ~mask}


def test_bad_samples(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["-n", "0"], "n=0: must be an integer >= 1"),
        (["--solver", "hein"], "solver='hein': must be one of"),
        (["--evaluations", "1"], "evaluations=1: must be at least 2"),
        (["--label", "3"], "label=3: must be one of the model's 0 classes"),
        (["--precision", "int8"], "precision='int8'"),
        (["--batch-size", "0"], "batch_size=0"),
    ):
        assert main(["sample", str(run), "--out", str(tmp_path), "--device", "cpu", *options]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"{", b"[" * 10**5, b"[1]", b"\xff\xfe", b'{"widht": 3}'])
def test_damaged_settings_of_a_run(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^path='.*config\.json': is damaged or foreign [^\n]*the settings of a run$"):
        parsed(["train", "--resume", "--out", str(tmp_path)])
