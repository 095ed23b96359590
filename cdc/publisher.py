"""The streams in Redis: entries appended in order, each exactly once, and the pipeline's position beside them.

One scripted call for each stream and batch. A batch is sent while the one before is still being appended, so that Redis
never waits for the reader; that is safe because each call names the entry behind which it belongs, and the script
refuses to append behind any other: when a batch fails, the next one does nothing. A batch's position is stored once its
entries are known to be in, with the call that follows. The script skips what is there already, so a call whose reply
was lost is simply made again. A skip needs proof: the entries that are there must be the ones we would have written,
else the source is not the one that wrote them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import redis

from cdc import append
from cdc.batch import Batch, StreamBatch
from cdc.counters import Counters
from cdc.errors import TransportError
from cdc.transport import refusal, translated_errors
from transforms.keys import Keys
from transforms.position import LSN, START, Position

_APPEND = resources.files("cdc").joinpath("append.lua").read_text()


class StreamHole(TransportError):
    """Redis has lost entries that were in a stream. The next session finds out whether the slot still has them."""

    retryable = True

    remedy = (
        "Find out why Redis lost data: `cdc check` prints what its persistence can lose. "
        "Run `cdc snapshot --all` and start the reader again: a fresh snapshot reconciles the replicas."
    )


class SourceDiverged(TransportError):
    """What the source sends again is not what is in the stream at that place."""

    remedy = (
        "If the source was restored from a backup or failed over, run `cdc snapshot --all` and start the reader again:"
        " a fresh snapshot reconciles the replicas. Otherwise find out who else writes to the stream."
    )


@dataclass(frozen=True, slots=True)
class _Sent:
    """What went over the wire in one go; its answers come in this order."""

    stores: Batch | None
    """The batch before, whose position is stored first."""
    batch: Batch
    known: Mapping[str, Position]
    """Stream -> the entry behind which its call appends."""
    at: float
    """When; monotonic seconds."""


class Publisher:
    """Appends batches to the pipeline's streams. Not for use from two threads at once. Methods raise TransportError.

    A batch is `send`, then it is settled and its position stored by `advance`.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        epoch: int,
        last_ids: Mapping[str, Position],
        counters: Counters | None = None,
    ) -> None:
        """`last_ids`: for each stream (without pipeline and epoch) the last id it must hold."""
        self._client = client
        self._keys = keys
        self._epoch = epoch
        self._counters = counters or Counters()
        self._sha = ""
        self._connection: Any = None
        self._sent: deque[_Sent] = deque()
        self._appended: Batch | None = None
        """Its entries are in, its position is not stored yet."""
        self._expected: dict[str, Position] = {}
        """Stream -> where it ends when all that was sent is in."""
        self.last_ids: dict[str, Position] = dict(last_ids)
        self.unproven: frozenset[bytes] = frozenset()
        """Events that were not published before: their entries may be missing among those that are skipped."""
        self.appended = 0
        self.skipped = 0

    @property
    def in_flight(self) -> int:
        """How many batches have been sent and not been answered."""
        return len(self._sent)

    @property
    def idle(self) -> bool:
        """Whether every batch that was sent is stored."""
        return not self._sent and self._appended is None

    def send(self, batch: Batch) -> None:
        """Have a batch appended behind those that were sent before; returns at once."""
        known = {stream: self._expected.get(stream, self.last_ids.get(stream, START)) for stream in batch.streams}
        with translated_errors():
            self._write(_Sent(self._appended, batch, known, time.monotonic()))
        self._appended = None
        for stream, entries in batch.streams.items():
            self._expected[stream] = max(known[stream], append.last_id(entries.items))

    def advance(self) -> LSN | None:
        """Wait for the oldest answer, or with none under way store the position of what is appended.

        Returns the end of a batch that is stored now, wholly in Redis.
        """
        with translated_errors():
            if self._sent:
                return self._settle(self._sent[0])
            if self._appended is not None:
                stored, self._appended = self._appended, None
                self._write(_Sent(stored, replace(stored, streams={}), {}, time.monotonic()))
                self._settle(self._sent[0])
                self._appended = None
                return stored.end
        return None

    def close(self) -> None:
        """Give the connection up, with the answers that may still be on their way."""
        if self._connection is not None:
            self._connection.disconnect()
            self._client.connection_pool.release(self._connection)
            self._connection = None

    # --- the wire ----------------------------------------------------------------------------------------------------

    def _write(self, sent: _Sent) -> None:
        if self._connection is None:
            self._connection = self._client.connection_pool.get_connection()
        if not self._sha:
            self._sha = self._client.script_load(_APPEND)
        commands = [] if sent.stores is None else self._store_commands(sent.stores)
        commands += [
            append.command(
                self._sha,
                self._keys.stream(stream, self._epoch),
                str(sent.known[stream]),
                entries.words,
                entries.items,
            )
            for stream, entries in sent.batch.streams.items()
        ]
        self._sent.append(sent)
        self._counters.sent_bytes += sum(map(len, commands))
        if commands:
            self._connection.send_packed_command(commands)

    def _store_commands(self, batch: Batch) -> list[bytes]:
        fields: list[str] = ["published", str(batch.end)]
        for stream in batch.streams:
            fields += [f"last:{stream}", str(self.last_ids[stream])]
        commands: list[tuple[str, ...]] = [("MULTI",), ("HSET", self._keys.meta, *fields)]
        if batch.notes:
            commands.append(("HSET", self._keys.runs, *(word for note in batch.notes.items() for word in note)))
        commands.append(("EXEC",))
        return [self._connection.pack_command(*command)[0] for command in commands]

    def _settle(self, sent: _Sent) -> LSN | None:
        """Read the answers to what was sent first. After an error the connection is of no use any more."""
        if sent.stores is not None:
            for _ in range(3 + bool(sent.stores.notes)):
                answer = self._connection.read_response()
            if failed := [one for one in answer if isinstance(one, Exception)]:
                raise failed[0]
        replies = [self._connection.read_response() for _ in sent.batch.streams]
        failures = [
            failure
            for (stream, entries), reply in zip(sent.batch.streams.items(), replies, strict=True)
            if (failure := self._take_reply(stream, entries, reply))
        ]
        if failures:
            raise failures[0]
        if replies:
            self._counters.batch_answered(time.monotonic() - sent.at)
        self._sent.popleft()
        before, self._appended = self._appended, sent.batch
        if before is not None:  # it was appended while this one was on its way: its position goes with this one's
            self._appended = before.joined(sent.batch)
        return None if sent.stores is None else sent.stores.end

    def _take_reply(self, stream: str, entries: StreamBatch, reply: Sequence[Any]) -> TransportError | None:
        appended, skipped, last, *error = reply
        if error:
            text = error[0].decode(errors="replace")
            if text.startswith("HOLE"):
                return StreamHole(f"stream {self._keys.stream(stream, self._epoch)} lost entries: {text[5:]}")
        self.last_ids[stream] = Position.parse(last.decode())
        self.appended += appended
        self._counters.entries[stream] += appended
        if skipped:
            self.skipped += skipped
            self._counters.repeats[stream] += skipped
            self._prove(stream, entries, skipped)
        return refusal(error[0].decode(errors="replace")) if error else None

    def _prove(self, stream: str, entries: StreamBatch, skipped: int) -> None:
        """Compare skipped entries with those in the stream: the same id must have the same tx and ts."""
        expected = dict(append.identities(entries.items, skipped))
        ids = list(expected)
        key = self._keys.stream(stream, self._epoch)
        pipe = self._client.pipeline(transaction=True)  # else the stream could be trimmed between the two
        pipe.xrange(key, count=1)
        pipe.xrange(key, ids[0], ids[-1])
        oldest, there = pipe.execute()
        found = {entry_id: (fields.get(b"tx"), fields.get(b"ts")) for entry_id, fields in there}
        floor = Position.parse(oldest[0][0].decode()) if oldest else self.last_ids[stream]
        for entry_id, (type_, tx, ts) in expected.items():
            if entry_id in found:
                if found[entry_id] != (tx, ts):
                    raise SourceDiverged(f"entry {entry_id.decode()} of {key} belongs to another transaction")
            elif Position.parse(entry_id.decode()) >= floor and type_ not in self.unproven:
                raise SourceDiverged(f"entry {entry_id.decode()} is not in {key}, though later ones are")
