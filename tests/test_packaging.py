"""The two packages: the wheel of `vsmd` stands alone, and `repro` is a package of its own beside it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from repro.grid.profiles import repository_root

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import setuptools.build_meta as backend; print(backend.build_wheel({out!r}))"


def built(project: str, folder: Path) -> Path:
    """The wheel of a project of the repository, built without network from a copy, so that no build folder is left."""
    copy = folder / "copy"
    for name in ("vsmd", "repro", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-c", BUILD.format(out=str(folder))]
    done = subprocess.run(command, cwd=copy / project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


def sources(package: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}


def contents(wheel: Path) -> set[str]:
    """Files of a wheel, its own records aside."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of `vsmd`."""
    return built(".", tmp_path_factory.mktemp("vsmd"))


def test_the_wheel_holds_the_method_alone(wheel: Path) -> None:
    assert contents(wheel) == sources("vsmd") | {"vsmd/py.typed"}


def test_the_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    """Unpacked into a bare folder and run elsewhere, where no `repro` can be imported."""
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:  # all that installing a wheel without scripts does
        archive.extractall(target)
    code = (
        "import importlib.util, vsmd\nassert importlib.util.find_spec('repro') is None\n"
        "print(vsmd.__file__, vsmd.forward_process('VSULD', (2,)).method)"
    )
    # -S: without `site` the links of editable installs are not there, so the other packages' folder is named.
    paths = [str(target), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    command = [sys.executable, "-S", "-P", "-c", code]
    done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(target / "vsmd/__init__.py"), "VSULD"]


def test_the_wheel_has_the_command_and_the_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        records = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert records["entry_points.txt"].split() == ["[console_scripts]", "vsmd", "=", "vsmd.command:main"]
    extras = re.findall(r"^Provides-Extra: (\S+)$", records["METADATA"], flags=re.MULTILINE)
    assert {"forecasting", "images", "metrics", "backbones"} <= set(extras)
    needed = [Requirement(r) for r in re.findall(r"^Requires-Dist: (.+)$", records["METADATA"], flags=re.MULTILINE)]
    always = {r.name: r.specifier for r in needed if r.marker is None}
    assert set(always) == {
        *("torch", "numpy", "scipy", "safetensors", "tqdm", "pandas", "scikit-learn", "matplotlib", "tyro")
    }
    assert all(always["torch"].contains(f"2.11.0{build}") for build in ("", "+cpu", "+cu130"))  # without a GPU as well


HIDING = """
import importlib.machinery, sys
finder = importlib.machinery.PathFinder
find = finder.find_spec
finder.find_spec = lambda name, *path: None if name.partition(".")[0] in {others} else find(name, *path)
from vsmd.command import main
status = [main(line.split()) for line in {lines}]
import torch
print(status, torch.get_num_threads(), "threads")
"""


def needed_by(name: str, extras: set[str], seen: dict[str, set[str]]) -> set[str]:
    """Distributions that pip installs with a distribution, itself among them."""
    if extras <= seen.get(name, set()) and name in seen:
        return set(seen)
    seen[name] = seen.get(name, set()) | extras
    for line in metadata.requires(name) or []:
        other = Requirement(line)
        if other.marker is None or any(other.marker.evaluate({"extra": e}) for e in ("", *extras)):
            with contextlib.suppress(metadata.PackageNotFoundError):  # for another system
                needed_by(canonicalize_name(other.name), set(other.extras), seen)
    return set(seen)


@pytest.mark.parametrize(
    ("extras", "lines"),
    [
        ("", ["points data.csv --out out.csv --steps 3", "check data.csv --steps 3"]),
        ("forecasting", ["forecast panel.csv --freq h --horizon 3 --out o.csv --picture o.png --steps 3"]),
    ],
    ids=["points", "forecast"],
)
def test_the_command_works_with_what_pip_installs(extras: str, lines: list[str], tmp_path: Path) -> None:
    """README's commands, with nothing importable but `vsmd`, its requirements and theirs."""
    there = needed_by("vsmd", {extras} - {""}, {})
    others = {
        module
        for module, names in metadata.packages_distributions().items()
        if module.isidentifier() and not {canonicalize_name(name) for name in names} & there
    }
    assert "nbval" in others
    rng = np.random.default_rng(0)
    pd.DataFrame(rng.standard_normal((400, 2)), columns=["x", "y"]).to_csv(tmp_path / "data.csv", index=False)
    hours = pd.date_range("2024-01-01", periods=480, freq="h")
    pd.DataFrame(rng.standard_normal((480, 2)), hours, ["a", "b"]).to_csv(tmp_path / "panel.csv")
    code = HIDING.format(others=sorted(others), lines=lines)
    env = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert f"{[0] * len(lines)} 1 threads" in done.stdout, done.stderr[-2000:]


def test_the_source_package_builds_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """It holds the package and the files around it, no test, no report; the wheel made of it has the same files."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "vsmd", copy / "vsmd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy(ROOT / name, copy)
    code = "import setuptools.build_meta as backend; print(backend.build_{kind}({out!r}))"
    command = [sys.executable, "-c", code.format(kind="sdist", out=str(tmp_path))]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    packed = tmp_path / done.stdout.split()[-1]
    with tarfile.open(packed) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data")
    assert {"LICENSE", "README.md", "CITATION.cff", "CHANGELOG.md", "pyproject.toml"} <= names
    assert {n for n in names if n.startswith("vsmd/") and n.endswith(".py")} == sources("vsmd")
    assert not [n for n in names if n.startswith(("tests", "reports", "notebooks", "repro"))]
    unpacked = packed.with_name(packed.name.removesuffix(".tar.gz"))
    command = [sys.executable, "-c", code.format(kind="wheel", out=str(tmp_path))]
    done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / done.stdout.split()[-1]) == contents(wheel)


def test_make_dist_leaves_packages_alone(tmp_path: Path) -> None:
    """No copy of the sources, which `make test` would take for the repository's."""
    for name in ("vsmd", "repro"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CITATION.cff", "CHANGELOG.md", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    done = subprocess.run(["make", "-s", "dist", "-o", "env"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "repro/build").exists()
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["dist"]
    assert len(done.stdout.split()) == len(list((tmp_path / "build/dist").iterdir())) == 3


def test_repro_is_a_package_of_its_own(tmp_path: Path) -> None:
    assert contents(built("repro", tmp_path)) == sources("repro")


def test_repro_lists_its_packages() -> None:
    """Those with an `__init__.py`, no more and no less, at the version and with the extras of `vsmd`."""
    method, paper = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8")) for folder in (".", "repro")
    )
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "repro").rglob("__init__.py")}
    assert set(paper["tool"]["setuptools"]["packages"]) == packages
    assert {path.parent for path in (ROOT / "repro").rglob("*.py")} == {ROOT / p.replace(".", "/") for p in packages}
    for field in ("version", "license", "requires-python"):
        assert paper["project"][field] == method["project"][field]
    (needed,) = map(Requirement, paper["project"]["dependencies"])
    assert needed.name == method["project"]["name"]
    assert needed.extras == set(method["project"]["optional-dependencies"]) - {"backbones", "cluster", "dev", "peers"}
    assert paper["project"]["optional-dependencies"] == {name: [f"vsmd[{name}]"] for name in ("cluster", "peers")}


@pytest.mark.parametrize("folder", [".", "repro", "repro/grid", "notebooks"])
def test_the_repository_is_found_from_any_of_its_folders(folder: str) -> None:
    """repro/pyproject.toml does not make a repository of repro/."""
    assert repository_root(ROOT / folder) == ROOT
