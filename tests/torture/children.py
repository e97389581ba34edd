"""Child processes of the torture: started as from a terminal, killed, waited for; what they left, compared."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vsmd import files

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
LIMIT, IDLE = 300.0, 60.0  # seconds that a child may compute, and that it may do nothing (its own children may)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def environment(threads: int = 1, **more: str) -> dict[str, str]:
    """This process's environment, with what tests import on the path and so many threads."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **dict.fromkeys(THREADS, str(threads)), "PYTHONPATH": path, "MPLBACKEND": "agg", **more}


def interruptible() -> None:
    """A shell's background job ignores SIGINT, and hands that on; a terminal's does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(
    words: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None, python: str = sys.executable
) -> subprocess.Popen[bytes]:
    """A Python with these words, in a session of its own."""
    return subprocess.Popen(
        [python, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(env or environment()),
        cwd=cwd or ROOT, preexec_fn=interruptible, start_new_session=True,
    )  # fmt: skip


def ended(child: subprocess.Popen[bytes], limit: float = LIMIT) -> tuple[int | None, str]:
    """Exit status and output; None once it has run into the limit, which ends it."""
    try:
        out, _ = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, _ = child.communicate()
        return None, out.decode(errors="replace")
    return child.returncode, out.decode(errors="replace")


def contents(folder: Path, patterns: Sequence[str] = ("**/*",)) -> dict[str, str]:
    """A digest of every file within a folder by path; temporary ones of a killed process are none."""
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()
        for path in sorted(paths)
        if ".tmp" not in path.suffixes
    }


def differing(one: Mapping[str, object], two: Mapping[str, object]) -> list[str]:
    """Names that are in one of the two alone, or differ."""
    return sorted(name for name in {*one, *two} if one.get(name) != two.get(name))


def whole(path: Path) -> bool:
    """Whether a file of the package, a safetensors one, can be read and its checksum is right."""
    try:
        with files.opened(path) as file:
            files.read(path, (file.metadata() or {})["format"])
    except (ValueError, KeyError):
        return False
    return True


def computed(pid: int) -> float:
    """Seconds of computing that a process has taken; 0 for one that is gone, or where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


class Forked:
    """A function in a child process that shares what this one has imported; what it prints goes to the file `out`."""

    def __init__(self, work: Callable[[], object], out: Path, cwd: Path | None = None) -> None:
        self.out = out
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        status: Any = 1
        try:
            self._alone(out, cwd)
            work()
            status = 0
        except SystemExit as stop:
            status = stop.code
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(status or 0))

    @staticmethod
    def _alone(out: Path, cwd: Path | None) -> None:
        """A session of its own, signals as in a fresh process."""
        os.setsid()
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if cwd is not None:
            os.chdir(cwd)

    def send(self, number: int) -> None:
        """A signal, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self, limit: float = LIMIT) -> int | None:
        """Exit status; None where it hung and was ended: it has computed for so long, or nothing for `IDLE` seconds."""
        first = last = computed(self.pid)
        rested = time.monotonic()
        while (status := self.poll()) is None:
            time.sleep(0.01)
            if time.monotonic() < rested + IDLE:
                continue
            now = computed(self.pid)
            if now - last < 0.05 or now - first > limit:
                break
            last, rested = now, time.monotonic()
        if status is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return status

    def said(self) -> str:
        """What it printed."""
        return self.out.read_text(errors="replace")
