"""How many entries lie behind a position of a stream, which Redis cannot tell without counting them one by one.

Redis counts the entries ever added to a stream. Where the stream ended each time that number was looked at makes a
trail, along which any position is found again.
"""

from __future__ import annotations

from collections.abc import Iterable

from transforms.position import Position

MOST_SAMPLES = 64


class EntryTrail:
    """Samples of a stream's end, the oldest first."""

    def __init__(self, samples: Iterable[tuple[Position, int]] = ()) -> None:
        """`samples`: (the last entry, how many entries had been added with it)."""
        self._samples = list(samples)

    @property
    def samples(self) -> tuple[tuple[Position, int], ...]:
        """All of them."""
        return tuple(self._samples)

    def note(self, last: Position, added: int) -> None:
        """The stream ends here now. An end that went back belongs to another stream, and the trail begins anew."""
        if self._samples and (last < self._samples[-1][0] or added < self._samples[-1][1]):
            self._samples = []
        if not self._samples or last > self._samples[-1][0]:
            if len(self._samples) >= MOST_SAMPLES:
                self._samples = self._samples[::2]  # so that a long trail stays small
            self._samples.append((last, added))

    def forget_before(self, first: Position) -> None:
        """Entries before this one are gone: who stands there needs no sample but the nearest."""
        while len(self._samples) > 1 and self._samples[1][0] <= first:
            del self._samples[0]

    def behind(self, position: Position) -> int:
        """How many entries there are behind a position, at least; exact to the samples' distance."""
        if not self._samples:
            return 0
        end = self._samples[-1][1]
        return next((end - added for last, added in self._samples if last >= position), 0)
