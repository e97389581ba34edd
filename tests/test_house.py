"""The house: rooms and their order, what may be committed, the files around the package."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
METHOD = sorted((ROOT / "vsmd").rglob("*.py"))
MODULES = [*sorted((ROOT / "repro").rglob("*.py")), *METHOD]
TORTURE = sorted((ROOT / "tests" / "torture").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# A room imports only rooms that stand before it; those of the paper's part, `repro`, stand after all of the method's.
ORDER = [
    *("messages", "checks", "arguments", "random", "files", "durations", "memory", "data", "metrics"),
    *("schedules", "kernels", "moments", "bases", "units", "methods", "rates", "piecewise", "steering"),
    *("potentials", "couplings"),
    *("coefficients", "priors", "processes", "bridges", "family", "adaptation"),
    *("networks", "scores", "diagnostics", "samplers", "stored", "model", "training", "quality"),
    *("forecasting", "images", "latent", "command"),
    *("repro.grid", "repro.studies", "repro.reports", "repro.book", "repro.__main__"),
]
# Rooms that may import even less than their place allows.
ONLY = {
    "data": {"messages", "checks", "files", "random"},
    "metrics": {"messages", "checks", "random"},
    "repro.grid": {"messages", "checks", "durations", "files", "memory"},
    "repro.book": {"files", "repro.grid", "repro.reports"},  # words, stored results, docstrings
    "repro.reports": {"checks", "durations", "files", "repro.grid"},  # stored tables only, through the grid
}
# `import vsmd` itself (the public face) is for rooms above training.
FACE_FROM = ORDER.index("training") + 1

pyproject: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@cache
def tracked() -> list[Path]:
    """Files that are committed or would be with the next `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# ---- rooms ---------------------------------------------------------------------------------------


def room_of(path: Path) -> str:
    """`vsmd/networks/mlp.py` -> `networks`; `repro/grid/pool.py` -> `repro.grid`; `vsmd/__init__.py` -> ``."""
    package, part, *_ = path.relative_to(ROOT).with_suffix("").parts
    if part == "__init__":
        return ""
    return part if package == "vsmd" else f"{package}.{part}"


def imported_rooms(path: Path) -> Iterator[str]:
    """Rooms that a file imports anywhere, inside functions too; the package `vsmd` itself is ``."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else ())))
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for parts in (name.split(".") for name in names):
            if parts[0] == "vsmd":
                yield parts[1] if len(parts) > 1 and parts[1] in ORDER else ""
            elif parts[0] == "repro":
                yield ".".join(parts[:2])


def test_every_room_has_its_place() -> None:
    assert MODULES
    assert {room_of(path) for path in MODULES} - {""} <= set(ORDER)


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p)], ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    rank = ORDER.index(room)
    below = ONLY.get(room, set(ORDER[:rank])) | {room} | ({""} if rank >= FACE_FROM else set())
    assert set(imported_rooms(path)) <= below


def test_upward_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above on a file that breaks the rule in every way it can be written."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "vsmd" / "networks" / "mlp.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import torch, vsmd.kernels\nfrom vsmd import training, fit\nfrom .. import scores\n"
        "from ..model import Model\nfrom . import blocks\ndef f():\n    from vsmd.samplers import heun\n"
        "import repro\nfrom repro import studies\nfrom repro.grid.runs import Run\n"
    )
    assert room_of(path) == "networks"
    seen = {
        "kernels",
        "training",
        "",
        "scores",
        "model",
        "networks",
        "samplers",
        "repro",
        "repro.studies",
        "repro.grid",
    }
    assert set(imported_rooms(path)) == seen
    assert room_of(tmp_path / "repro" / "grid" / "pool.py") == "repro.grid"


@pytest.mark.parametrize("path", [*MODULES, *TORTURE], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", [*MODULES, *TORTURE], ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path: Path) -> None:
    """At most 60 lines from `def` to the end, docstring and all."""
    assert [f"{name}: {size}" for name, size in functions(path.read_text(encoding="utf-8")) if size > 60] == []


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Name and length of every function of a module; methods and functions within functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_the_method_is_compact() -> None:
    """`vsmd` in total: what a user has to trust. What stands here is what it is; only with a reason may it grow."""
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in METHOD) <= 12_550


def test_nothing_stands_twice() -> None:
    """No run of 12 or more lines of `vsmd` stands in a second place; see `telling` for the lines that count."""
    assert repeated({path: telling(path.read_text(encoding="utf-8")) for path in METHOD}, 12) == []


def telling(source: str) -> list[tuple[int, str]]:
    """Number and text of the lines of a module that are not blank, not comments and not imports."""
    imports: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert node.end_lineno is not None
            imports |= set(range(node.lineno, node.end_lineno + 1))
    lines = ((i, line.strip()) for i, line in enumerate(source.splitlines(), 1))
    return [(i, line) for i, line in lines if line and not line.startswith("#") and i not in imports]


def repeated(modules: dict[Path, list[tuple[int, str]]], length: int) -> list[str]:
    """Where runs of `length` lines begin that stand in an earlier place too: "later:line = earlier:line"."""
    first: dict[tuple[str, ...], tuple[Path, int]] = {}
    places = []
    for path, lines in modules.items():
        for start in range(len(lines) - length + 1):
            run = tuple(line for _, line in lines[start : start + length])
            number = lines[start][0]
            earlier, line = first.setdefault(run, (path, number))
            if (earlier, line) != (path, number):
                places.append(f"{path.name}:{number} = {earlier.name}:{line}")
    return places


def test_long_and_repeated_code_is_seen() -> None:
    """The checks above on sources that break them."""
    body = "".join(f"    x = {i}\n" for i in range(11))
    once = f"def f():\n{body}"
    assert list(functions(f"class A:\n    def f(self):\n        def g():\n            pass\n{once}")) == [
        ("f", 12),
        ("f", 3),
        ("g", 2),
    ]
    twice = f"import a\n{once}\nfrom b import (\n    c,\n)\n# again\n\n{once.replace('    x = 3', '    # no')}{once}"
    places = repeated({Path("one.py"): telling(twice), Path("two.py"): telling(once)}, 12)
    assert places == ["one.py:32 = one.py:2", "two.py:1 = one.py:2"]
    assert repeated({Path("one.py"): telling(once)}, 12) == []


def unpickled(source: str) -> list[int]:
    """Lines of a module that may unpickle; `torch.load(…, weights_only=True)`, which runs no code, is not one."""
    pickles = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    lines, weights = [], set()
    for node in ast.walk(ast.parse(source)):  # a call comes before the names in it
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            if any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords):
                weights.add(node.func)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = {alias.name for alias in node.names}
            if {name.split(".")[0] for name in names | {module}} & pickles:
                lines.append(node.lineno)
            if module.split(".")[0] == "torch" and names & {"load", "save"}:
                lines.append(node.lineno)
        elif isinstance(node, ast.Attribute) and node not in weights:
            if ast.unparse(node) in {"torch.load", "torch.save"} or node.attr in {"read_pickle", "to_pickle"}:
                lines.append(node.lineno)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            lines.append(node.value.lineno)
    return lines


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path: Path) -> None:
    """A file from elsewhere must not be able to run code: no pickle in any of its guises."""
    assert unpickled(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "torch.load(path, 'cpu', None, True)",
        "torch.load(path, **{'weights_only': True})",
        "read = torch.load",
        "torch.save(x, path)",
        "from torch import load",
        "import pickle",
        "from joblib import load",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
    ],
)
def test_unpickling_is_seen(line: str) -> None:
    allowed = "torch.load(path, map_location='cpu', weights_only=True)\nnp.load(path, allow_pickle=False)\n"
    assert unpickled(allowed + line) == [3]


def test_import_is_light() -> None:
    """The public face needs torch and numpy only; the rest is imported by the rooms that use it."""
    heavy = {"PIL", "cleanfid", "currency_converter", "gluonts", "lightning", "matplotlib", "mlxtend", "ot"}
    heavy |= {"diffusers", "pandas", "papermill", "scipy", "seaborn", "sklearn", "statsmodels", "torchvision", "tyro"}
    code = "import sys, vsmd; vsmd.forward_process, vsmd.fit, vsmd.load;"
    code += "print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not heavy & loaded


# ---- what may be committed -----------------------------------------------------------------------

# Written so that this file does not match itself.
FORBIDDEN = {
    "a registry's host": "|".join(
        [r"pypi\.(?:org|python)", r"python(?:hosted)\.", r"(?:conda\.)anaconda\.org", r"registry\.(?:npmjs|yarnpkg)"]
        + [r"(?:index-)url\s*[=:]?\s*http", r"proxy\.(?:golang)"]
    ),
    "a path of one machine": r"(?<![\w.~/+=:>}$)-])/(?:work|home|root|opt|tmp|mnt|srv|scratch|Users)/",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    pattern, found = re.compile(FORBIDDEN[what]), []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # pictures, archives
        found += [f"{path.relative_to(ROOT)}:{i}" for i, line in enumerate(lines, 1) if pattern.search(line)]
    assert not found


def test_forbidden_patterns_match() -> None:
    host, path = FORBIDDEN.values()
    assert re.search(host, "https://" + "pypi" + ".org/simple")
    assert re.search(host, "--index-" + "url https://x")
    assert all(re.search(path, before + "/" + "work/main") for before in ("", " ", '"', "'", "(", "`"))
    assert not re.search(path, "https://example.org/" + "work/x")


def test_no_file_over_2_mb() -> None:
    assert [path.name for path in tracked() if path.stat().st_size > 2_000_000] == []


def test_notebooks_are_clean() -> None:
    """No outputs except the exact facts that `make test` compares; the profile comes from one tagged cell."""
    for path in NOTEBOOKS:
        cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        for cell in cells:  # nbval takes a cell without execution_count for one that was never run
            checked = "nbval-check-output" in cell["metadata"].get("tags", ())
            assert bool(cell["outputs"]) == checked, f"{path.name}: {''.join(cell['source'])}"
            assert (cell["execution_count"] is not None) == checked, f"{path.name}: {''.join(cell['source'])}"
        parameters = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", ())]
        assert len(parameters) == 1, path.name
        assert 'profile = os.environ.get("VSMD_PROFILE", "quick")' in parameters[0], path.name


# ---- environment ---------------------------------------------------------------------------------


def required() -> dict[str, Requirement]:
    project = pyproject["project"]
    lines = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def locked(name: str) -> dict[str, list[Version]]:
    pins: dict[str, list[Version]] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", line):
            pins.setdefault(canonicalize_name(match[1]), []).append(Version(match[2]))
    return pins


def test_lock_satisfies_pyproject() -> None:
    pins = locked("requirements.lock")
    assert set(required()) <= set(pins)
    wrong = [f"{r} {v}" for name, r in required().items() for v in pins[name] if v not in r.specifier]
    assert not wrong


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-uv.lock"])
def test_lock_is_hashed(name: str) -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / name).read_text(encoding="utf-8"))
    assert entries
    assert all(re.match(r"[\w.-]+==.*\n\s+--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


def test_environment_yml_in_step() -> None:
    """Names and bounds of environment.yml are those of pyproject.toml, both ways."""
    conda_names = {"pytorch": "torch"}
    entries = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    assert pip[-2:] == ["-e .", "-e ./repro"]
    lines = [entry for entry in entries if isinstance(entry, str)] + pip[:-2]
    listed = {canonicalize_name(conda_names.get(r.name, r.name)): r.specifier for r in map(Requirement, lines)}
    python = listed.pop(canonicalize_name("python"))
    assert listed.pop(canonicalize_name("pip")) == ""
    assert listed == {name: r.specifier for name, r in required().items()}
    lowest = pyproject["project"]["requires-python"].removeprefix(">=")
    assert lowest in python
    assert f"{lowest[:2]}{int(lowest[2:]) - 1}" not in python


def test_environment_yml_gives_reasons() -> None:
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").split("dependencies:")[1].splitlines()
    assert [line for line in lines if re.match(r"\s+- (?!pip:)", line) and " # " not in line] == []


def test_citation() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pyproject["project"]["version"]
    assert citation["license"] == pyproject["project"]["license"]
    assert {"cff-version", "title", "message", "authors"} <= set(citation)
    arxiv = {i["value"] for reference in citation["references"] for i in reference["identifiers"]}
    assert arxiv == {"arXiv:2501.16675", "arXiv:2404.13309"}


def test_rooms_of_the_face_are_all_rooms() -> None:
    """`vsmd.room` works without an import for every file and folder of the package, the command's included."""
    import vsmd

    assert {room_of(path) for path in METHOD if path.stem != "__main__"} - {""} == vsmd._ROOMS
    assert set(vsmd._ROOMS) <= set(dir(vsmd))
    assert vsmd.arguments.__name__ == "vsmd.arguments"
