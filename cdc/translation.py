"""From the log's messages to entries: the reader's pure middle, and its hot path.

Bytes go in (`feed`), batches come out. Entry ids, the count of a transaction's messages, key changes, truncates, marks
and what may be published are decided here; sockets, threads and clocks are elsewhere.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence, Set

from cdc import pgoutput
from cdc.batch import BatchBuilder
from cdc.entries import Entries
from cdc.errors import SourceError
from cdc.messages import LogicalMessage, RelationMessage, TruncateMessage
from cdc.parked import Parked, Parking
from cdc.pgoutput import BEGIN, COMMIT, DELETE, INSERT, KEY, NEW, OLD, UPDATE
from cdc.related.touching import RelatedRoute, RelatedRows
from cdc.rereads import MOST_KEYS, RereadQueue, Taken
from cdc.route import Route
from cdc.snapshot.run import Run
from cdc.snapshot.visibility import Deliveries
from cdc.transaction import TransactionInHand
from cdc.walsender import XLOG_DATA_HEADER_BYTES as HEADER
from transforms import wire
from transforms.encoder import UnchangedValues
from transforms.position import LSN, Position
from transforms.row import Absent, Failed, LoggedRow, Row, Undecided
from transforms.tuple_data import MalformedMessage

# Offsets in a frame with a row: the message's kind, its relation, the kind of its first tuple, that tuple.
_TAG, _RELATION, _KIND, _TUPLE = HEADER, slice(HEADER + 1, HEADER + 5), HEADER + 5, HEADER + 6


log = logging.getLogger(__name__)

TOO_MANY = f"more than {MOST_KEYS:,} of its rows were changed without their large values, faster than they were read"
TOO_MANY_RELATED = f"more than {MOST_KEYS:,} of its {{}} were changed, faster than it was read"
RELATED_TRUNCATED = "the table of its {} was truncated: the log does not tell which rows those belonged to"


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
        parked: Parked | None = None,
        resolve_related: Callable[[RelationMessage], Sequence[RelatedRoute]] = lambda _: (),
    ) -> None:
        """`parked`: the rows that hooks had failed on at connect."""
        self.builder = builder
        self.deliveries = deliveries
        self.marks: dict[str, Callable[[], object]] = {}
        self.rereads = RereadQueue()
        self.hand = TransactionInHand()
        self.parking = Parking(builder.park, parked)
        self.entries = Entries(builder, self.hand, on_full, stream_key, self.parking)
        self._prefix = prefix
        self._resolve = resolve
        self._on_full = on_full
        self._ends = ends
        self._routes: dict[bytes, Sequence[Route]] = {}
        self._sole_routes: dict[bytes, Route] = {}
        """Of relations whose plain rows make one plain entry each, which compiled code can write."""
        self._related = RelatedRows(resolve_related)
        self._latest_end: int = builder.end
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
        row = first if self.hand.is_open else first + 1  # behind a Begin
        route = self._sole_routes.get(frames[row][_RELATION]) if row < len(frames) else None
        if route is not None and route.event not in self.deliveries.watched:  # else each key is to be noted
            take = self._plain_upserts if self.hand.is_open else self._plain_transactions
            if taken := take(route, frames, first):
                return taken
        self.feed(frames[first])
        return 1

    def _plain_upserts(self, route: Route, frames: list[bytes], first: int) -> int:
        """What `_row` does, for as many frames as need no closer look."""
        assert route.encoder.upserts is not None
        relation, hand, template = frames[first][_RELATION], self.hand, route.template
        items, size = route.encoder.upserts(
            frames,
            first,
            relation,
            hand.id_prefix,
            hand.n + 1,
            template.open,
            template.label,
            hand.tail,
            *self.builder.room,
        )
        if items:
            hand.n += len(items)
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
        items, size, xids, self.hand.commit_lsn, self._latest_end, commit_time = made
        self.hand.ts = b"%d" % commit_time
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
        if (
            not self._related.announce(message)
            and len(routes) == 1
            and routes[0].is_plain
            and routes[0].encoder.upserts
        ):
            self._sole_routes[relation_id] = routes[0]
        else:
            self._sole_routes.pop(relation_id, None)

    def idle_at(self, wal_end: LSN) -> None:
        """A keepalive came: between transactions, everything before `wal_end` has been sent."""
        if not self.hand.is_open and wal_end > self._latest_end:
            self._latest_end = wal_end
            self._release_end()

    def _begin(self, frame: bytes) -> None:
        self.hand.begin(frame)
        self._noted = False

    def _commit(self, frame: bytes) -> None:
        self._latest_end = self.hand.commit(frame)
        self.builder.end_transaction()
        self._release_end()

    # --- rows --------------------------------------------------------------------------------------------------------

    def _routes_of(self, frame: bytes) -> Sequence[Route]:
        hand = self.hand
        if not hand.is_open:
            raise MalformedMessage("a change outside of a transaction")
        hand.n += 1  # as `count` does, without a call
        routes = self._routes.get(frame[_RELATION])
        if routes is None:
            raise MalformedMessage("a change of a relation that was not announced")
        if routes:
            self._note_delivery()
        if self._related.any:
            self._read_related(frame)
        return routes

    def _read_related(self, frame: bytes) -> None:
        """Have the rows read that a changed row belongs to, or belonged to."""
        for related, values in self._related.touched(frame):
            self._note_delivery()
            if values:
                self._read_changed(related.event, values, related)

    def _note_delivery(self) -> None:
        if not self._noted:
            self._noted = True
            self.deliveries.delivered(self.hand.xid)

    def _announced(self, relation_id: bytes) -> Sequence[Route]:
        try:
            return self._routes[relation_id]
        except KeyError:
            raise MalformedMessage("a change of a relation that was not announced") from None

    def _row(self, frame: bytes) -> None:
        """An insert or an update: the hot path, where nearly every row is plain and makes one entry."""
        routes, hand = self._routes_of(frame), self.hand
        for route in routes:
            at, old, old_key = _TUPLE, 0, None
            if frame[_KIND] != NEW:
                old, (old_key, at) = at, self._old_key(route, frame)
            encoded = route.row(frame, at, old)
            key = encoded[0]
            if old_key is not None and old_key != key and self._was_held(route, frame):
                self._publish_delete(route, old_key, frame)
            if len(encoded) != 2 or not route.is_plain:
                self._unusual(route, encoded, old_key, frame)
                continue
            state = encoded[1]
            if self.deliveries.watched:
                self.deliveries.touched(route.event, key)
            if len(routes) == 1 and old_key is None:  # the message's only entry
                entry_id = b"%b%d000000" % (hand.id_prefix, hand.n)
            else:
                entry_id = hand.next_id(route.stream)
            item = route.template.upsert % (len(entry_id), entry_id, len(key), key, len(state), state, hand.tail)
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
            if self._was_held(route, frame):
                self._publish_delete(route, key, frame)

    @staticmethod
    def _was_held(route: Route, frame: bytes) -> bool:
        """Whether the event may have had the row as it was before: only a whole old row tells that it had not."""
        held = route.encoder.held
        return held is None or frame[_KIND] != OLD or held(frame, _TUPLE)

    def _unusual(self, route: Route, encoded: LoggedRow, old_key: bytes | None, frame: bytes) -> None:
        """What becomes of an insert or an update that is no plain upsert; its old key is gone already."""
        key = encoded[0]
        if route.is_read and not isinstance(encoded, Absent):
            self._read_changed(route.event, {key})
        elif route.lacking or isinstance(encoded, Undecided):
            self.deliveries.touched(route.event, key, whole=False)
            self._read_changed(route.event, {key})
        elif isinstance(encoded, Row) and encoded.partial:
            self._partial(route, encoded, old_key, frame)
        elif route.is_hooked and self._is_resent(route.stream):  # nobody knows what the hook made of it then
            self.deliveries.touched(route.event, key, whole=False)
            self.hand.next_id(route.stream)
            self._read_changed(route.event, {key})
        elif isinstance(encoded, Absent):
            if frame[_TAG] == UPDATE and old_key in (None, key) and self._was_held(route, frame):
                self._publish_delete(route, key, frame)
            elif route.is_hooked:  # it takes an id as any row of a hook does, or others would move when it comes again
                self.hand.next_id(route.stream)
        elif isinstance(encoded, Failed):
            self.deliveries.touched(route.event, key)
            self.entries.park(route, encoded)
        else:
            self._upsert(route, encoded, frame)

    def _partial(self, route: Route, row: Row, old_key: bytes | None, frame: bytes) -> None:
        if route.unchanged_toast == "halt":
            raise UnchangedValues(row.partial)
        key, resent, always = row.key, self._is_resent(route.stream), route.unchanged_toast == "reread"
        may_be_new = route.encoder.held is not None or (old_key is not None and old_key != key)
        if not (always or resent or may_be_new or self.rereads.holds(route.event, key)):
            self._upsert(route, row, frame)
            return
        if resent:  # there may be an event of it
            self.deliveries.touched(route.event, key, whole=False)
        if not always:  # else the ids of the message's other entries would hang on where this session began
            self.hand.next_id(route.stream)
        self._read_changed(route.event, {key})

    def _read_changed(self, event: str, keys: Set[bytes], related: RelatedRoute | None = None) -> None:
        """Have rows read that the message in hand has changed, or whose related ones it has.

        By a snapshot of the event where too many wait.
        """
        rereads, name = self.rereads, related.name if related else event
        if rereads.is_left_to_run(event):
            return
        if not rereads.is_full(name):
            self.read_again(name, keys)
            return
        reason = TOO_MANY_RELATED.format(related.related) if related else TOO_MANY
        log.warning("%s: %s. A snapshot of it is made", event, reason)
        rereads.leave_to_run(event)
        run = Run.new(event, reason=reason)
        self.builder.note(run.id, run.to_json())

    def _upsert(self, route: Route, encoded: tuple[bytes, bytes] | Row, frame: bytes) -> None:
        words = wire.upsert_words(route.label, encoded[0], encoded[1], self.hand.ts, self.hand.tx)
        is_whole = True
        if isinstance(encoded, Row):
            is_whole = not encoded.partial
            if encoded.partial:
                words += (b"partial", wire.compact_json(encoded.partial))
            if encoded.quoted:
                words += (b"quoted", wire.compact_json(encoded.quoted))
        words += route.suffix
        if route.previous:
            words += self._previous(route, frame)
        if route.is_hooked:
            self.parking.published(route.event, encoded[0])
        self.deliveries.touched(route.event, encoded[0], whole=is_whole)
        self.entries.add(route.stream, words)

    @staticmethod
    def _previous(route: Route, frame: bytes) -> tuple[bytes, ...]:
        """Words of the row as it was, where the log tells that, and the event had it."""
        if frame[_KIND] != OLD or route.lacking:
            return ()
        _, end = route.encoder.key(frame, _TUPLE)
        row = route.row(frame[:end], _TUPLE, 0)
        return () if isinstance(row, Absent | Undecided | Failed) else wire.previous_words(row)

    def _is_resent(self, stream: str) -> bool:
        """Whether the stream was as far as the message in hand when this connection was made.

        Then an earlier one has published a change that leaves something out, or had the row read again and perhaps did
        not live to publish it.
        """
        end = self._ends.get(stream)
        return end is not None and self.hand.is_up_to(end)

    def _publish_delete(self, route: Route, key: bytes, frame: bytes) -> None:
        self.deliveries.touched(route.event, key)
        if route.is_hooked:
            self.parking.published(route.event, key)
        self.entries.delete(route, key, self._previous(route, frame) if route.previous else ())

    def _truncate(self, message: TruncateMessage) -> None:
        self.hand.count()
        for relation_id in message.relation_ids:
            relation = relation_id.to_bytes(4, "big")
            for route in self._announced(relation):
                if route.truncate == "halt":
                    raise TruncateHalts(f'the table of event {route.event} was truncated, and its truncate is "halt"')
                self._note_delivery()
                self.deliveries.touched_all(route.event)
                self.parking.emptied(route.event)
                if route.truncate == "apply":
                    words = wire.truncate_words(route.label, self.hand.ts, self.hand.tx)
                    self.entries.add(route.stream, words)
            for related in self._related.routes(relation):
                self._note_delivery()
                run = Run.new(related.event, reason=RELATED_TRUNCATED.format(related.related))
                self.builder.note(run.id, run.to_json())

    # --- marks -------------------------------------------------------------------------------------------------------

    def _message(self, message: LogicalMessage) -> None:
        if not message.transactional:
            return  # not ours: ours are transactional, and this one stands outside of any transaction
        self.hand.count()
        if message.prefix != self._prefix:
            return
        try:
            token = json.loads(message.content)["token"]
        except (ValueError, KeyError, TypeError):
            return  # any role may emit messages under any prefix
        if isinstance(token, str) and (act := self.marks.pop(token, None)):
            act()

    def note(self, event: str, run_id: str, state: str) -> None:
        """Store a snapshot run's state with the logical message in hand, or with the event's rows that wait before it.

        A row that left its chunk since its own event was not whole is such a row: a run that counted as further than
        it would lose the row in a crash.
        """
        if not self.rereads.hold_note(event, run_id, state):
            self.builder.note(run_id, state)

    def run_marked(self, name: str, run: Run) -> None:
        """A whole snapshot of an event begins or ends with the logical message in hand."""
        if name == wire.RUN_BEGIN:
            self.rereads.run_begins(run.event)
        elif run.begun is not None:
            self.parking.run_ended(run.event, run.begun)

    def rereads_done(self, event: str, taken: Taken, left: Set[bytes] = frozenset()) -> None:
        """These rows but those that are `left` are published by the logical message in hand."""
        for run_id, state in self.rereads.done(event, taken, left):
            self.builder.note(run_id, state)

    # --- how far it is -----------------------------------------------------------------------------------------------

    def read_again(self, event: str, keys: Set[bytes]) -> None:
        """Have rows read by their key, or by related rows' values (see `waiting_name`); nothing behind their cause
        counts as published before they are.
        """
        self.rereads.add(event, keys, self.latest_end)

    @property
    def latest_end(self) -> LSN:
        """The end of the last transaction that was delivered, or of the log where that is idle."""
        return LSN(self._latest_end)

    def _release_end(self) -> None:
        held = self.rereads.held_end
        self.builder.end = self._latest_end if held is None else held
