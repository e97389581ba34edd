"""The training of `threads` on every Python of 3.11, 3.12 and 3.13 on this machine that has what the package needs.

Nothing is fetched. TORTURE_PYTHONS names further interpreters, separated by colons: those of other environments.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from torture import children, threads
from torture.tally import Tally, scaled

VERSIONS = ("3.11", "3.12", "3.13")
NEEDED = "torch, numpy, scipy, safetensors, tqdm, pandas"
TOLERANCE = 1e-6  # of the samples' spread, between Pythons with the same torch


def interpreters() -> dict[str, str]:
    """Paths by version; the present one first."""
    named = [sys.executable, *os.environ.get("TORTURE_PYTHONS", "").split(":")]
    named += [path for version in VERSIONS if (path := shutil.which(f"python{version}"))]
    found: dict[str, str] = {}
    for path in filter(None, named):
        code = f"import sys, {NEEDED}; print('%d.%d %s' % (*sys.version_info[:2], torch.__version__))"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, env=children.environment())
        if done.returncode == 0 and done.stdout.split()[0] in VERSIONS:
            found.setdefault(done.stdout.split()[0], path)
    return found


def run(tally: Tally, scale: float) -> None:
    """A row a version."""
    found, steps = interpreters(), scaled(threads.STEPS, scale)
    own = ".".join(map(str, sys.version_info[:2]))
    path = os.pathsep.join([str(children.ROOT), children.environment()["PYTHONPATH"]])
    reference, said = threads.child(1, steps)
    for version in VERSIONS:
        with tally.kind(f"Python {version}", "a training, samples, densities") as row:
            if version not in found:
                row.note = f"not had: no interpreter with {NEEDED} on this machine"
                continue
            env = {**children.environment(), "PYTHONPATH": path}
            line, more = threads.child(1, steps, found[version], env)
            exact = 0.0 if version == own else TOLERANCE
            threads.compared(tally, row, f"Python {version} at {found[version]}", reference, line, said + more, exact)
