"""Entries of the message in hand, on their way into a batch: each gets its id and becomes an item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cdc import append
from cdc.batch import BatchBuilder
from cdc.parked import Parking
from cdc.route import Route
from cdc.transaction import TransactionInHand
from transforms import wire
from transforms.encoder import FOUND_ITEMS
from transforms.row import Absent, EncodedRow, Failed, Row


class Entries:
    """Adds entries to `builder`; `on_full` is called when that is full."""

    def __init__(
        self,
        builder: BatchBuilder,
        hand: TransactionInHand,
        on_full: Callable[[], None],
        stream_key: Callable[[str], bytes],
        parking: Parking,
    ) -> None:
        self._parking = parking
        self._builder = builder
        self._hand = hand
        self._on_full = on_full
        self._stream_key = stream_key

    def add(self, stream: str, words: Sequence[bytes]) -> str:
        """Add an entry of these words; returns its id."""
        entry_id = self._hand.next_id(stream)
        if self._builder.add(stream, append.whole_item(self._stream_key(stream), entry_id, words)):
            self._on_full()
        return entry_id.decode()

    def delete(self, route: Route, key: bytes, previous: Sequence[bytes] = ()) -> None:
        """Add a delete of a row that the log told of; `previous`: words of its old state."""
        if previous:
            self.add(route.stream, [*wire.delete_words(route.label, key, self._hand.ts, self._hand.tx), *previous])
            return
        entry_id = self._hand.next_id(route.stream)
        item = route.template.delete % (len(entry_id), entry_id, len(key), key, self._hand.tail)
        if self._builder.add(route.stream, item):
            self._on_full()

    def mark(self, stream: str, name: str, data: Mapping[str, object], to: str | None) -> str:
        """Add a mark; returns its id."""
        return self.add(stream, wire.mark_words(name, data, self._hand.ts, to))

    def found(self, route: Route, rows: list[EncodedRow], origin: bytes, to: str | None) -> None:
        """Add rows that were found by a query: of one that is not of the event, its delete."""
        at = 0
        while at < len(rows):
            taken = self._plain_found(route, rows, at, origin) if FOUND_ITEMS and route.is_plain and to is None else 0
            if not taken:
                self._found(route, rows[at], origin, to)
            at += taken or 1

    def _plain_found(self, route: Route, rows: list[EncodedRow], first: int, origin: bytes) -> int:
        """What `_found` does, for as many rows as are plain."""
        assert FOUND_ITEMS is not None
        hand, stream, template = self._hand, route.stream, route.template
        ordinal = hand.free_ordinal(stream)
        tail = append.found_tail(hand.ts, hand.tx, origin)
        items, size = FOUND_ITEMS(
            rows, first, hand.id_prefix, ordinal, template.open_last, template.label, tail, *self._builder.room
        )
        if items:
            hand.given(stream, len(items))
            if self._builder.add_all(stream, items, size):
                self._on_full()
        return len(items)

    def park(self, route: Route, failed: Failed) -> None:
        """Have it known that a row is not published; in place of its entry, whose id is given away."""
        entry_id = self._hand.next_id(route.stream).decode()
        self._parking.park(route.event, failed, entry_id, int(self._hand.ts) / 1e6)

    def _found(self, route: Route, row: EncodedRow, origin: bytes, to: str | None) -> None:
        hand = self._hand
        if isinstance(row, Failed):
            self.park(route, row)
            return
        if route.is_hooked and to is None:
            self._parking.published(route.event, row[0])
        if isinstance(row, Absent):
            words = wire.delete_words(route.label, row.key, hand.ts, hand.tx)
        else:
            words = wire.upsert_words(route.label, row[0], row[1], hand.ts, hand.tx)
        words += (b"origin", origin)
        if isinstance(row, Row) and row.quoted:
            words += (b"quoted", wire.compact_json(row.quoted))
        if not isinstance(row, Absent):
            words += route.suffix
        if to:
            words += (b"to", to.encode())
        self.add(route.stream, words)
