"""What is known of each stream from one look to the next: its trails, and where its young entries begin."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc.errors import TransportFull
from cdc.retention.entry_trail import EntryTrail
from cdc.retention.judging import StreamSeen
from cdc.retention.streams import Streams
from cdc.trail import Trail
from transforms.position import LSN, START, Position

log = logging.getLogger(__name__)

YOUNG_SECONDS = 30.0
"""How often, at least, it is looked which entries are older than `retain`; a twentieth of that if it is shorter."""


@dataclass(slots=True)
class _Watched:
    trail: EntryTrail
    floors: Trail = field(default_factory=Trail)
    """Up to where entries would have gone, when nobody was left to read them."""
    last: Position = START
    young: Position | None = None
    young_at: float = 0.0


class WatchedStreams:
    """Keeps it for one process; trails are stored, so that the next one knows them too."""

    def __init__(self, retain_seconds: float) -> None:
        self._retain_seconds = retain_seconds
        self._watched: dict[str, _Watched] = {}
        """By stream key."""
        self._stored: Mapping[str, EntryTrail] | None = None
        """Trails that an earlier process has left; None: not read yet."""

    @property
    def are_loaded(self) -> bool:
        """Whether the trails of earlier processes are known."""
        return self._stored is not None

    def load(self, streams: Streams) -> None:
        """Read the trails that an earlier process has left. Raises TransportError."""
        self._stored = streams.trails()

    def store(self, streams: Streams) -> None:
        """Store all trails; a full Redis is left alone. Raises TransportError."""
        try:
            streams.store_trails({key: each.trail for key, each in self._watched.items()})
        except TransportFull:  # the trails can wait, trimming cannot
            log.debug("no memory to store trails")

    def trail(self, seen: StreamSeen) -> EntryTrail:
        """A stream's trail up to its present end."""
        if (watched := self._watched.get(seen.key)) is None:
            watched = self._watched[seen.key] = _Watched((self._stored or {}).get(seen.key) or EntryTrail())
        if seen.last < watched.last:  # another stream of this name: the one before was removed
            watched.young = None
        watched.last = seen.last
        watched.trail.note(seen.last, seen.added)
        watched.trail.forget_before(seen.first)
        return watched.trail

    def young(self, streams: Streams, seen: StreamSeen) -> Position:
        """The first entry that is younger than `retain`, of a stream whose trail is known. Raises TransportError."""
        if not self._retain_seconds:
            return Position(LSN(seen.last.commit_lsn + 1), 0)
        watched, now = self._watched[seen.key], time.monotonic()
        if watched.young is None or now - watched.young_at >= min(YOUNG_SECONDS, self._retain_seconds / 20):
            watched.young = streams.younger_than(seen, time.time() - self._retain_seconds)
            watched.young_at = now
        return watched.young

    def note_floor(self, seen: StreamSeen, floor: Position) -> None:
        """Entries of a stream would go now up to here, if nobody was waited for."""
        self._watched[seen.key].floors.note(time.monotonic(), floor.commit_lsn)

    def holding_seconds(self, seen: StreamSeen, position: Position) -> float:
        """For how long somebody who stands here has kept entries that would be gone; 0: he keeps none."""
        return self._watched[seen.key].floors.behind_seconds(position.commit_lsn, time.monotonic())
