"""The streams in Redis as a sink reads them: from its checkpoint on, and never across a hole.

Each read starts at the checkpoint, and the entry found there must be the checkpoint itself: that proves that nothing
behind it was trimmed; of what is deleted one by one, Redis keeps the highest id. XREAD only wakes the worker up. The
consumer group shows the world how far this sink is, and holds what it has not read yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import redis

from sinks.entries import ENTRY_OVERHEAD_BYTES, Entries, Entry, joined, no_entries
from sinks.errors import StreamHole, StreamsReplaced, StreamTailLost
from sinks.transport import ask, ask_for_entries, fields, translated_errors
from transforms.errors import MalformedEntry
from transforms.keys import Keys
from transforms.position import LSN, START, Position

READ_BYTES = 8 * 1024 * 1024
"""At which a batch ends. One call may bring more: entries can suddenly be large."""
BATCH_BYTES = 64 * 1024 * 1024
"""What is never passed by a batch of more than one entry: the server takes less than 1 GB in a parameter."""
_CALL_ENTRIES = 1_000
_FIRST_GUESS_BYTES = 1024.0 * 1024.0
"""What an entry is taken to weigh before any was seen: the first calls are small, in case entries are large."""


@dataclass(frozen=True, slots=True)
class Meta:
    """Where the pipeline stands."""

    incarnation: str
    epoch: int
    published: LSN
    """Up to which every stream has everything."""


class Read(NamedTuple):
    """Entries behind the checkpoint."""

    entries: Entries
    full: bool
    """The read hit its bound."""
    at_end: bool
    """Nothing was behind these entries when `published` was read."""
    published: LSN


class StreamEnds(NamedTuple):
    """What is in a stream."""

    first: Position | None
    last: Position | None
    """Ids of entries that are there; None: there is no entry."""
    last_generated: Position
    last_deleted: Position
    """The highest entry that was deleted by its id; trimming does not count."""
    complete: bool
    """Nothing has ever been removed."""


class StreamReader:
    """Reads the streams of one pipeline for one sink. All methods raise SinkError."""

    def __init__(self, client: redis.Redis, keys: Keys, sink: str) -> None:
        self._client = client
        self._keys = keys
        self._sink = sink
        self._entry_bytes: dict[str, float] = {}

    def meta(self) -> Meta | None:
        """Where the pipeline stands; None: it does not exist (yet)."""
        with translated_errors(self._keys.meta):
            return self._meta(self._client.hmget(self._keys.meta, "incarnation", "epoch", "published"))

    def ends(self, stream: str) -> StreamEnds:
        """What is in the stream (`customer`, `customer@2`)."""
        with translated_errors(self._key(stream)):
            exists, info = ask(self._client, ("EXISTS", self._key(stream)), ("XINFO STREAM", self._key(stream)))
            _raise_first(exists, info if exists else None)
        if not exists:
            return StreamEnds(None, None, START, START, True)
        info = fields(info)
        first, last = (
            found and Position.parse(found[0].decode()) for found in (info[b"first-entry"], info[b"last-entry"])
        )
        return StreamEnds(first or None, last or None, _last(info), _last_deleted(info), _is_complete(info))

    def read(self, stream: str, meta: Meta, checkpoint: Position, limit: int) -> Read:
        """Read what is behind the checkpoint, as much as is applied in one go: at most `limit` entries.

        Raises StreamHole, StreamTailLost, and StreamsReplaced when the pipeline is not the one of `meta` any more.
        """
        entries = no_entries()
        read_bytes = 0
        position = checkpoint
        while True:
            average = self._entry_bytes.get(stream, _FIRST_GUESS_BYTES)
            count = max(1, min(_CALL_ENTRIES, limit - len(entries), int((READ_BYTES - read_bytes) / average)))
            found, published = self._read_behind(stream, meta, position, count)
            entries = joined(entries, found)
            size = found.size()
            read_bytes += size
            if found:
                self._entry_bytes[stream] = max(size / len(found), average * 0.5)
                position = Position.parse(found[-1][0].decode())
            if len(found) < count:
                if read_bytes > BATCH_BYTES:
                    return Read(_bounded(entries), True, False, published)
                return Read(entries, False, True, published)
            if len(entries) >= limit or read_bytes >= READ_BYTES:
                return Read(entries if read_bytes <= BATCH_BYTES else _bounded(entries), True, False, published)

    def _read_behind(self, stream: str, meta: Meta, position: Position, count: int) -> tuple[Entries, LSN]:
        """At most `count` entries behind `position`, which must be there itself, and what was published before.

        Without MULTI, which a full Redis 7.0 refuses: who empties it must be able to read. So the order counts.
        """
        key = self._key(stream)
        most = count if position == START else count + 1
        with translated_errors(key):
            now, found, exists, info = ask_for_entries(
                self._client,
                ("HMGET", self._keys.meta, "incarnation", "epoch", "published", f"last:{stream.partition('@')[0]}"),
                ("XRANGE", key, str(position), "+", "COUNT", most),
                ("EXISTS", key),
                ("XINFO STREAM", key),
                entries_at=1,
            )
            _raise_first(now, found, exists, info if exists else None)
            info = fields(info) if exists else {}
        *now, published_last = now
        there = self._meta(now)
        if there is None or (there.incarnation, there.epoch) != (meta.incarnation, meta.epoch):
            raise StreamsReplaced(f"the streams of pipeline {self._keys.pipeline} are not those of before")
        last = _last(info) if exists else START
        if published_last is not None and last < Position.parse(published_last.decode()):
            raise StreamTailLost(
                f"{key} ends at {last}, before the last entry that was published to it, {published_last.decode()}:"
                " Redis lost its tail"
            )
        if position == START:
            if exists and not _is_complete(info):
                raise self._hole(stream, f"entries were removed from {key} before this sink had applied them")
            return found, there.published
        if not found or found[0][0].decode() != str(position):
            raise self._missing(stream, position)
        if (deleted := _last_deleted(info)) > position:
            raise self._hole(stream, f"entry {deleted} was deleted from {key} before this sink had applied it")
        return found[1:], there.published

    def _missing(self, stream: str, position: Position) -> StreamTailLost | StreamHole:
        """Why no entry was found there. A tail that Redis lost may be coming back meanwhile: ids rise, so once the
        stream is further than the entry, it is there again or never will be."""
        key, ends = self._key(stream), self.ends(stream)
        if ends.last_generated < position:
            return StreamTailLost(
                f"{key} ends at {ends.last_generated}, before the checkpoint {position}: Redis lost its tail"
            )
        with translated_errors(key):
            is_back = bool(self._client.xrange(key, str(position), str(position)))
        if is_back:
            return StreamTailLost(f"{key} had lost its tail, and has the checkpoint {position} again")
        return self._hole(
            stream, f"{key} does not hold the checkpoint {position} any more: entries were removed from it"
        )

    def _hole(self, stream: str, message: str) -> StreamHole:
        remedy = (
            "Run this in the replica's database and start the worker again, which then asks for a snapshot by itself: "
            f"DELETE FROM cdc.checkpoint WHERE pipeline = '{self._keys.pipeline}' AND sink = '{self._sink}'"
            f" AND stream = '{stream}';"
        )
        return StreamHole(message, remedy=remedy)

    def placed(self, stream: str, error: MalformedEntry) -> MalformedEntry:
        """The error of an entry in a stream, with what is to be done about it there."""
        if error.remedy != MalformedEntry.remedy:
            return error
        key = self._key(stream)
        remedy = (
            f"Find out who else writes to {key}: only the reader of its pipeline may. Then remove the entry"
            f" (`XDEL {key} ID`) and start the worker again: it says what brings the rows that it has not seen."
        )
        return MalformedEntry(f"{key}: {error}", remedy=remedy)

    def wait(self, positions: Mapping[str, Position], timeout_seconds: float) -> None:
        """Return when a stream has an entry behind its position, or is no stream any more, or after the timeout."""
        streams = {self._key(stream): str(position) for stream, position in positions.items()}
        with translated_errors(", ".join(streams)):
            try:
                self._client.xread(cast(Any, streams), count=1, block=max(1, int(timeout_seconds * 1000)))
            except redis.ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):  # which of them it is, `read` tells
                    raise

    def hold(self, stream: str) -> bool:
        """Have the reader keep what is in the stream from now on, until `move_group` tells where this sink stands.

        Before the stream is looked at: what is seen there then stays. Returns False where a group does that already.
        """
        with translated_errors(self._key(stream)):
            try:
                self._client.xgroup_create(self._key(stream), self._sink, str(START), mkstream=True)
            except redis.exceptions.OutOfMemoryError:  # a group that exists is read on from all the same
                groups = self._client.xinfo_groups(self._key(stream))
                if not any(group["name"] == self._sink.encode() for group in groups):
                    raise
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
            else:
                return True
        return False

    def leave(self, stream: str) -> None:
        """Have the reader keep nothing for this sink any more in a stream that it does not read."""
        with translated_errors(self._key(stream)):
            try:
                self._client.xgroup_destroy(self._key(stream), self._sink)
            except redis.ResponseError as error:
                if not _is_missing(error):
                    raise

    def was_passed(self, stream: str) -> bool:
        """Whether the reader trimmed the stream past this sink, as `transport.laggard` allows."""
        with translated_errors(self._keys.passed):
            (found,) = cast(list[bytes | None], self._client.hmget(self._keys.passed, f"{self._sink} {stream}"))
        return found is not None

    def move_group(self, stream: str, position: Position) -> None:
        """Set the sink's consumer group to the checkpoint, where the stream exists."""
        key = self._key(stream)
        with translated_errors(key):
            try:
                self._client.xgroup_setid(key, self._sink, str(position))
            except redis.ResponseError as error:
                if "NOGROUP" in str(error):
                    self._client.xgroup_create(key, self._sink, str(position))
                elif not _is_missing(error):
                    raise

    def _meta(self, values: Any) -> Meta | None:
        incarnation, epoch, published = values
        if incarnation is None:
            return None
        try:
            return Meta(incarnation.decode(), int(epoch or 1), LSN.parse((published or b"0/0").decode()))
        except ValueError as error:
            raise MalformedEntry(
                f"{self._keys.meta} holds something that no reader wrote",
                remedy="Find out who else writes to this key: only the reader of its pipeline may.",
            ) from error

    def _key(self, stream: str) -> str:
        return f"{self._keys.pipeline}:{stream}"


def _is_missing(error: redis.ResponseError) -> bool:
    """Whether a stream does not exist."""
    return "requires the key to exist" in str(error) or "no such key" in str(error)


def _raise_first(*replies: object) -> None:
    """Raise the first reply that is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


def _last(info: Mapping[bytes, Any]) -> Position:
    """The highest id that the stream has ever had."""
    return Position.parse(info[b"last-generated-id"].decode())


def _last_deleted(info: Mapping[bytes, Any]) -> Position:
    """XDEL tells it, XTRIM does not: that one removes what comes first, and so the entry at a checkpoint too."""
    return Position.parse(info[b"max-deleted-entry-id"].decode())


def _is_complete(info: Mapping[bytes, Any]) -> bool:
    """Whether nothing has ever been removed from the stream."""
    return bool(info[b"entries-added"] == info[b"length"])


def _size(entry: Entry) -> int:
    words = entry[1]
    return ENTRY_OVERHEAD_BYTES + (len(words[5]) + len(words[7]) if len(words) > 7 else 0)


def _bounded(entries: Entries) -> Entries:
    """The entries that make a batch of at most BATCH_BYTES, at least one."""
    total = 0
    for count, entry in enumerate(entries):
        total += _size(entry)
        if total > BATCH_BYTES and count:
            return entries[:count]
    return entries
