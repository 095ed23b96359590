"""The streams in Redis: entries appended in order, each exactly once, and the pipeline's position beside them.

A batch is one transaction of Redis: plain XADDs, for a script that appends costs Redis twice as much, and around those
of each stream the guard of `append.lua`. It is sent while the one before is still being appended, so that Redis never
waits for the reader; that is safe because the guard knows the entry behind which a batch belongs, and lets nothing be
appended behind any other: when a batch fails, the next one does nothing. Redis is told to keep its many answers to
itself; how far each stream has come before and after tells what a batch came to, and when something was refused it is
sent again to hear why.

A batch's position is stored once its entries are known to be in, with the batch that follows. XADD refuses what is
there already, for ids rise, so a batch whose answer was lost is simply sent again. A repeat needs proof: the entries
that are there must be the ones we would have written, else the source is not the one that wrote them.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import takewhile
from typing import Any, NamedTuple, NoReturn

import redis

from cdc import append
from cdc.batch import Batch, StreamBatch
from cdc.counters import Counters
from cdc.errors import TransportError, TransportUnreachable
from cdc.transport import EntryTooLarge, translated_errors
from transforms.keys import Keys
from transforms.position import LSN, START, Position

log = logging.getLogger(__name__)

_GUARD = resources.files("cdc").joinpath("append.lua").read_text()
_QUIET, _NOT_QUIET = append.command(b"CLIENT", b"REPLY", b"OFF"), append.command(b"CLIENT", b"REPLY", b"ON")
_MULTI, _EXEC = append.command(b"MULTI"), append.command(b"EXEC")
_LOAD = append.command(b"SCRIPT", b"LOAD", _GUARD.encode())
"""Part of every transaction: a guard that Redis has forgotten (SCRIPT FLUSH) would let its XADDs through unguarded."""


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


MOST_BYTES = 1 << 30
"""Redis refuses an entry with more, and only when it runs the transaction (t_stream.c: STREAM_LISTPACK_MAX_SIZE)."""
LOUD_BYTES = 1_000_000
"""From this size on an entry may be larger than Redis takes (proto-max-bulk-len is 1 MB or more), which only its answer
tells: the connection ends with it."""


class _Seen(NamedTuple):
    """Where a stream ends, and how many entries it has ever been given."""

    last: Position
    added: int


@dataclass(frozen=True, slots=True)
class _Sent:
    """What went over the wire in one go; its answers come in this order."""

    stores: Batch | None
    """The batch before, whose position is stored first."""
    batch: Batch
    known: Mapping[str, Position]
    """Stream -> the entry behind which its call appends."""
    quiet: bool
    """Redis keeps its answers to the single entries to itself."""
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
        self._sha = b""
        self._connection: Any = None
        self._may_be_quiet = False
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
            self._write(self._appended, batch, known)
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
                self._write(stored, replace(stored, streams={}), {})
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

    def _write(self, stores: Batch | None, batch: Batch, known: Mapping[str, Position]) -> None:
        if self._connection is None:
            self._connect()
        largest = max((len(item) for entries in batch.streams.values() for item in entries.items), default=0)
        if largest > MOST_BYTES:
            raise EntryTooLarge(f"an entry has {largest:,} bytes, Redis takes at most {MOST_BYTES:,}")
        sent = _Sent(stores, batch, known, self._may_be_quiet and largest <= LOUD_BYTES, time.monotonic())
        self._sent.append(sent)
        commands = [] if stores is None else self._store_commands(stores)
        if batch.streams:
            commands += self._append_commands(sent)
        self._transmit(commands)

    def _connect(self) -> None:
        self._connection = self._client.connection_pool.get_connection()
        self._sha = self._client.script_load(_GUARD).encode()
        self._may_be_quiet = self._can_be_quiet()
        for stream in self.last_ids:  # what the guard may have to do must be permitted
            self._ask(self._guard(stream, b"prove"))

    def _can_be_quiet(self) -> bool:
        """Whether answers are left out when they are to be; a proxy may say so and send them."""
        token = secrets.token_hex(8).encode()
        ping = append.command(b"PING", token)
        try:
            self._ask(_NOT_QUIET)
        except redis.ResponseError as error:
            log.info("Redis does not let answers be left out, which costs some speed: %s", error)
            return False
        self._transmit([_QUIET, append.command(b"PING"), _NOT_QUIET, ping])
        answers: list[Any] = []
        while not answers or answers[-1] != token:
            try:
                answers.append(self._connection.read_response())
            except redis.ResponseError as error:
                answers.append(error)
        return answers == [b"OK", token]

    def _ask(self, command: bytes) -> Any:
        self._transmit([command])
        return self._connection.read_response()

    def _transmit(self, commands: Sequence[bytes]) -> None:
        self._counters.sent_bytes += sum(map(len, commands))
        if commands:
            self._connection.send_packed_command([b"".join(commands)], check_health=False)  # no PING among the answers

    def _guard(self, stream: str, *arguments: bytes) -> bytes:
        key, shut = self._keys.stream(stream, self._epoch), self._keys.shut(stream, self._epoch)
        return append.command(b"EVALSHA", self._sha, b"2", key.encode(), shut.encode(), *arguments)

    def _append_commands(self, sent: _Sent) -> list[bytes]:
        looks = [self._guard(stream, b"look") for stream in sent.batch.streams]
        commands = [*looks, *([_QUIET] if sent.quiet else []), _MULTI, _LOAD]
        for stream, entries in sent.batch.streams.items():
            commands.append(self._guard(stream, b"open", str(sent.known[stream]).encode()))
            commands += entries.items
            commands.append(self._guard(stream, b"close"))
        return [*commands, _EXEC, *([_NOT_QUIET] if sent.quiet else []), *looks]

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
        self._read_stored(sent)
        if sent.batch.streams:
            self._settle_entries(sent)
            self._counters.batch_answered(time.monotonic() - sent.at)
        self._sent.popleft()
        before, self._appended = self._appended, sent.batch
        if before is not None:  # it was appended while this one was on its way: its position goes with this one's
            self._appended = before.joined(sent.batch)
        return None if sent.stores is None else sent.stores.end

    def _read_stored(self, sent: _Sent) -> None:
        if sent.stores is not None:
            for _ in range(3 + bool(sent.stores.notes)):
                answer = self._connection.read_response()
            if failed := [one for one in answer if isinstance(one, Exception)]:
                raise failed[0]

    def _settle_entries(self, sent: _Sent) -> None:
        streams = sent.batch.streams
        before, refusals, after = self._read_answers(sent)
        self._expect_no_hole(sent, before)
        if refusals:
            raise refusals[0]
        if any(seen.last < append.last_id(streams[stream].items) for stream, seen in zip(streams, after, strict=True)):
            self._hear_why(sent)
        for stream, seen, then in zip(streams, before, after, strict=True):
            self._take(stream, streams[stream], seen, then)

    def _expect_no_hole(self, sent: _Sent, before: Sequence[_Seen]) -> None:
        for (stream, known), seen in zip(sent.known.items(), before, strict=True):
            if seen.last < known:
                key = self._keys.stream(stream, self._epoch)
                raise StreamHole(f"stream {key} lost entries: it ends at {seen.last}, expected {known}")

    def _hear_why(self, sent: _Sent) -> NoReturn:
        """Redis refused a batch without a word: send it again so that its answers are heard. Raises what they say."""
        for later in list(self._sent)[1:]:  # the guard has kept these out
            self._read_stored(later)
            self._read_answers(later)
        loud = replace(sent, quiet=False)
        self._transmit(self._append_commands(loud))
        before, refusals, _ = self._read_answers(loud)
        self._expect_no_hole(loud, before)
        raise refusals[0] if refusals else TransportUnreachable("Redis refused a batch that it takes now")

    def _read_answers(self, sent: _Sent) -> tuple[list[_Seen], list[Exception], list[_Seen]]:
        """Where the streams ended before; what was refused, as far as it is told; where they end."""
        streams = sent.batch.streams
        before = [self._read_look() for _ in streams]
        refusals = []
        if streams and sent.quiet:
            self._connection.read_response()  # to the command that ends the quiet
        elif streams:
            for _ in range(2 + sum(entries.count + 2 for entries in streams.values())):
                self._connection.read_response()  # "queued", or why not
            answers = self._connection.read_response()
            errors = [one for one in answers if isinstance(one, Exception)]
            refusals = [one for one in errors if "equal or smaller" not in str(one)]  # those are there already
            at = 1  # behind the answer to _LOAD; what a guard has seen is of the very moment
            for index, entries in enumerate(streams.values()):
                if not isinstance(answers[at], Exception):
                    before[index] = self._as_seen(answers[at])
                at += entries.count + 2
        return before, refusals, [self._read_look() for _ in streams]

    def _read_look(self) -> _Seen:
        return self._as_seen(self._connection.read_response())

    @staticmethod
    def _as_seen(answer: Any) -> _Seen:
        last, added = answer
        return _Seen(Position.parse(last.decode()), added)

    def _take(self, stream: str, entries: StreamBatch, seen: _Seen, then: _Seen) -> None:
        items = entries.items
        there = (Position.parse(append.entry_id(item).decode()) <= seen.last for item in items)
        skipped = sum(1 for _ in takewhile(bool, there))  # ids rise
        appended = entries.count - skipped
        self.last_ids[stream] = then.last
        self.appended += appended
        self._counters.entries[stream] += appended
        self.skipped += skipped
        self._counters.repeats[stream] += skipped
        if then.added - seen.added != appended or then.last != max(seen.last, append.last_id(items)):
            self._prove(stream, items)  # somebody else wrote meanwhile, or one was refused between others
        elif skipped:
            self._prove(stream, items[:skipped])

    def _prove(self, stream: str, items: Sequence[bytes]) -> None:
        """Compare skipped entries with those in the stream: the same id must have the same tx and ts."""
        expected = dict(append.identities(items))
        if len(expected) < len(items):
            raise SourceDiverged(f"two entries for {self._keys.stream(stream, self._epoch)} have one id")
        ids = list(expected)
        key = self._keys.stream(stream, self._epoch)
        pipe = self._client.pipeline(transaction=True)  # else the stream could be trimmed between the two
        pipe.xrange(key, count=1)
        pipe.xrange(key, ids[0], ids[-1])
        oldest, there = pipe.execute()
        found = {entry_id: (fields.get(b"tx"), fields.get(b"ts")) for entry_id, fields in there}
        last = self.last_ids[stream]
        floor = Position.parse(oldest[0][0].decode()) if oldest else Position(last.commit_lsn, last.ordinal + 1)
        for entry_id, (type_, tx, ts) in expected.items():
            if entry_id in found:
                if found[entry_id] != (tx, ts):
                    raise SourceDiverged(f"entry {entry_id.decode()} of {key} belongs to another transaction")
            elif Position.parse(entry_id.decode()) >= floor and type_ not in self.unproven:
                raise SourceDiverged(f"entry {entry_id.decode()} is not in {key}, though later ones are")
