"""Where something stood at times past, so that a distance in bytes of log can be told in seconds.

The age of the change that came last does not tell it: with nothing new in the mapped tables that age grows although
nothing is missing. What tells it is when the log's end was first seen beyond the place that has been reached.
"""

from __future__ import annotations

from transforms.position import LSN

MOST_SAMPLES = 512


class Trail:
    """Samples of a position that only grows. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, LSN]] = []

    @property
    def latest(self) -> LSN | None:
        """The position seen last."""
        return self._samples[-1][1] if self._samples else None

    def note(self, now: float, position: LSN) -> None:
        """The position is here now. A position that went back belongs to another log, and the trail begins anew."""
        if self._samples and position < self._samples[-1][1]:
            self._samples = []
        if not self._samples or position > self._samples[-1][1]:
            self._samples = [*self._thinned(), (now, position)]

    def behind_seconds(self, reached: LSN, now: float) -> float:
        """For how long at least there has been something beyond `reached`; exact to the samples' distance."""
        return max((now - at for at, position in self._samples if position > reached), default=0.0)

    def is_older_than_all(self, reached: LSN) -> bool:
        """Whether `reached` lies before the first sample, so that `behind_seconds` is a lower bound and no more."""
        return bool(self._samples) and reached < self._samples[0][1]

    def lag_seconds(self, reached: LSN, now: float, newest_age: float | None) -> float:
        """For how long at least there has been something beyond `reached`.

        `newest_age`: how long ago what was delivered last was committed, which tells more of a backlog from before the
        first sample; None: nothing was.
        """
        behind = self.behind_seconds(reached, now)
        return max(behind, newest_age) if behind and newest_age and self.is_older_than_all(reached) else behind

    def growth(self, now: float, window_seconds: float) -> float | None:
        """Bytes a second over about the window, or since the first sample; None: nothing is known yet."""
        if not self._samples or now <= self._samples[0][0]:
            return None
        in_time = [sample for sample in self._samples if sample[0] <= now - window_seconds]
        at, position = in_time[-1] if in_time else self._samples[0]
        return (self._samples[-1][1] - position) / (now - at)

    def _thinned(self) -> list[tuple[float, LSN]]:
        """Half of the samples once there are many, so that a long trail stays small."""
        return self._samples if len(self._samples) < MOST_SAMPLES else self._samples[::2]
