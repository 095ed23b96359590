"""Whether what the source sends again is what the streams hold: else it is not the source that wrote them.

A slot sends all again from where it is confirmed. What is in its stream already is skipped, and a skip needs proof, in
both directions: an entry that comes again must be the one that is there (`compare`), and an entry that is there must
come again (`sent_again`, `passed`). A restored disk keeps system identifier and timeline, and its log may have grown
beyond what was published; then the one fails where it wrote something else, and the other where it wrote nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import redis

from cdc import append
from cdc.errors import TransportError
from transforms.keys import Keys
from transforms.position import LSN, SLOTS_PER_MESSAGE, Position

PAGE = 1_000


class SourceDiverged(TransportError):
    """The streams hold other entries than the source has sent: it went back, or another writer was there."""

    remedy = (
        "Find out what was restored, or who else writes to the streams. Run `cdc snapshot --all` and start the"
        " reader again: it begins a new epoch of the streams, and a fresh snapshot reconciles the replicas."
    )


class Terms(Protocol):
    """What of a stream can be proven."""

    def begins(self, type_: bytes) -> int:
        """From which commit LSN on the event is published as it is mapped now."""
        ...

    def is_owed(self, stream: str, type_: bytes, op: bytes) -> bool:
        """Whether the source sends an operation of an event, and it is published in this stream."""
        ...


Message = tuple[int, int]
"""Commit LSN, and number of the message in its transaction: which slot of it is an event's depends on the mapping."""


@dataclass(slots=True)
class _Owed:
    """Of one stream, what has to come again yet: the entries from `start` to `end`."""

    start: str
    end: Position
    newest: list[Message] = field(default_factory=list)
    """The message that came again last: the one after `start` may be of it too."""


class Proof:
    """The proof of one session. Methods raise SourceDiverged, and what redis-py raises."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        epoch: int,
        terms: Terms | None = None,
        resent_from: int = 0,
        ends: Mapping[str, Position] | None = None,
    ) -> None:
        """`resent_from`: where the slot is confirmed; `ends`: where each stream ends, or nothing has to come again.

        Without `terms` all is published as it always was.
        """
        self._client = client
        self._keys = keys
        self._epoch = epoch
        self._terms = terms
        self._owed = {
            stream: _Owed(f"{int(resent_from)}-0", end)
            for stream, end in (ends or {}).items()
            if end.commit_lsn >= resent_from
        }

    def compare(self, stream: str, items: Sequence[bytes], last: Position) -> None:
        """Compare entries with those in the stream: the same id must have the same tx and ts.

        `last`: where the stream ends. What was trimmed, or was not published yet, cannot be compared.
        """
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
        floor = Position.parse(oldest[0][0].decode()) if oldest else Position(last.commit_lsn, last.ordinal + 1)
        for entry_id, (type_, tx, ts) in expected.items():
            position = Position.parse(entry_id.decode())
            if entry_id in found:
                if found[entry_id] != (tx, ts):
                    raise SourceDiverged(f"entry {entry_id.decode()} of {key} belongs to another transaction")
            elif position >= floor and position.commit_lsn >= self._begins(type_):
                raise SourceDiverged(f"entry {entry_id.decode()} is not in {key}, though later ones are")

    def sent_again(self, stream: str, repeats: Sequence[bytes], *, beyond: bool) -> None:
        """These entries came again, in order behind those before. `beyond`: so did one behind the stream's end."""
        owed = self._owed.get(stream)
        if owed is None:
            return
        if repeats:
            messages = [_message(append.entry_id(item)) for item in repeats]
            last = append.last_id(repeats)
            self._expect_among(stream, owed.start, min(last, owed.end), {*messages, *owed.newest})
            owed.start, owed.newest = f"({last}", messages[-1:]
        if beyond or (repeats and last >= owed.end):
            self._settle(stream, owed)

    def passed(self, position: LSN) -> None:
        """All that was committed before `position` came again."""
        for stream, owed in list(self._owed.items()):
            if owed.end.commit_lsn < position:
                self._settle(stream, owed)

    def _settle(self, stream: str, owed: _Owed) -> None:
        self._expect_among(stream, owed.start, owed.end, owed.newest)
        del self._owed[stream]

    def _expect_among(self, stream: str, start: str, end: Position, messages: Collection[Message]) -> None:
        """Each entry from `start` to `end` that the source must have sent again belongs to one of these messages."""
        for entry_id, fields in self._entries(stream, start, end):
            if b"origin" in fields or b"partial" in fields:
                continue  # found by a query; or will be, for it is not sent again as it is (see `Translator._upsert`)
            message = _message(entry_id)
            if message not in messages and self._is_owed(stream, message[0], fields):
                key = self._keys.stream(stream, self._epoch)
                raise SourceDiverged(f"entry {entry_id.decode()} of {key} is not in the source's log any more")

    def _begins(self, type_: bytes) -> int:
        return 0 if self._terms is None else self._terms.begins(type_)

    def _is_owed(self, stream: str, commit_lsn: int, fields: Mapping[bytes, bytes]) -> bool:
        type_, op = fields.get(b"type", b""), fields.get(b"op", b"")
        return commit_lsn >= self._begins(type_) and (self._terms is None or self._terms.is_owed(stream, type_, op))

    def _entries(self, stream: str, start: str, end: Position) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        key = self._keys.stream(stream, self._epoch)
        while True:
            page = cast(list[Any], self._client.xrange(key, start, str(end), PAGE))
            yield from page
            if len(page) < PAGE:
                return
            start = f"({page[-1][0].decode()}"


def _message(entry_id: bytes) -> Message:
    position = Position.parse(entry_id.decode())
    return int(position.commit_lsn), position.ordinal // SLOTS_PER_MESSAGE
