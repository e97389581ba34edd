"""After a change of code: what gives the same rows is carried over, what does not stays stale."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro import grid
from repro.grid import Store, verify
from repro.grid.pool import execute

BODY = """from pathlib import Path
from repro.grid import Result
from .maths import f


def run(method, seed, log, steps=9):
    with Path(log).open("a") as file:
        file.write(f"{method}-{seed}-{steps}\\n")
    return Result({"t": [{"method": method, "seed": seed, "v": f(method, seed), "own_seconds": FACTOR}]})
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package in a repository of its own."""
    folder = tmp_path / "repository" / "verified"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "maths.py").write_text("def f(method, seed):\n    return seed + len(method)\n")
    (folder / "toy.py").write_text(BODY.replace("FACTOR", "1.0"))
    git(folder.parent, "init", "-q")
    record(folder)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("VSMD_SLOTS", str(tmp_path / "slots"))
    yield folder
    for name in [m for m in sys.modules if m.split(".")[0] == "verified"]:
        del sys.modules[name]


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def record(folder: Path) -> None:
    git(folder.parent, "add", "-A")
    git(folder.parent, "commit", "-q", "-m", "x")


def changed(folder: Path) -> None:
    """Rounding is done elsewhere now; one method's figures move, and a timing column may differ."""
    (folder / "maths.py").write_text(
        "def f(method, seed):\n    value = len(method) + seed\n    return value + (method == 'VSULD')\n"
    )
    (folder / "toy.py").write_text(BODY.replace("FACTOR", "2.0"))


def test_a_harmless_change_is_carried_over_and_a_change_of_figures_is_not(package: Path, tmp_path: Path) -> None:
    store, log = Store(tmp_path / "r", "full"), tmp_path / "log"
    runs = grid.product("verified.toy:run", method=["CLD", "VSULD"], seed=[0, 1, 2], log=str(log), steps=5_000)
    execute(runs, store, progress=False)
    before = (store.tables_dir / "t.csv").read_bytes()
    log.unlink()
    (made_by,) = verify.History(package.parent).commits
    changed(package)
    record(package)
    assert store.status(runs).stale == 6
    found = verify.verify(store, package.parent, progress=False)
    # one run of each method by either code, shortened
    ran = sorted(log.read_text().splitlines())
    assert [line.split("-")[::2] for line in ran] == [["CLD", "300"]] * 2 + [["VSULD", "300"]] * 2
    assert (len(found["same"]), len(found["different"])) == (3, 3)
    states = store.states(runs)
    assert [states[r.key] for r in runs] == ["fresh"] * 3 + ["stale"] * 3
    assert (store.tables_dir / "t.csv").read_bytes() == before
    assert store.provenance("t")["verified"] == 3
    notes = [entry["verified"] for entry in store.entries().values() if "verified" in entry]
    assert [(n["run"]["method"], n["run"]["steps"], n["against"]) for n in notes] == [("CLD", 300, made_by)] * 3


def test_the_order_of_columns_is_no_difference(tmp_path: Path) -> None:
    """It tells which runs a store saw first: here one of another function, with a seed and no method."""
    [before] = grid.product("tinyruns:overlap", seed=0, log=str(tmp_path / "log"))
    [run] = grid.product("tinyruns:run", seed=0, method="CLD")
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    execute([run], one, progress=False)
    for one_after_the_other in (before, run):
        execute([one_after_the_other], other, progress=False)
    assert list(one.table("tiny", [run])) != list(other.table("tiny", [run]))
    assert verify.same(run, one, other)


def test_rows_of_code_that_no_commit_holds_stay_stale(package: Path, tmp_path: Path) -> None:
    store, log = Store(tmp_path / "r", "full"), tmp_path / "log"
    (package / "maths.py").write_text("def f(method, seed):\n    return 2 * seed\n")  # never committed
    runs = grid.product("verified.toy:run", method="CLD", seed=0, log=str(log))
    execute(runs, store, progress=False)
    (package / "maths.py").write_text("def f(method, seed):\n    return seed * 2\n")
    record(package)
    found = verify.verify(store, package.parent, progress=False)
    assert (found["same"], len(found["different"])) == ([], 1)
    assert store.status(runs).stale == 1


def test_the_commit_is_found_by_the_sources_not_by_its_name(package: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "r", "full")
    runs = grid.product("verified.toy:run", method="CLD", seed=0, log=str(tmp_path / "log"))
    execute(runs, store, progress=False)
    changed(package)
    record(package)
    history = verify.History(package.parent)
    (entry,) = store.entries().values()
    made = {m: h for m, h in entry["code"].items() if m.startswith("verified")}
    assert len(history.commits) == 2
    assert history.holding(made, "0" * 12) == history.commits[1]  # the older one, whatever the rows say
    assert history.holding({**made, "verified.maths": "0" * 12}) is None
    assert history.holding({**made, "verified.gone": "0" * 12}) is None


def test_runs_are_shortened_where_their_function_knows_how(package: Path) -> None:
    config = {"method": "CLD", "seed": 0, "log": "x"}
    short = verify.shortened({"function": "verified.toy:run", "config": config})
    assert short.config["steps"] == 9  # its default, less than the most
    short = verify.shortened({"function": "verified.toy:run", "config": {**config, "steps": 5_000}})
    assert short.config["steps"] == 300
    assert "samples" not in short.config
    short = verify.shortened({"function": "verified.toy:run", "config": {**config, "steps": [5_000, 9]}})
    assert short.config["steps"] == [5_000, 9]  # a study of steps is left alone


def test_nothing_stale_runs_nothing(package: Path, tmp_path: Path) -> None:
    store, log = Store(tmp_path / "r", "full"), tmp_path / "log"
    runs = grid.product("verified.toy:run", method="CLD", seed=0, log=str(log))
    execute(runs, store, progress=False)
    assert verify.verify(store, package.parent, progress=False) == {"same": [], "different": [], "elsewhere": []}
    assert log.read_text().splitlines() == ["CLD-0-9"]
    assert not (store.cache / "verify" / "present").exists()


def test_rows_of_a_device_that_is_not_here_are_left(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    store, log = Store(tmp_path / "r", "full"), tmp_path / "log"
    here, there = grid.product("verified.toy:run", method="CLD", seed=[0, 1], log=str(log))
    for run, device in ((here, "cpu"), (there, "a GPU")):
        result = grid.Result({"images": [{"device": device, "value": 1.0}]})
        store.put(run, result, code={"verified.maths": "0" * 12}, provenance={"date": "", "seconds": 1.0, "commit": ""})
    assert verify.elsewhere(store) == {there.key}
    found = verify.verify(store, package.parent, progress=False)
    assert found == {"same": [], "different": [here.key], "elsewhere": [there.key]}
    assert not log.exists()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert verify.elsewhere(store) == set()


def test_without_a_repository_everything_stays_stale(tmp_path: Path) -> None:
    assert verify.History(tmp_path).holding({"a": "0" * 12}) is None


def test_unknown_profile_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["--profile", "ful"]) == 2
    assert capsys.readouterr().err.startswith("profile='ful'")
