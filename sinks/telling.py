"""What a worker tells the world of a session: its status, and where it is in each stream, as consumer groups."""

from __future__ import annotations

import logging
import time

from sinks.control import Control
from sinks.counters import Counters
from sinks.errors import TransportFull
from sinks.progress import FillingLog
from sinks.session import Session
from sinks.status import SinkStatus
from sinks.stream import StreamReader
from transforms.failpoints import Failpoint, reached
from transforms.position import Position

log = logging.getLogger(__name__)

TELL_SECONDS = 1.0
"""How often, at most, status and consumer groups are written, and an idle `applied_lsn`."""


class Teller:
    """Writes a sink's status. All methods raise SinkError."""

    def __init__(self, status: SinkStatus, counters: Counters) -> None:
        self._status = status
        self._counters = counters
        self._filling = FillingLog()
        self._told_at = 0.0
        self._moved: dict[str, Position] = {}
        """Stream -> where its consumer group was left."""

    def begin(self) -> None:
        """A session begins, of which nothing has been told."""
        self._told_at = 0.0
        self._moved.clear()

    def is_due(self) -> bool:
        """Whether it is time to tell how far the session is."""
        return time.monotonic() - self._told_at >= TELL_SECONDS

    def tell(self, control: Control) -> None:
        """Write the status as it is; not into a Redis that is full, which must not keep a sink from emptying it."""
        try:
            control.write_status(self._status.to_json())
        except TransportFull as error:
            log.debug("the status is not written: %s", error)
        self._told_at = time.monotonic()

    def tell_progress(self, session: Session, control: Control, reader: StreamReader) -> None:
        """Take a session's progress into the status, and write it; move the groups whose position has changed."""
        status = self._status
        applied = [checkpoint.applied_lsn for checkpoint in session.checkpoints.values()]
        known = [lsn for lsn in applied if lsn is not None]
        status.applied_lsn = min(known) if len(known) == len(applied) else None
        status.streams = {stream: checkpoint.position for stream, checkpoint in session.checkpoints.items()}
        status.rows = self._counters.rows.total()
        status.rebuilds = [rebuild.record.to_json() for rebuild in session.rebuilds.values()]
        status.at_end = all(session.at_end.get(stream, False) for stream in session.checkpoints)
        if status.state != "stopped":
            filled = [*session.replicas.values(), *(rebuild.shadow for rebuild in session.rebuilds.values())]
            runs = [replica.label for replica in filled if replica.run is not None]
            status.enter("snapshotting" if runs else "streaming")
            self._filling.observe(runs, status.rows, time.monotonic())
        for stream, position in status.streams.items():
            if self._moved.get(stream) != position:
                reader.move_group(stream, position)
                self._moved[stream] = position
                reached(Failpoint.GROUP_MOVED)
        self.tell(control)
