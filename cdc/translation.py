"""From the log's messages to entries: the reader's pure middle, and its hot path.

Bytes go in (`feed`), batches come out. Entry ids, the count of a transaction's messages, key changes, truncates, marks
and what may be published are decided here; sockets, threads and clocks are elsewhere.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence, Set

from cdc import append, pgoutput
from cdc.batch import BatchBuilder
from cdc.errors import SourceError
from cdc.messages import LogicalMessage, RelationMessage, TruncateMessage
from cdc.pgoutput import BEGIN, COMMIT, DELETE, INSERT, KEY, NEW, OLD, UPDATE
from cdc.rereads import RereadQueue, Taken
from cdc.route import Route
from cdc.snapshot.visibility import Deliveries
from cdc.walsender import XLOG_DATA_HEADER_BYTES as HEADER
from transforms import wire
from transforms.encoder import FOUND_ITEMS, Row, UnchangedValues
from transforms.position import LSN, SLOTS_PER_MESSAGE, Position
from transforms.tuple_data import MalformedMessage

# Offsets in a frame with a row: the message's kind, its relation, the kind of its first tuple, that tuple.
_TAG, _RELATION, _KIND, _TUPLE = HEADER, slice(HEADER + 1, HEADER + 5), HEADER + 5, HEADER + 6
_BEGIN = struct.Struct("!QqI")
_COMMIT = struct.Struct("!BQQq")


class TruncateHalts(SourceError):
    """A mapped table was truncated, and the event says that this must stop the reader."""

    remedy = 'Decide what the replicas shall do: set truncate = "apply" or "ignore" and start again.'


class Translator:
    """Turns frames of one connection into batches.

    `resolve` gives the routes of a relation when the log announces it; `on_full` takes a batch out of `builder` when
    that is full; `deliveries` learns of every delivered transaction. `marks` holds what to do when one of our own
    logical messages (`prefix`) comes back, by its token: such a message without an entry here was emitted by an earlier
    connection, which has lost the rows for it, so it is ignored. `ends`: where each stream ended at connect.
    """

    def __init__(
        self,
        builder: BatchBuilder,
        deliveries: Deliveries,
        prefix: str,
        resolve: Callable[[RelationMessage], Sequence[Route]],
        on_full: Callable[[], None],
        stream_key: Callable[[str], bytes],
        ends: Mapping[str, Position],
    ) -> None:
        self.builder = builder
        self.deliveries = deliveries
        self.marks: dict[str, Callable[[], object]] = {}
        self.rereads = RereadQueue()
        self.in_transaction = False
        self.commit_lsn = 0
        self.commit_time = b"0"
        """Microseconds since 1970 of the transaction in hand, or of the last one."""
        self._prefix = prefix
        self._resolve = resolve
        self._on_full = on_full
        self._stream_key = stream_key
        self._ends = ends
        self._routes: dict[bytes, Sequence[Route]] = {}
        self._sole_routes: dict[bytes, Route] = {}
        """Of relations whose plain rows make one plain entry each, which compiled code can write."""
        self._latest_end: int = builder.end
        self._held = self.rereads.held
        """Every commit looks at it."""
        self._xid = 0
        self._tx = b"0"
        self._tail = b""
        """What the items of the transaction in hand end with."""
        self._id_prefix = b""
        self._n = 0
        self._slots_of = 0
        self._slots: dict[str, int] = {}
        """How many entries message number `_slots_of` has given in each stream."""
        self._noted = False

    # --- frames ------------------------------------------------------------------------------------------------------

    def feed(self, frame: bytes) -> None:
        """Take one XLogData frame. Raises MalformedMessage and what the encoders raise."""
        try:
            tag = frame[_TAG]
            if tag in (INSERT, UPDATE):
                self._row(frame)
            elif tag == BEGIN:
                self._begin(frame)
            elif tag == COMMIT:
                self._commit(frame)
            elif tag == DELETE:
                self._delete(frame)
            else:
                self._rare(frame)
        except IndexError:
            raise MalformedMessage("a message is cut short") from None

    def feed_run(self, frames: list[bytes], first: int) -> int:
        """Take frame number `first`, and those behind it that can be taken with it; returns how many. See `feed`."""
        row = first if self.in_transaction else first + 1  # behind a Begin
        route = self._sole_routes.get(frames[row][_RELATION]) if row < len(frames) else None
        if route is not None and route.event not in self.deliveries.watched:  # else each key is to be noted
            take = self._plain_upserts if self.in_transaction else self._plain_transactions
            if taken := take(route, frames, first):
                return taken
        self.feed(frames[first])
        return 1

    def _plain_upserts(self, route: Route, frames: list[bytes], first: int) -> int:
        """What `_row` does, for as many frames as need no closer look."""
        assert route.encoder.upserts is not None
        relation, number = frames[first][_RELATION], self._n + 1
        template = route.template
        items, size = route.encoder.upserts(
            frames,
            first,
            relation,
            self._id_prefix,
            number,
            template.open,
            template.label,
            self._tail,
            *self.builder.room,
        )
        if items:
            self._n += len(items)
            self._note_delivery()
            if self.builder.add_all(route.stream, items, size):
                self._on_full()
        return len(items)

    def _plain_transactions(self, route: Route, frames: list[bytes], first: int) -> int:
        """The same for whole transactions, from their Begin to their Commit."""
        assert route.encoder.transactions is not None
        relation, template = frames[first + 1][_RELATION], route.template
        made = route.encoder.transactions(
            frames, first, relation, template.open, template.open_last, template.label, *self.builder.room
        )
        if made is None:
            return 0
        items, size, xids, self.commit_lsn, self._latest_end, commit_time = made
        self.commit_time = b"%d" % commit_time
        self.deliveries.delivered_all(xids)
        self.builder.add_transactions(route.stream, items, size)
        self._release_end()
        return len(items) + 2 * len(xids)

    def _rare(self, frame: bytes) -> None:
        message = pgoutput.decode(frame, HEADER)
        if isinstance(message, RelationMessage):
            self._announce(message)
        elif isinstance(message, TruncateMessage):
            self._truncate(message)
        elif isinstance(message, LogicalMessage):
            self._message(message)

    def _announce(self, message: RelationMessage) -> None:
        relation_id = message.relation_id.to_bytes(4, "big")
        routes = self._routes[relation_id] = self._resolve(message)
        if len(routes) == 1 and routes[0].is_plain and routes[0].encoder.upserts:
            self._sole_routes[relation_id] = routes[0]
        else:
            self._sole_routes.pop(relation_id, None)

    def idle_at(self, wal_end: LSN) -> None:
        """A keepalive came: between transactions, everything before `wal_end` has been sent."""
        if not self.in_transaction and wal_end > self._latest_end:
            self._latest_end = wal_end
            self._release_end()

    def _begin(self, frame: bytes) -> None:
        if self.in_transaction or len(frame) != HEADER + 1 + _BEGIN.size:
            raise MalformedMessage("a Begin message in the middle of a transaction, or cut short")
        self.commit_lsn, commit_time, self._xid = _BEGIN.unpack_from(frame, HEADER + 1)
        self.in_transaction = True
        self.commit_time = ts = b"%d" % (commit_time + wire.MICROSECONDS_2000)
        self._tx = tx = b"%d" % self._xid
        self._id_prefix = b"%d-" % self.commit_lsn
        self._tail = append.tail(ts, tx)
        self._n = self._slots_of = 0
        self._noted = False

    def _commit(self, frame: bytes) -> None:
        if not self.in_transaction or len(frame) != HEADER + 1 + _COMMIT.size:
            raise MalformedMessage("a Commit message without a transaction, or cut short")
        _, lsn, self._latest_end, _ = _COMMIT.unpack_from(frame, HEADER + 1)
        if lsn != self.commit_lsn:
            raise MalformedMessage("a Commit message of another transaction than the one in hand")
        self.in_transaction = False
        self.builder.end_transaction()
        self._release_end()

    # --- rows --------------------------------------------------------------------------------------------------------

    def _routes_of(self, frame: bytes) -> Sequence[Route]:
        if not self.in_transaction:
            raise MalformedMessage("a change outside of a transaction")
        self._n += 1
        routes = self._routes.get(frame[_RELATION])
        if routes is None:
            raise MalformedMessage("a change of a relation that was not announced")
        if routes:
            self._note_delivery()
        return routes

    def _note_delivery(self) -> None:
        if not self._noted:
            self._noted = True
            self.deliveries.delivered(self._xid)

    def _count_message(self) -> None:
        if not self.in_transaction:
            raise MalformedMessage("a change outside of a transaction")
        self._n += 1

    def _announced(self, relation_id: bytes) -> Sequence[Route]:
        try:
            return self._routes[relation_id]
        except KeyError:
            raise MalformedMessage("a change of a relation that was not announced") from None

    def _row(self, frame: bytes) -> None:
        """An insert or an update: the hot path, where nearly every row is plain and makes one entry."""
        routes = self._routes_of(frame)
        for route in routes:
            at, old, old_key = _TUPLE, 0, None
            if frame[_KIND] != NEW:
                old, (old_key, at) = at, self._old_key(route, frame)
            encoded = route.row(frame, at, old)
            key, state = encoded[0], encoded[1]
            if old_key is not None and old_key != key:
                self._publish_delete(route, old_key)
            if len(encoded) > 2 or not route.is_plain:
                self._upsert(route, encoded, old_key)
                continue
            if self.deliveries.watched:
                self.deliveries.touched(route.event, key)
            if len(routes) == 1 and old_key is None:  # the message's only entry
                entry_id = b"%b%d000000" % (self._id_prefix, self._n)
            else:
                entry_id = self._next_id(route.stream)
            item = route.template.upsert % (len(entry_id), entry_id, len(key), key, len(state), state, self._tail)
            if self.builder.add(route.stream, item):
                self._on_full()

    def _old_key(self, route: Route, frame: bytes) -> tuple[bytes, int]:
        """The key in the old tuple of an update, and where its new tuple begins."""
        if frame[_TAG] != UPDATE or frame[_KIND] not in (OLD, KEY):
            raise MalformedMessage("an insert or an update without a new row")
        key, at = route.encoder.key(frame, _TUPLE)
        if frame[at] != NEW:
            raise MalformedMessage("an update without a new row")
        return key, at + 1

    def _delete(self, frame: bytes) -> None:
        for route in self._routes_of(frame):
            if frame[_KIND] not in (OLD, KEY):
                raise MalformedMessage("a delete without an old row")
            key, end = route.encoder.key(frame, _TUPLE)
            if end != len(frame):
                raise MalformedMessage("bytes are left behind a delete")
            self._publish_delete(route, key)

    def _upsert(self, route: Route, encoded: tuple[bytes, bytes] | Row, old_key: bytes | None) -> None:
        key = encoded[0]
        if route.lacking:
            self.deliveries.touched(route.event, key, whole=False)
            self.read_again(route.event, {key})
            return
        words = wire.upsert_words(route.label, key, encoded[1], self.commit_time, self._tx)
        if len(encoded) > 2:  # a Row: not plain
            assert isinstance(encoded, Row)
            if encoded.partial:
                if route.unchanged_toast == "halt":
                    raise UnchangedValues(encoded.partial)
                resent = self._is_resent(route.stream)
                if resent or (old_key is not None and old_key != key) or self.rereads.holds(route.event, key):
                    if resent:  # there may be an event of it
                        self.deliveries.touched(route.event, key, whole=False)
                    self.read_again(route.event, {key})
                    return
                words += (b"partial", wire.compact_json(encoded.partial))
            if encoded.quoted:
                words += (b"quoted", wire.compact_json(encoded.quoted))
        words += route.suffix
        self.deliveries.touched(route.event, key, whole=len(encoded) == 2 or not encoded.partial)
        self._add(route.stream, words)

    def _is_resent(self, stream: str) -> bool:
        """Whether the stream was as far as the message in hand when this connection was made.

        Then an earlier one has published a change that leaves something out, or had the row read again and perhaps did
        not live to publish it.
        """
        end = self._ends.get(stream)
        return end is not None and (self.commit_lsn, self._n * SLOTS_PER_MESSAGE) <= end

    def _publish_delete(self, route: Route, key: bytes) -> None:
        self.deliveries.touched(route.event, key)
        entry_id = self._next_id(route.stream)
        item = route.template.delete % (len(entry_id), entry_id, len(key), key, self._tail)
        if self.builder.add(route.stream, item):
            self._on_full()

    def _truncate(self, message: TruncateMessage) -> None:
        self._count_message()
        for relation_id in message.relation_ids:
            for route in self._announced(relation_id.to_bytes(4, "big")):
                if route.truncate == "halt":
                    raise TruncateHalts(f'the table of event {route.event} was truncated, and its truncate is "halt"')
                self._note_delivery()
                self.deliveries.touched_all(route.event)
                if route.truncate == "apply":
                    self._add(route.stream, wire.truncate_words(route.label, self.commit_time, self._tx))

    def _next_id(self, stream: str) -> bytes:
        """The id of the next entry that the message in hand gives in a stream."""
        ordinal = self._free_ordinal(stream)
        self._slots[stream] += 1
        return b"%b%d" % (self._id_prefix, ordinal)

    def _free_ordinal(self, stream: str) -> int:
        """What the next id in a stream ends with, if it is given."""
        if self._n != self._slots_of:
            self._slots_of, self._slots = self._n, {}
        return self._n * SLOTS_PER_MESSAGE + self._slots.setdefault(stream, 0)

    def _add(self, stream: str, words: Sequence[bytes]) -> str:
        entry_id = self._next_id(stream)
        if self.builder.add(stream, append.whole_item(self._stream_key(stream), entry_id, words)):
            self._on_full()
        return entry_id.decode()

    # --- marks -------------------------------------------------------------------------------------------------------

    def _message(self, message: LogicalMessage) -> None:
        if not message.transactional:
            return  # not ours: ours are transactional, and this one stands outside of any transaction
        self._count_message()
        if message.prefix != self._prefix:
            return
        try:
            token = json.loads(message.content)["token"]
        except (ValueError, KeyError, TypeError):
            return  # any role may emit messages under any prefix
        if isinstance(token, str) and (act := self.marks.pop(token, None)):
            act()

    def publish_mark(self, stream: str, name: str, data: dict[str, object], to: str | None) -> str:
        """Publish a mark at the logical message in hand; returns its entry's id."""
        return self._add(stream, wire.mark_words(name, data, self.commit_time, to))

    def publish_rows(self, route: Route, rows: list[tuple[bytes, bytes] | Row], origin: bytes, to: str | None) -> None:
        """Publish rows that were found by a query, at the logical message in hand."""
        at = 0
        while at < len(rows):
            taken = self._plain_found(route, rows, at, origin) if FOUND_ITEMS and route.is_plain and to is None else 0
            if not taken:
                self._publish_row(route, rows[at], origin, to)
            at += taken or 1

    def _plain_found(self, route: Route, rows: list[tuple[bytes, bytes] | Row], first: int, origin: bytes) -> int:
        """What `_publish_row` does, for as many rows as are plain."""
        assert FOUND_ITEMS is not None
        ordinal, stream, template = self._free_ordinal(route.stream), route.stream, route.template
        tail = append.found_tail(self.commit_time, self._tx, origin)
        items, size = FOUND_ITEMS(
            rows, first, self._id_prefix, ordinal, template.open_last, template.label, tail, *self.builder.room
        )
        if items:
            self._slots[stream] += len(items)
            if self.builder.add_all(stream, items, size):
                self._on_full()
        return len(items)

    def _publish_row(self, route: Route, row: tuple[bytes, bytes] | Row, origin: bytes, to: str | None) -> None:
        words = wire.upsert_words(route.label, row[0], row[1], self.commit_time, self._tx)
        words += (b"origin", origin)
        if isinstance(row, Row) and row.quoted:
            words += (b"quoted", wire.compact_json(row.quoted))
        words += route.suffix
        if to:
            words += (b"to", to.encode())
        self._add(route.stream, words)

    def note(self, event: str, run_id: str, state: str) -> None:
        """Store a snapshot run's state with the logical message in hand, or with the event's rows that wait before it.

        A row that left its chunk since its own event was not whole is such a row: a run that counted as further than
        it would lose the row in a crash.
        """
        if not self.rereads.hold_note(event, run_id, state):
            self.builder.note(run_id, state)

    def rereads_done(self, event: str, taken: Taken, left: Set[bytes] = frozenset()) -> None:
        """These rows but those that are `left` are published by the logical message in hand."""
        for run_id, state in self.rereads.done(event, taken, left):
            self.builder.note(run_id, state)

    # --- how far it is -----------------------------------------------------------------------------------------------

    def read_again(self, event: str, keys: set[bytes]) -> None:
        """Have rows read by their key; until they are published, nothing behind their cause counts as published."""
        self.rereads.add(event, keys, self.latest_end)

    @property
    def latest_end(self) -> LSN:
        """The end of the last transaction that was delivered, or of the log where that is idle."""
        return LSN(self._latest_end)

    def _release_end(self) -> None:
        self.builder.end = self._held[0].held_end if self._held else self._latest_end
