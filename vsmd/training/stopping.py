"""Signals that wait: SIGTERM and Ctrl-C let a step end and its checkpoint be written before they take effect."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Held:
    """While entered, the first SIGINT or SIGTERM is only noted in `caught`; a second one takes effect at once.

    Does nothing unless `active` and in the main thread, the only one that Python lets handle signals; a signal that
    was ignored before stays so. patient: a second one changes nothing (torchrun passes on to its processes what they
    have had from the terminal, and kills them after 30 s).
    """

    def __init__(self, active: bool, patient: bool = False) -> None:
        self.active = active and threading.current_thread() is threading.main_thread()
        self.patient, self.caught = patient, 0

    def __enter__(self) -> Held:
        handled = [s for s in SIGNALS if self.active and signal.getsignal(s) not in (signal.SIG_IGN, None)]
        self._before = {s: signal.signal(s, self._note) for s in handled}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.caught and not self.patient:
            self.release()
            signal.raise_signal(number)
        self.caught = self.caught or number

    def release(self) -> None:
        """Handle signals as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, *error: object) -> None:
        self.release()
