"""After a change of code: what gives the same rows is carried over, what does not stays stale."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro import grid
from repro.grid import Store, verify
from repro.grid.code import source_hash
from repro.grid.pool import execute
from repro.grid.rekey import rekey

pytestmark = pytest.mark.usefixtures("own_pool")

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
    (package / "maths.py").write_text("def f(method, seed):\n    return 0\n")  # what was verified is another code now
    assert (store.provenance("t")["verified"], store.provenance("t")["stale"]) == (0, 6)


def test_what_one_verification_ran_serves_the_next(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, log = Store(tmp_path / "r", "full"), tmp_path / "log"
    runs = grid.product("verified.toy:run", method="CLD", seed=[0, 1], log=str(log))
    execute(runs, store, progress=False)

    def verified() -> tuple[int, int]:
        """How many runs a verification carried over after a change, and how many it executed."""
        record(package)
        before = len(log.read_text().splitlines())
        same = verify.verify(store, package.parent, progress=False)["same"]
        return len(same), len(log.read_text().splitlines()) - before

    (package / "maths.py").write_text("def f(method, seed):\n    return len(method) + seed\n")
    assert verified() == (2, 2)  # by either code
    (package / "maths.py").write_text("def f(method, seed):\n    return seed + len(method) + 0\n")
    assert verified() == (2, 1)  # the old code's is there
    monkeypatch.setattr(verify, "device", lambda: "another machine")
    (package / "maths.py").write_text("def f(method, seed):\n    return seed + len(method) - 0\n")
    assert verified() == (2, 2)
    (package / "maths.py").write_text("def f(method, seed):\n    return 9\n")
    assert verified() == (0, 1)


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
    assert not any((store.cache / "verify").glob("*/present/tables/*"))


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


# -- runs under another name ------------------------------------------------------------------------------------------

# What an old checkout has in place of `repro.grid`: a worker of its own, that leaves rows in the store's format.
OLD_WORKER = """import csv, hashlib, importlib, json, sys
from pathlib import Path

path = Path(sys.argv[1])
order = json.loads(path.read_text())
path.unlink()
module, name = order["function"].split(":")
rows = getattr(importlib.import_module(module), name)(**order["config"])
rows = [{column: str(value) for column, value in row.items()} for row in rows]
text = order["function"] + json.dumps(order["config"], sort_keys=True, separators=(",", ":"))
digest = lambda row: hashlib.sha256("\\x1e".join(f"{k}\\x1f{v}" for k, v in sorted(row.items())).encode()).hexdigest()
entry = {"function": order["function"], "config": order["config"], "seconds": 1.0, "tables": ["t"], "points": [],
         "code": {}, "seeds": [], "date": "", "columns": list(rows[0]),
         "rows": sorted(digest(row)[:12] for row in rows)}
folder = Path(order["root"]) / "tables"
folder.mkdir(parents=True, exist_ok=True)
key = hashlib.sha256(text.encode()).hexdigest()[:16]
meta = {"kind": "runs", "table": "t", "runs": {key: entry}}
with (folder / "t.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
(folder / "t.meta.json").write_text(json.dumps(meta))
"""
OLD_STUDY = """from pathlib import Path


def run(plan, matrix, log, steps=9):
    with Path(log).open("a") as file:
        file.write(f"old {steps}\\n")
    return [{"matrix": matrix, "solver": solver, "v": n + len(solver)} for solver, n in plan]
"""
STUDY = """from pathlib import Path
from repro.grid import Result


def run(plan, basis, log, steps=9):
    with Path(log).open("a") as file:
        file.write(f"new {steps}\\n")
    return Result({"t": [{"basis": BASIS, "solver": line["solver"], "v": FIGURE} for line in plan]})
"""


@pytest.fixture
def moved(package: Path, tmp_path: Path) -> tuple[Store, grid.Run, Path]:
    """A run of code that has moved and was renamed since, in a store that was re-keyed to the present name."""
    for name, text in {
        "vsmd/experiments/worker.py": OLD_WORKER, "vsmd/experiments/__init__.py": "", "vsmd/__init__.py": "",
        "verified/studies.py": OLD_STUDY,
    }.items():  # fmt: skip
        (package.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (package.parent / name).write_text(text)
    record(package)
    old = grid.Run("verified.studies:run", {"plan": [["heun", 4]], "matrix": "full", "log": str(tmp_path / "log")})
    code = {"verified.studies": source_hash(OLD_STUDY)}
    store = Store(tmp_path / "r", "full")
    result = grid.Result({"t": [{"matrix": "full", "solver": "heun", "v": 8}]})
    store.put(old, result, code=code, provenance={"date": "", "seconds": 1.0, "commit": ""})
    git(package.parent, "rm", "-q", "-r", "vsmd", "verified/studies.py")
    config = {"plan": [{"solver": "heun", "evaluations": 4}], "basis": "principal", "log": str(tmp_path / "log")}
    new = grid.Run("verified.moved:run", config)
    rekey(store, {old.key: new}, columns={"matrix": "basis"}, values={"basis": {"full": "principal"}})
    return store, new, package / "moved.py"


def test_rekeyed_runs_are_stored_under_the_new_name(moved: tuple[Store, grid.Run, Path]) -> None:
    store, new, _ = moved
    assert store.status([new]) == grid.Status(0, 1, 0)
    assert (store.tables_dir / "t.csv").read_text() == "basis,solver,v\nprincipal,heun,8\n"
    (entry,) = store.entries().values()
    assert entry["was"]["function"] == "verified.studies:run"
    assert entry["was"]["config"]["plan"] == [["heun", 4]]
    with pytest.raises(ValueError, match="was re-keyed before"):
        rekey(store, {new.key: grid.Run("m:f")})


@pytest.mark.parametrize(
    ("basis", "figure", "carried"),
    [("basis", 'line["evaluations"] + 4', 1), ("basis", "9", 0), ("'coordinates'", 'line["evaluations"] + 4', 0)],
)
def test_rekeyed_runs_are_compared_in_todays_names(
    moved: tuple[Store, grid.Run, Path], tmp_path: Path, basis: str, figure: str, carried: int
) -> None:
    store, new, path = moved
    path.write_text(STUDY.replace("BASIS", basis).replace("FIGURE", figure))
    record(path.parent)
    verdicts = verify.verify(store, path.parents[1], progress=False)
    assert (tmp_path / "log").read_text() == "new 9\nold 9\n"
    assert len(verdicts["same"]) == carried
    (entry,) = store.entries().values()
    assert ("was" in entry) == ("verified" not in entry) == (not carried)
    assert store.status([new]) == grid.Status(carried, 1 - carried, 0)


def test_two_runs_cannot_become_one(tmp_path: Path) -> None:
    store, provenance = Store(tmp_path), {"date": "", "seconds": 1.0, "commit": ""}
    one, other = grid.product("m:f", seed=[0, 1])
    for run in (one, other):
        store.put(run, grid.Result({"t": [{"seed": 0, "v": 1}]}), code={}, provenance=provenance)
    before = (tmp_path / "tables/t.meta.json").read_bytes()
    with pytest.raises(ValueError, match="another is stored as m:f"):
        rekey(store, {one.key: other})
    assert (tmp_path / "tables/t.meta.json").read_bytes() == before
    rekey(store, {one.key: grid.Run("m:g")}, columns={"w": "u"})
    assert store.table("t")["v"].tolist() == [1, 1]
    assert store.states([one, other, grid.Run("m:g")]) == {
        one.key: "missing",
        other.key: "fresh",
        grid.Run("m:g").key: "fresh",
    }
    assert "columns" not in store.entries()[grid.Run("m:g").key]["was"]  # its rows have no such column
