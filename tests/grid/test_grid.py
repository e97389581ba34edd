from __future__ import annotations

import ctypes
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tinyruns
from gridtools import alive, background, lines, stops_at, untimed, wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro import grid
from repro.grid import Result, Run, RunError, Status, Store, code, files, pool, rows
from repro.grid.launchers import cores
from repro.grid.pool import execute
from repro.grid.runs import labels

pytestmark = pytest.mark.usefixtures("own_pool")

PROVENANCE = {"date": "2025-01-01T00:00:00Z", "seconds": 1.0, "commit": "c0ffee", "device": "CPU", "torch": "2"}


# -- runs -------------------------------------------------------------------------------------------------------------
def test_labels_are_short() -> None:
    """What varies, and of long values that they do."""
    runs = grid.product("m:f", seed=[0, 1], plan=[[{"solver": "exponential", "evaluations": [10, 20, 50, 100]}], []])
    assert list(labels(runs).values())[:2] == ["seed=0 plan=…", "seed=0 plan=[]"]


def test_grid_is_the_product_in_order() -> None:
    runs = grid.product("m:f", method=["A", "B"], seed=range(2), nfe=[[10, 20]], steps=5)
    assert [(r.config["method"], r.config["seed"]) for r in runs] == [("A", 0), ("A", 1), ("B", 0), ("B", 1)]
    assert all(r.config["nfe"] == [10, 20] and r.config["steps"] == 5 for r in runs)
    assert len(runs + grid.product("m:f", seed=7)) == 5


def test_dicts_are_values_and_lists_of_dicts_axes() -> None:
    plan = [{"solver": "heun", "evaluations": (10.0, 20)}]
    runs = grid.product("m:f", settings={"network": {"width": 8}}, draw=[{"n": 1}, {"n": 2}], plan=[plan])
    assert [r.config["draw"] for r in runs] == [{"n": 1}, {"n": 2}]
    assert runs[0].config["plan"] == [{"solver": "heun", "evaluations": [10, 20]}]
    assert runs[0].config["settings"] == {"network": {"width": 8}}
    assert Run("m:f", {"a": {"x": 1, "y": 2.0}}).key == Run("m:f", {"a": {"y": 2, "x": 1}}).key
    assert Run("m:f", {"a": {"x": 1}}).key != Run("m:f", {"a": {"x": 2}}).key


def test_key_depends_on_function_and_values_only() -> None:
    import numpy as np

    run = Run("m:f", {"a": 5.0, "b": [1, 2]})
    assert run.key == Run("m:f", {"b": (1, 2), "a": np.int64(5)}).key
    assert len({r.key for r in (run, Run("m:g", run.config), Run("m:f", {"a": 5.5, "b": [1, 2]}), Run("m:f"))}) == 4
    assert Run("m:f", {"a": True}).key != Run("m:f", {"a": 1}).key


@pytest.mark.parametrize(
    ("function", "config", "error", "said"),
    [
        ("run", {}, ValueError, "function='run'"),
        ("__main__:run", {}, ValueError, "notebook"),
        ("m:f", {"beta": float("nan")}, ValueError, "beta=nan"),
        ("m:f", {"data": object()}, TypeError, "data=<object"),
        ("m:f", {"data": {"a": {1: 2}}}, TypeError, r"data\.a=\{1: 2\}"),
        ("m:f", {"data": {"a": float("inf")}}, ValueError, r"data\.a=inf"),
    ],
)
def test_bad_runs(function: str, config: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Run(function, config)


def test_empty_axis() -> None:
    with pytest.raises(ValueError, match=r"seed=\[\]"):
        grid.product("m:f", seed=[])


# -- code -------------------------------------------------------------------------------------------------------------
SOURCE = 'def f(x):\n    """Old."""\n    return x + 1\n'


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ('# a comment\ndef f(x):\n    """New\n    words."""\n    return (x +  1)  # sum\n', True),
        ("def f(x):\n    return x + 1\n", True),
        ('"""Module."""\ndef f(x):\n    return x + 1\n', True),
        ("def f(x):\n    return x + 2\n", False),
        ("def f(x):\n    return x + True\n", False),
        ("def f(x: int):\n    return x + 1\n", False),
        ('def f(x):\n    return x + 1\n\nname = "text"\n', False),
    ],
)
def test_source_hash(changed: str, same: bool) -> None:
    assert (code.source_hash(changed) == code.source_hash(SOURCE)) is same


def test_module_hash_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "repro.grid.worker", raising=False)
    assert code.module_hash("repro.grid.worker") is not None
    assert code.module_hash("vsmd.no_such_module") is None
    assert "repro.grid.worker" not in sys.modules


# -- store ------------------------------------------------------------------------------------------------------------
TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=8)
CELLS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT)
COLUMN = TEXT.filter(bool)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(COLUMN, CELLS, max_size=4), max_size=5))
def test_any_rows_survive_the_file(tmp_path: Path, table: list[dict[str, Any]]) -> None:
    store = Store(tempfile.mkdtemp(dir=tmp_path))
    run = Run("m:f", {"seed": 0})
    store.put(run, Result({"t": table}), code={}, provenance=PROVENANCE)
    assert store.status([run]) == Status(1, 0, 0)
    assert store.provenance("t")["unowned_rows"] == 0
    stored = store._read("t").rows
    texts = [{c: rows.cell("t", c, v) for c, v in row.items()} for row in table]
    filled = [{c: v for c, v in row.items() if v} for row in texts]
    assert Counter(map(rows.row_digest, stored)) == Counter(rows.row_digest(row) for row in filled if row)


def test_csv_is_sorted_formatted_and_free_of_provenance(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in (2, 10, 1):
        row = {"method": "CLD", "seed": seed, "error": seed / 3e5, "lost": float("nan"), "note": None, "ok": True}
        store.put(Run("m:f", {"seed": seed}), Result({"t": [row]}), code={}, provenance=PROVENANCE)
    expected = "method,seed,error,lost,note,ok\nCLD,1,3.33333e-06,nan,,1\nCLD,2,6.66667e-06,nan,,1\n"
    assert (tmp_path / "tables/t.csv").read_text() == expected + "CLD,10,3.33333e-05,nan,,1\n"
    df = store.table("t", [Run("m:f", {"seed": 2})])
    assert df["seed"].tolist() == [2]
    assert df["lost"].isna().all()


def test_equal_rows_of_two_runs_are_each_ones_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, other = Run("m:f", {"seed": 0}), Run("m:g", {"seed": 0})
    for run, extra in ((one, []), (other, [{"seed": 0, "v": 2}])):
        store.put(run, Result({"t": [{"seed": 0, "v": 1}, *extra]}), code={}, provenance=PROVENANCE)
    assert [store.table("t", runs)["v"].tolist() for runs in ([one], [other], [one, other])] == [[1], [1, 2], [1, 1, 2]]


def test_bad_results(tmp_path: Path) -> None:
    store, run = Store(tmp_path), Run("m:f")
    put = lambda result: store.put(run, result, code={}, provenance=PROVENANCE)  # noqa: E731
    with pytest.raises(TypeError, match=r"t\.a=\[1\]"):
        put(Result({"t": [{"a": [1]}]}))
    with pytest.raises(ValueError, match=r"t\.a='x\\ny': text in a cell must be one line"):
        put(Result({"t": [{"a": "x\ny"}]}))
    with pytest.raises(ValueError, match=r"table='\.\./t'"):
        put(Result({"../t": []}))
    with pytest.raises(TypeError, match="points='p'"):
        put(Result({"t": []}, {"p": [1, 2]}))
    with pytest.raises(FileNotFoundError, match="table='t'"):
        store.table("t")


def test_points_over_two_megabytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    assert rows.MAX_BYTES == 2_000_000
    monkeypatch.setattr(rows, "MAX_BYTES", 20_000)
    many = np.random.default_rng(0).standard_normal((5_000, 2))
    with pytest.raises(ValueError, match="at most 2"):
        Store(tmp_path).put(Run("m:f"), Result({"t": []}, {"p": many}), code={}, provenance=PROVENANCE)


def test_killed_at_any_move_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop at the n-th rename of a change of two tables and points: the old state or the new, never a mixture."""
    import numpy as np

    real, seen = os.replace, set[str]()
    run = Run("m:f", {"seed": 0})

    def result(word: str) -> Result:
        return Result({"a": [{"v": word}], "b": [{"v": word}]}, {"p": np.full((2, 2), len(word))})

    for n in range(40):
        store = Store(tmp_path / str(n))
        store.put(run, result("old"), code={}, provenance=PROVENANCE)
        monkeypatch.setattr(os, "replace", stops_at(n))
        stopped = False
        try:
            store.put(run, result("newer"), code={}, provenance=PROVENANCE)
        except KeyboardInterrupt:
            stopped = True
        monkeypatch.setattr(os, "replace", real)
        after = Store(tmp_path / str(n))
        found = {after.table("a")["v"].item(), after.table("b")["v"].item()}
        assert len(found) == 1
        assert after.points("p")[0, 0] == len(next(iter(found)))
        assert after.status([run]) == Status(1, 0, 0)
        assert sorted(p.name for p in (after.root / "tables").iterdir()) == [
            "a.csv",
            "a.meta.json",
            "b.csv",
            "b.meta.json",
        ]
        seen |= found
        if not stopped:
            break
    assert not stopped
    assert seen == {"old", "newer"}


def test_edited_and_foreign_rows_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, runs = Store(tmp_path), [Run("m:f", {"seed": s}) for s in (0, 1)]
    for run in runs:
        store.put(run, Result({"t": [{"seed": run.config["seed"], "v": 1.5}]}), code={}, provenance=PROVENANCE)
    path = tmp_path / "tables/t.csv"
    path.write_text(path.read_text().replace("1,1.5", "1,1.4"))
    assert store.states(runs) == {runs[0].key: "fresh", runs[1].key: "missing"}
    assert len(store.table("t")) == 2
    assert capsys.readouterr().out == "t.csv: 1 row(s) belong to no stored run (edited by hand?)\n"
    assert len(store.table("t", runs)) == 1


def test_damaged_files_are_named(tmp_path: Path) -> None:
    store, run = Store(tmp_path), Run("m:f")
    result = Result({"t": [{"v": 1.5}]}, {"p": [[1.0, 2.0]]})
    store.put(run, result, code={}, provenance=PROVENANCE)
    end = "; restore it or delete it$"
    for name, content in (("points/p.csv.gz", b"no gzip"), ("points/p.csv.gz", gzip.compress(b"x\na,b\n"))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"p\.csv\.gz': is damaged [^\n]*; must be points; restore it or delete"):
            store.points("p")
    (tmp_path / "tables/t.csv").write_bytes(b"v\n\xff\n")
    with pytest.raises(ValueError, match=r"t\.csv': is damaged [^\n]*; must be CSV; restore it or delete it$"):
        store.table("t")
    (tmp_path / "tables/t.csv").unlink()
    (tmp_path / "tables/t.csv").mkdir()
    with pytest.raises(ValueError, match=r"t\.csv': is damaged or foreign \(is no file\); must be CSV" + end):
        store.table("t")
    (tmp_path / "tables/t.meta.json").unlink()
    os.mkfifo(tmp_path / "tables/t.meta.json")
    with pytest.raises(ValueError, match=r"t\.meta\.json': is damaged or foreign \(is no file\); must be JSON"):
        store.table("t")


def test_what_runs_have_alike_is_written_once(tmp_path: Path) -> None:
    store, runs = Store(tmp_path), grid.product("m:f", seed=[0, 1, 2])
    codes = [{"a": "1", "b": "2"}, {"a": "1", "b": "2"}, {"a": "1", "b": "3"}]
    for run, made_by in zip(runs, codes, strict=True):
        store.put(run, Result({"t": [{"v": run.config["seed"]}]}), code=made_by, provenance=PROVENANCE)
    path = tmp_path / "tables/t.meta.json"
    meta = json.loads(path.read_text())
    assert meta["shared"] == [codes[0], ["v"], codes[2]]
    assert [(entry["code"], entry["columns"]) for entry in meta["runs"].values()] == [(0, 1), (0, 1), (2, 1)]
    assert [Store(tmp_path).entries("t")[run.key]["code"] for run in runs] == codes
    for entry, whole in zip(meta["runs"].values(), codes, strict=True):  # as it was written before
        entry |= {"code": whole, "columns": ["v"]}
    path.write_text(json.dumps({name: part for name, part in meta.items() if name != "shared"}))
    assert [Store(tmp_path).entries("t")[run.key]["code"] for run in runs] == codes
    path.write_text(json.dumps(meta | {"shared": [], "runs": {"k": meta["runs"][runs[0].key] | {"code": 5}}}))
    with pytest.raises(
        ValueError, match=r"t\.csv': is damaged or foreign \([^\n]*\); must be CSV; restore it or delete it$"
    ):
        Store(tmp_path).table("t")


def test_put_again_replaces_and_remove_removes(tmp_path: Path) -> None:
    store, run = Store(tmp_path), Run("m:f")
    store.put(run, Result({"a": [{"v": 1}], "b": [{"v": 1}]}), code={}, provenance=PROVENANCE)
    store.put(run, Result({"a": [{"v": 2}, {"v": 2}]}), code={}, provenance=PROVENANCE)
    assert store.table("a")["v"].tolist() == [2, 2]
    assert store.table("b").empty
    assert store.status([run]) == Status(1, 0, 0)
    store.remove([run])
    assert store.status([run]) == Status(0, 0, 1)


# -- execution --------------------------------------------------------------------------------------------------------
def test_execute_once_and_only_once(tmp_path: Path) -> None:
    store, log = Store(tmp_path / "r", "quick"), tmp_path / "log"
    runs = grid.product("tinyruns:run", method=["CLD", "VSULD"], seed=[0, 1], log=str(log))
    assert execute(runs[:3] + runs[:1], store, progress=False) == Status(3, 0, 0)
    assert execute(runs, store, progress=False) == Status(4, 0, 0)
    assert Counter(lines(log)) == Counter(["CLD-0", "CLD-1", "VSULD-0", "VSULD-1"])
    entry = store._read("tiny").runs[runs[0].key]
    assert entry["config"] == dict(runs[0].config)
    assert entry["seeds"] == [0]
    assert entry["profile"] == "quick"
    assert set(entry["code"]) == {"tinyruns"}  # the machinery is not what a run computes with
    assert store.points("CLD-0").shape == (5, 2)
    assert store.used == set()


def test_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    runs = grid.product("tinyruns:run", method=["CLD", "SGM"], seed=[0, 1], extra=[False])
    runs += grid.product("tinyruns:run", method="VSDM", seed=0, extra=True)
    first, second = Store(tmp_path / "1"), Store(tmp_path / "2")
    execute(runs, first, progress=False)
    execute(runs[3:], second, progress=False)
    execute(list(reversed(runs)), second, workers=1, progress=False)
    assert untimed(first.tables_dir / "tiny.csv") == untimed(second.tables_dir / "tiny.csv")
    for name in ("tables/tiny_curves.csv", *(f"points/{p.name}" for p in first.points_dir.iterdir())):
        assert (first.root / name).read_bytes() == (second.root / name).read_bytes()
    header = (first.tables_dir / "tiny.csv").read_text().splitlines()[0]
    assert header == (second.tables_dir / "tiny.csv").read_text().splitlines()[0]
    assert len(gzip.decompress((first.points_dir / "CLD-0.csv.gz").read_bytes()).splitlines()) == 6


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc only: other C libraries have no malloc_trim"
)
def test_freed_memory_goes_back_to_the_system(tmp_path: Path) -> None:
    store = Store(tmp_path / "r")
    execute([Run("tinyruns:freed")], store, progress=False)
    row = store.table("tiny").iloc[0]
    assert row["kept"] > row["full"] - 50  # the C library keeps what is freed
    assert row["left"] < row["full"] - 150


def test_failures_are_listed_and_lose_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "r")
    runs = grid.product("tinyruns:fail", kind=["raise", "killed", "type", "fine"])
    with pytest.raises(RunError) as caught:
        execute(runs, store, progress=False)
    said = str(caught.value)
    assert said.startswith("3 of 4 runs failed (the others are stored):")
    assert "kind=raise: ValueError: beta=-1: must be a finite number > 0 (log: " in said
    assert "kind=killed: killed by SIGKILL" in said
    assert "kind=type: TypeError: tinyruns:fail returned dict" in said
    assert store.states(runs)[runs[3].key] == "fresh"
    with pytest.raises(RunError, match="has no function 'nothing'"):
        execute([Run("tinyruns:nothing")], store, progress=False)


def test_older_workers_write_the_store_themselves_ours_must_hand_something_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, [run] = Store(tmp_path / "r"), [Run("tinyruns:run", {"method": "CLD", "seed": 0})]
    worker = tmp_path / "old" / "vsmd" / "experiments" / "worker.py"
    worker.parent.mkdir(parents=True)
    for folder in (worker.parent, worker.parents[1]):
        (folder / "__init__.py").write_text("")
    worker.write_text("import json, sys\nprint(json.load(open(sys.argv[1]))['root'])\n")
    assert execute([run], store, progress=False, source=tmp_path / "old") == Status(0, 0, 1)
    assert lines(store.cache / "logs" / f"{run.key}.log") == [str(store.root)]
    monkeypatch.setattr("repro.grid.child._worker_of", lambda source: "this")
    with pytest.raises(RunError, match="ended without a result"):
        execute([run], store, progress=False)


def test_checkpoint_folder_outlives_a_failure(tmp_path: Path) -> None:
    store, log = Store(tmp_path / "r"), tmp_path / "log"
    runs = grid.product("tinyruns:checkpointed", log=str(log))
    with pytest.raises(RunError, match="stopped at 41"):
        execute(runs, store, progress=False)
    execute(runs, store, progress=False)
    assert store.table("resumed")["value"].tolist() == [42]
    assert store.table("resumed")["train_seconds"].isna().all()  # a clock has seen the last part only
    assert store.table("rated")["train_seconds"].tolist() == [2.0]
    assert str(store.cache) in lines(log)[0]
    assert not list((store.cache / "work").iterdir())


def test_stale_only_when_the_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "ownpackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "maths.py").write_text("def f():\n    return 1\n")
    (package / "unused.py").write_text("x = 1\n")
    (package / "toy.py").write_text(
        "from repro.grid import Result\nfrom .maths import f\ndef run():\n    return Result({'t': [{'v': f()}]})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    store, runs = Store(tmp_path / "r"), [Run("ownpackage.toy:run")]
    assert execute(runs, store, progress=False) == Status(1, 0, 0)
    (package / "maths.py").write_text('"""Words."""\n\n\ndef f():\n    """More."""\n    # why\n    return 1\n')
    (package / "unused.py").write_text("x = 22\n")
    assert store.status(runs) == Status(1, 0, 0)
    (package / "maths.py").write_text("def f():\n    return 234\n")
    assert execute(runs, store, progress=False) == Status(0, 1, 0)
    assert "1 of 1 runs are stale" in capsys.readouterr().out
    assert store.table("t")["v"].tolist() == [1]
    assert store.stale([runs[0].key]) == [runs[0].key]
    monkeypatch.setenv("REFRESH", "1")
    assert execute(runs, store, progress=False) == Status(1, 0, 0)
    assert store.table("t")["v"].tolist() == [234]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_interrupted_it_continues_and_leaves_no_child(tmp_path: Path, sign: signal.Signals) -> None:
    log, pids = tmp_path / "log", tmp_path / "pids"
    body = f"""
        execute(product("tinyruns:run", method="CLD", seed=[0, 1], log={str(log)!r}), store, progress=False)
        execute(product("tinyruns:pids", log={str(pids)!r}, seed=[0, 1]), store, progress=False)
        """
    process = background(tmp_path, body)
    wait_for(lambda: len(lines(pids)) >= 1)
    process.send_signal(sign)
    assert process.wait(timeout=10) != 0
    wait_for(lambda: not any(alive(p) for p in lines(pids)))
    store = Store(tmp_path / "r")
    done = grid.product("tinyruns:run", method="CLD", seed=[0, 1, 2], log=str(log))
    assert store.status(done) == Status(2, 0, 1)
    execute(done, store, progress=False)
    assert lines(log).count("CLD-0") == lines(log).count("CLD-2") == 1


def test_two_at_once_share_one_store_and_the_cores(tmp_path: Path) -> None:
    log, spans = tmp_path / "log", tmp_path / "spans"
    body = f"""
        runs = product("tinyruns:run", method=["CLD", "SGM"], seed=[0, 1], slow=0.1, log={str(log)!r})
        execute(runs, store, progress=False)
        execute(product("tinyruns:overlap", log={str(spans)!r}, seed=list(range(4))), store, progress=False)
        """
    processes = [background(tmp_path, body) for _ in range(2)]
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out.decode()
    assert sorted(lines(log)) == ["CLD-0", "CLD-1", "SGM-0", "SGM-1"]
    at_once = most = 0
    for mark in lines(spans):
        at_once += 1 if mark == "+" else -1
        most = max(most, at_once)
    assert len(lines(spans)) == 8
    assert most <= (os.cpu_count() or 1)
    runs = grid.product("tinyruns:run", method=["CLD", "SGM"], seed=[0, 1], slow=0.1, log=str(log))
    assert Store(tmp_path / "r").status(runs) == Status(4, 0, 0)


def test_the_slots_folder_is_the_user_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the temporary folder, where its name can be guessed: closed to others, refused where it is open or a link.

    No name of the user is needed, which a container may not have.
    """
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("VSMD_SLOTS", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    folder = cores.slots_folder()
    assert folder == tmp_path / f"vsmd-slots-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cores.slots_folder() == folder
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match=r"must be a folder that this user owns"):
        cores.slots_folder()
    folder.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(PermissionError, match=r"or set VSMD_SLOTS$"):
        cores.slots_folder()


def test_no_slot_no_start(tmp_path: Path) -> None:
    held = [files.try_lock(cores.slots_folder() / f"{i}.lock") for i in range(os.cpu_count() or 1)]
    process = background(tmp_path, 'execute(product("tinyruns:run", method="CLD", seed=0), store, progress=False)')
    time.sleep(0.8)
    assert process.poll() is None
    assert not (tmp_path / "r/.cache/logs").exists()
    for fd in held:
        assert fd is not None
        os.close(fd)
    assert process.wait(timeout=20) == 0


def test_progress_text_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = grid.product("tinyruns:run", method="CLD", seed=[0, 1])
    monkeypatch.setattr("repro.grid.progress.Progress.seldom", 0.0)
    execute(runs, Store(tmp_path / "1"))
    assert "2/2 runs" in capfd.readouterr().err
    monkeypatch.setenv("VSMD_PROGRESS", str(tmp_path / "progress.json"))
    seen = []
    monkeypatch.setattr("repro.grid.progress.write_atomic", lambda path, text: seen.append(text))
    execute(runs, Store(tmp_path / "2"))
    assert '"total": 2' in seen[0]
    assert "seed=0" in "".join(seen)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_bad_workers(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(ValueError, match="workers="):
        execute([], Store(tmp_path), workers=bad)


# -- profiles ---------------------------------------------------------------------------------------------------------
def test_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv("VSMD_REPORTS", raising=False)
    assert grid.profile("full").root == tmp_path / "reports"
    assert grid.profile("quick").store.root == tmp_path / "reports/quick"
    assert grid.profile("smoke").pick(smoke=1, quick=2, full=3) == 1
    monkeypatch.setenv("VSMD_REPORTS", str(tmp_path / "elsewhere"))
    assert grid.profile("smoke").root == tmp_path / "elsewhere/smoke"
    with pytest.raises(ValueError, match="did you mean 'quick'"):
        grid.profile("quik")


def test_tiny_runs_are_what_the_children_import() -> None:
    assert code.module_path("tinyruns") == Path(tinyruns.__file__)


def test_commit_is_dirty_by_code_not_by_reports(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    assert pool.commit(tmp_path) == ""
    git("init")
    for name in ("code.py", "reports/table.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "reports/table.csv").write_text("2")
    clean = pool.commit(tmp_path / "reports")
    assert len(clean) == 12
    (tmp_path / "code.py").write_text("2")
    assert pool.commit(tmp_path) == f"{clean}-dirty"
