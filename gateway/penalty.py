"""The penalty box of a line that devices share: one that doesn't answer must not cost the others their turns.

It is probed at once after its first failure, which may have been noise, and then more and more rarely: when nothing else is
due for as long as a probe may take, or, on a line that is never idle, when it has waited long enough for that.
"""

from math import inf

PROBE_S_MAX = 30.0
PATIENCE_S_MAX = 30.0


class Penalty:
    """Of a device that is otherwise asked every `interval_s`. In the box while it has `failures`."""

    def __init__(self, interval_s: float, probe_s_max: float = PROBE_S_MAX) -> None:
        self.failures = 0
        self.probe_at = inf
        self._interval_s = interval_s
        self._probe_s_max = probe_s_max

    def failed(self, now: float) -> None:
        self.failures += 1
        wait_s = self._interval_s * 2 ** min(self.failures - 2, 16) if self.failures > 1 else 0.0
        self.probe_at = now + min(self._probe_s_max, wait_s)

    def answered(self) -> None:
        self.failures, self.probe_at = 0, inf

    def may_probe(self, now: float, due: float, silence_s: float) -> bool:
        """Whether it is time, where something else is `due` next and an unanswered probe takes `silence_s`."""
        patience_s = min(self._interval_s, PATIENCE_S_MAX) if self.failures == 1 else PATIENCE_S_MAX
        return self.probe_at <= now and (due - now >= silence_s or now - self.probe_at >= patience_s)

    def pause_s(self, now: float, due: float) -> float:
        """How long there is nothing to do, if neither it nor what is `due` next has its turn now."""
        return (due if self.probe_at <= now else min(due, self.probe_at)) - now
