"""Streaming replication through libpq: COPY BOTH with a walsender.

psycopg has no replication cursor, so this file drives the protocol over `conn.pgconn`: frames out, status updates in.
It knows nothing of transactions; `received` is kept for the server's statistics only.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import pq

from cdc import walsender
from cdc.errors import SourceError, SourceUnreachable, source_error
from cdc.source.connection import session_conninfo, translated_errors
from transforms.address import Address
from transforms.position import LSN

STATUS_INTERVAL_SECONDS = 5.0
"""How often the slot hears from us; a third of wal_sender_timeout is used where that is shorter."""

SILENCE_LIMIT_SECONDS = 45.0
"""A walsender that says nothing for so long, though asked, is gone; wal_sender_timeout's default is 60. Where that is
short it is twice as long as that, since the server then speaks at least once in it."""

INATTENTION_SECONDS = 5.0
"""Whoever has not looked for frames for so long cannot say that none came."""

_EPOCH_2000 = 946_684_800
_NOT_IN_PREREQUISITE_STATE = "55000"
_UNDEFINED_OBJECT = "42704"


class PublicationYounger(SourceError):
    """What the slot holds was written before the publication was made: Postgres 18 skips it, older ones refuse it."""

    remedy = (
        "Run `cdc snapshot --all` and start the reader again: it begins a new epoch of the streams, with a new slot;"
        " a fresh snapshot reconciles the replicas."
    )


class SlotHeld(SourceError):
    """Another process reads from the slot."""

    retryable = True
    exit_code = 4
    remedy = "Stop the other reader, or leave this one running as its standby: it takes over when the slot is free."


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """IDENTIFY_SYSTEM: which cluster this is, and which branch of its history."""

    system_identifier: str
    timeline: int
    wal_position: LSN


class ReplicationConnection:
    """One walsender's client. Not for use from two threads at once."""

    def __init__(self, address: Address, application_name: str) -> None:
        """Connect. Raises SourceError, NotEncrypted."""
        conninfo = session_conninfo(address, application_name)
        with translated_errors():
            self._conn = psycopg.connect(conninfo, replication="database", autocommit=True)
        self._pgconn = self._conn.pgconn
        self._warnings: list[str] = []
        self._conn.add_notice_handler(self._note)
        self.received = LSN(0)
        self._last_status = self._silent_since = self._looked_at = time.monotonic()
        self._status_interval = STATUS_INTERVAL_SECONDS
        self._silence_limit = SILENCE_LIMIT_SECONDS

    def identify_system(self) -> SystemIdentity:
        """Ask which cluster and timeline this is."""
        with translated_errors():
            row = self._conn.execute("IDENTIFY_SYSTEM").fetchone()
            timeout = self._conn.execute("SHOW wal_sender_timeout").fetchone()
        assert row is not None
        assert timeout is not None
        if (seconds := _seconds(timeout[0])) > 0:
            self._status_interval = min(STATUS_INTERVAL_SECONDS, seconds / 3)
            self._silence_limit = min(SILENCE_LIMIT_SECONDS, 2 * seconds)
        return SystemIdentity(row[0], int(row[1]), LSN.parse(row[2]))

    def timeline_end(self, timeline: int, of: int) -> LSN | None:
        """Where `timeline`, one of the ancestors of timeline `of`, was left for the next one; None: it is no ancestor.

        Source: https://www.postgresql.org/docs/current/protocol-replication.html (TIMELINE_HISTORY)
        """
        with translated_errors():
            row = self._conn.execute(f"TIMELINE_HISTORY {of:d}".encode()).fetchone()
        assert row is not None
        content = row[1].decode() if isinstance(row[1], bytes) else str(row[1])
        for line in content.splitlines():
            words = line.split()
            if words and words[0] == str(timeline):
                return LSN.parse(words[1])
        return None

    def start(self, slot: str, publication: str) -> None:
        """Begin streaming at the slot's confirmed position. Raises SlotHeld, SourceError."""
        command = (
            f'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 '
            f"(proto_version '1', publication_names '\"{publication}\"', messages 'true')"
        )
        with translated_errors():
            result = self._pgconn.exec_(command.encode())
            if result.status != pq.ExecStatus.COPY_BOTH:
                sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode() or None
                text = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode()
                if sqlstate == "55006":
                    raise SlotHeld(text)
                raise source_error(sqlstate, text)
        self._silent_since = self._looked_at = time.monotonic()

    def frames(self) -> Iterator[bytes]:
        """The frames that are here already, without waiting. Raises SourceUnreachable when the stream ends."""
        get_copy_data = self._pgconn.get_copy_data
        asked = False  # the socket was read, and nothing has come out of it yet
        while True:
            try:
                size, data = get_copy_data(1)
                if size > 0:
                    if asked:
                        asked, self._silent_since = False, time.monotonic()
                    yield bytes(data)
                elif size < 0:
                    raise self._ended()
                elif asked:
                    self._found_nothing(time.monotonic())
                    break
                else:
                    self._pgconn.consume_input()
                    asked = True
            except psycopg.Error as error:
                raise source_error(error.sqlstate, str(error)) from error
        if self._warnings:
            raise PublicationYounger(f"the publication is younger than the slot: {'; '.join(self._warnings)}")

    def _found_nothing(self, now: float) -> None:
        """The server is silent only while somebody listens, which a reader does not that waits for Redis."""
        if now - self._looked_at > INATTENTION_SECONDS:
            self._silent_since = now
        self._looked_at = now

    def _ended(self) -> SourceError:
        result = self._pgconn.get_result()
        if result is None:
            return SourceUnreachable("the server ended the replication stream")
        sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
        if sqlstate == _UNDEFINED_OBJECT and message.startswith("publication "):
            return PublicationYounger(f"the publication is younger than the slot: {message}")
        return source_error(sqlstate or None, result.error_message.decode(errors="replace") or "the stream ended")

    def wait(self, wake_socket: int, timeout_seconds: float) -> None:
        """Wait until frames may be here, the wake socket is readable, or time is up."""
        select.select([self._pgconn.socket, wake_socket], [], [], timeout_seconds)

    @property
    def holds_little(self) -> bool:
        """Whether the kernel keeps only some hundred messages for us: over a Unix socket."""
        return not self._pgconn.hostaddr

    def status_due(self, now: float) -> bool:
        """Whether it is time to send a status update though nothing new is confirmed."""
        return now - self._last_status >= self._status_interval

    def send_status(self, confirmed: LSN) -> None:
        """Tell the server how far we are. Asks for an answer when it has been silent for some time."""
        now = time.monotonic()
        silent = self._looked_at - self._silent_since
        if silent > self._silence_limit:
            raise SourceUnreachable(f"the server has been silent for {silent:.0f} s though asked")
        frame = walsender.encode_status_update(
            max(self.received, confirmed),
            confirmed,
            int((time.time() - _EPOCH_2000) * 1_000_000),
            reply_requested=silent > self._silence_limit / 3,
        )
        with translated_errors():
            self._pgconn.put_copy_data(frame)
            self._pgconn.flush()
        self._last_status = now

    def fileno(self) -> int:
        """The socket, for `select`."""
        return self._pgconn.socket

    def close(self) -> None:
        """Close the connection; the server frees the slot at once."""
        self._conn.close()

    def _note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.sqlstate == _NOT_IN_PREREQUISITE_STATE:
            self._warnings.append(diagnostic.message_primary or "")


def _seconds(setting: str) -> float:
    """Read a duration as SHOW prints it (`1min`, `500ms`, `0`)."""
    for unit, factor in (("ms", 0.001), ("min", 60.0), ("h", 3600.0), ("d", 86400.0), ("s", 1.0)):
        if setting.endswith(unit):
            return float(setting[: -len(unit)]) * factor
    return float(setting)
