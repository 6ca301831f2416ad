"""Group commit: when what was written is forced to the disk, and who waits for it.

Belongs here: the bound on what a power loss may cost, and the thread that keeps it. Does not belong here:
what is forced (`decision_log`, `vault`).

    every   ms   a power loss may cost
    0       0    what the operating system had not written by itself: about 30 s on Linux
    1       -    nothing that was answered: a record is forced before its decision is answered
    n > 1   -    the last n records at the most
    -       m    what was written in the last m ms at the most
    n       m    whichever is less

A thread forces early, at half of either bound; an append waits only where the disk does not keep up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from fraud_platform.errors import DecisionLogError, SettingsError

WAIT_MAX_S = 5.0
"""A disk that takes longer than this to force is as good as none."""


@dataclass(frozen=True)
class SyncPolicy:
    """every: records, ms: milliseconds that a power loss may cost; 0 sets no bound."""

    every: int = 0
    ms: int = 0

    def __post_init__(self) -> None:
        if self.every < 0 or self.ms < 0:
            raise SettingsError(f"sync every {self.every} records, {self.ms} ms: give 0 or more of both")

    @property
    def is_immediate(self) -> bool:
        return self.every == 1

    @property
    def is_bounded(self) -> bool:
        return self.every > 0 or self.ms > 0


class GroupCommit:
    """Keeps a policy for one writer. `force` makes durable what was written before it was called.

    DecisionLogError from `room` while forcing fails: nothing is acknowledged that could not be kept.
    """

    def __init__(self, policy: SyncPolicy, force: Callable[[], None]) -> None:
        self._policy = policy
        self._force = force
        self._changed = threading.Condition()
        self._written = self._forced = 0
        self._oldest = 0.0
        self._error: OSError | None = None
        self._is_closing = False
        self._thread: threading.Thread | None = None
        if policy.is_bounded and not policy.is_immediate:
            self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
            self._thread.start()

    def room(self) -> None:
        """Waits until one more record may be written within the bound."""
        if self._thread is None:
            return
        with self._changed:
            if not self._changed.wait_for(self._has_room, WAIT_MAX_S):
                cause = self._error or f"no answer for {WAIT_MAX_S:g} s"
                raise DecisionLogError(f"the disk does not force what was written: {cause}; replace the disk")

    def wrote(self) -> None:
        """One more record was written; with `every=1` it is on the disk when this returns."""
        if self._policy.is_immediate:
            self._force()
        elif self._thread is not None:
            with self._changed:
                if self._written == self._forced:
                    self._oldest = monotonic()
                    self._changed.notify_all()
                self._written += 1
                if self._is_half_full():
                    self._changed.notify_all()

    def close(self) -> None:
        """Forces the rest."""
        if self._thread is not None:
            with self._changed:
                self._is_closing = True
                self._changed.notify_all()
            self._thread.join()
            self._thread = None
        if self._policy.is_bounded:
            self._force()

    def _has_room(self) -> bool:
        waiting = self._written - self._forced
        if not waiting:
            return True
        is_few = not self._policy.every or waiting < self._policy.every
        is_young = not self._policy.ms or (monotonic() - self._oldest) * 1000 < self._policy.ms
        return is_few and is_young and self._error is None

    def _is_half_full(self) -> bool:
        return bool(self._policy.every) and (self._written - self._forced) * 2 >= self._policy.every

    def _run(self) -> None:
        with self._changed:
            while not self._is_closing:
                self._changed.wait_for(lambda: self._is_closing or self._written > self._forced)
                if self._is_closing:
                    return
                if self._policy.ms and not self._error:
                    due = self._oldest + self._policy.ms / 2000
                    self._changed.wait_for(
                        lambda: self._is_closing or self._is_half_full(), max(due - monotonic(), 0.0)
                    )
                elif not self._error:
                    self._changed.wait_for(lambda: self._is_closing or self._is_half_full())
                else:
                    self._changed.wait(0.05)
                self._force_waiting()

    def _force_waiting(self) -> None:
        written, began = self._written, monotonic()
        self._changed.release()
        error = None
        try:
            self._force()
        except OSError as found:
            error = found
        finally:
            self._changed.acquire()
        self._error = error
        if error is None:
            self._forced, self._oldest = written, began
        self._changed.notify_all()
