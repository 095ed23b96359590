"""Changes of related rows: which values they had, and have, in the columns that relate them to other rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set

from cdc.messages import RelationMessage
from cdc.pgoutput import DELETE, INSERT, KEY, NEW, OLD, UPDATE
from cdc.related.mapping import EmbedMapping
from cdc.walsender import XLOG_DATA_HEADER_BYTES as HEADER
from transforms.column_type import RelationColumn
from transforms.explicit import UnchangedValues
from transforms.tuple_data import UNCHANGED, MalformedMessage, TupleData, Unchanged, Value, decode
from transforms.values import json_name, value_encoder

_TAG, _RELATION, _KIND, _TUPLE = HEADER, slice(HEADER + 1, HEADER + 5), HEADER + 5, HEADER + 6


def waiting_name(event: str, related: str) -> str:
    """Under which name values of an embed (by its path) wait until the rows that they lead to are read."""
    return f"{event} {related}"


def event_of(name: str) -> str:
    """The event whose rows, or whose related rows' values, wait under this name."""
    return name.partition(" ")[0]


class RelatedRoute:
    """What a relation is to one embed of one event."""

    def __init__(self, event: str, embed: EmbedMapping, relation: Sequence[RelationColumn]) -> None:
        """`relation`: its columns as the log announces them. Raises KeyError with the name of one that it lacks."""
        places = {column.name: place for place, column in enumerate(relation)}
        self.event = event
        self.related = embed.title
        self.name = waiting_name(event, embed.title)
        self.width = len(relation)
        self._on = [
            (places[own.name], json_name(own.name) + b":", value_encoder(relation[places[own.name]].type))
            for own, _ in embed.on
        ]
        read = [places.get(name) for name in embed.read_columns]
        self._read = None if None in read else [place for place in read if place is not None]
        """None: not all that is read is told."""

    def touched(self, before: TupleData | None, after: TupleData | None, *, whole: bool) -> Set[bytes]:
        """JSON objects of the relating values that a row had and has, but of one that relates it to none.

        `whole`: the old row is, so that it tells where nothing has changed of all that is read: then there are none.
        Raises UnchangedValues where a value is a large one that was not sent.
        """
        if whole and before is not None and after is not None and self._read_the_same(before, after):
            return frozenset()
        found = [self._relating(before, None), self._relating(after, before)]
        return frozenset(values for values in found if values is not None)

    def _read_the_same(self, before: TupleData, after: TupleData) -> bool:
        if self._read is None:
            return False
        return all(after[place] is UNCHANGED or after[place] == before[place] for place in self._read)

    def _relating(self, values: TupleData | None, before: TupleData | None) -> bytes | None:
        if values is None:
            return None
        parts = []
        for place, label, encode in self._on:
            value: Value = values[place]
            if isinstance(value, Unchanged):  # then the log has an old tuple with it
                if before is None:
                    raise UnchangedValues([label[1:-2].decode()])
                value = before[place]
            if value is None:
                return None
            assert isinstance(value, bytes)
            parts.append(label + encode(value))
        return b"{" + b",".join(parts) + b"}"


class RelatedRows:
    """What the relations of one connection are to embeds."""

    def __init__(self, resolve: Callable[[RelationMessage], Sequence[RelatedRoute]]) -> None:
        """`resolve` gives the routes of a relation when the log announces it."""
        self._resolve = resolve
        self._routes: dict[bytes, Sequence[RelatedRoute]] = {}
        """Of relations that have some."""
        self.any = False
        """Whether there are such relations."""

    def announce(self, message: RelationMessage) -> bool:
        """A relation is announced; returns whether its rows are those of an embed."""
        relation_id = message.relation_id.to_bytes(4, "big")
        self._routes.pop(relation_id, None)
        if routes := self._resolve(message):
            self._routes[relation_id] = routes
        self.any = bool(self._routes)
        return bool(routes)

    def routes(self, relation_id: bytes) -> Sequence[RelatedRoute]:
        """Those of a relation."""
        return self._routes.get(relation_id, ())

    def touched(self, frame: bytes) -> Iterator[tuple[RelatedRoute, Set[bytes]]]:
        """What is to be read again for a row's change; see `RelatedRoute.touched`.

        Raises MalformedMessage.
        """
        routes = self._routes.get(frame[_RELATION])
        if not routes:
            return
        before, after = _tuples(frame)
        for route in routes:
            if any(values is not None and len(values) != route.width for values in (before, after)):
                raise MalformedMessage("a tuple has another number of columns than its relation")
            yield route, route.touched(before, after, whole=frame[_KIND] == OLD)


def _tuples(frame: bytes) -> tuple[TupleData | None, TupleData | None]:
    tag, at, before, after = frame[_TAG], _TUPLE, None, None
    if frame[_KIND] in (OLD, KEY) and tag in (UPDATE, DELETE):
        before, at = decode(frame, at)
        if tag == UPDATE:
            if frame[at : at + 1] != bytes([NEW]):
                raise MalformedMessage("an update without a new row")
            at += 1
    elif frame[_KIND] != NEW or tag not in (INSERT, UPDATE):
        raise MalformedMessage("a change without the row that it must have")
    if tag != DELETE:
        after, at = decode(frame, at)
    if at != len(frame):
        raise MalformedMessage("bytes are left behind a change")
    return before, after
