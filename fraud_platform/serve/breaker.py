"""A breaker: leaves a part alone for a moment once it has failed, so that no request waits for it again."""

from __future__ import annotations

FAILURES_MAX = 3
REST_NS = 250_000_000


class Breaker:
    """Opens after FAILURES_MAX failures in a row; closes at the first success.

    While it is open one request in REST_NS tries. slow_ns: what takes longer is a failure, whatever it
    answers. Times are of one steady clock, ns. For one thread.
    """

    def __init__(self, slow_ns: int) -> None:
        self._slow_ns = slow_ns
        self._failures = 0
        self._next_try_ns = 0
        self.is_slow = False

    @property
    def is_open(self) -> bool:
        return self._failures >= FAILURES_MAX

    def allows(self, now_ns: int) -> bool:
        return not self.is_open or now_ns >= self._next_try_ns

    def ended(self, started_ns: int, ended_ns: int, *, is_failed: bool = False) -> None:
        """Of every call that was allowed."""
        self.is_slow = ended_ns - started_ns > self._slow_ns
        if not is_failed and not self.is_slow:
            self._failures = 0
            return
        self._failures += 1
        if self.is_open:
            self._next_try_ns = ended_ns + REST_NS
