"""The streams in Redis as a sink reads them: from its checkpoint on, and never across a hole.

Each read starts at the checkpoint, and the entry found there must be the checkpoint itself: that proves that nothing
behind it was removed. XREAD only wakes the worker up. The consumer group shows the world how far this sink is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import redis

from sinks.batch import Entry
from sinks.errors import (
    StreamHole,
    StreamsReplaced,
    StreamTailLost,
    TransportNotTrusted,
    TransportRefused,
    TransportUnreachable,
)
from transforms.address import Address, is_untrusted, redis_refusal
from transforms.keys import Keys
from transforms.position import LSN, START, Position

READ_ENTRIES = 5_000
READ_BYTES = 8 * 1024 * 1024
"""A batch ends at the first of the two. One call may bring more: entries can suddenly be large."""
BATCH_BYTES = 64 * 1024 * 1024
"""What is never passed by a batch of more than one entry: the server takes less than 1 GB in a parameter."""
_CALL_ENTRIES = 1_000
_FIRST_GUESS_BYTES = 1024.0 * 1024.0
"""What an entry is taken to weigh before any was seen: the first calls are small, in case entries are large."""
_ENTRY_OVERHEAD_BYTES = 160
_TRANSIENT = ("LOADING", "READONLY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "BUSY", "MISCONF", "NOREPLICAS", "OOM")


def connect(address: Address) -> redis.Redis:
    """A client for the transport; it connects when it is first used."""
    url = address.reveal()
    try:
        tls = address.redis_tls()
        keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}  # a socket of TCP alone has it
        client = redis.Redis.from_url(
            url, socket_timeout=4, socket_connect_timeout=4, retry=None, **cast(Any, keepalive | tls)
        )
    except ValueError:  # its message repeats parts of the URL
        raise TransportRefused("transport.url is not a Redis URL") from None
    client.set_response_callback("XRANGE", lambda reply, **_: reply)  # a dict an entry would cost more than all else
    return client


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn redis-py's exceptions into ours."""
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise TransportRefused(f"Redis refuses: {redis_refusal(str(error))}") from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        if is_untrusted(str(error)):
            raise TransportNotTrusted(f"Redis' TLS cannot be trusted: {error}") from error
        raise TransportUnreachable(f"Redis does not answer: {error}") from error
    except redis.ResponseError as error:
        kind = TransportUnreachable if str(error).split(" ", 1)[0] in _TRANSIENT else TransportRefused
        raise kind(f"Redis refuses: {error}") from error


@dataclass(frozen=True, slots=True)
class Meta:
    """Where the pipeline stands."""

    incarnation: str
    epoch: int
    published: LSN
    """Up to which every stream has everything."""


class Read(NamedTuple):
    """Entries behind the checkpoint."""

    entries: list[Entry]
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
        with translated_errors():
            return _meta(self._client.hmget(self._keys.meta, "incarnation", "epoch", "published"))

    def ends(self, stream: str) -> StreamEnds:
        """What is in the stream (`customer`, `customer@2`)."""
        with translated_errors():
            pipe = self._client.pipeline(transaction=True)
            pipe.exists(self._key(stream))
            pipe.xinfo_stream(self._key(stream))
            exists, info = pipe.execute(raise_on_error=False)
            if not exists:
                return StreamEnds(None, None, START, True)
            if isinstance(info, Exception):
                raise info
        first, last = (
            found and Position.parse(found[0].decode()) for found in (info["first-entry"], info["last-entry"])
        )
        last_generated = Position.parse(info["last-generated-id"].decode())
        return StreamEnds(first or None, last or None, last_generated, info["entries-added"] == info["length"])

    def read(self, stream: str, meta: Meta, checkpoint: Position) -> Read:
        """Read what is behind the checkpoint, as much as is applied in one go.

        Raises StreamHole, StreamTailLost, and StreamsReplaced when the pipeline is not the one of `meta` any more.
        """
        entries: list[Entry] = []
        read_bytes = 0
        position = checkpoint
        while True:
            average = self._entry_bytes.get(stream, _FIRST_GUESS_BYTES)
            count = max(1, min(_CALL_ENTRIES, READ_ENTRIES - len(entries), int((READ_BYTES - read_bytes) / average)))
            found, published = self._read_behind(stream, meta, position, count)
            entries += found
            size = sum([_ENTRY_OVERHEAD_BYTES + len(words[7]) if len(words) > 7 else 0 for _, words in found])
            read_bytes += size
            if found:
                self._entry_bytes[stream] = max(size / len(found), average * 0.5)
                position = Position.parse(found[-1][0].decode())
            if len(found) < count:
                if read_bytes > BATCH_BYTES:
                    return Read(_bounded(entries), True, False, published)
                return Read(entries, False, True, published)
            if len(entries) >= READ_ENTRIES or read_bytes >= READ_BYTES:
                return Read(entries if read_bytes <= BATCH_BYTES else _bounded(entries), True, False, published)

    def _read_behind(self, stream: str, meta: Meta, position: Position, count: int) -> tuple[list[Entry], LSN]:
        """At most `count` entries behind `position`, which must be there itself, and what was published before."""
        key = self._key(stream)
        with translated_errors():
            pipe = self._client.pipeline(transaction=True)
            pipe.hmget(self._keys.meta, "incarnation", "epoch", "published")
            pipe.xrange(key, str(position), "+", count if position == START else count + 1)
            if position == START:
                pipe.exists(key)
                pipe.xinfo_stream(key)
            now, found, *rest = pipe.execute(raise_on_error=False)
            for reply in (now, found):
                if isinstance(reply, Exception):
                    raise reply
        there = _meta(now)
        if there is None or (there.incarnation, there.epoch) != (meta.incarnation, meta.epoch):
            raise StreamsReplaced(f"the streams of pipeline {self._keys.pipeline} are not those of before")
        if position == START:
            if rest[0] and rest[1]["entries-added"] != rest[1]["length"]:
                raise self._hole(stream, f"entries were removed from {key} before this sink had applied them")
            return found, there.published
        if not found or found[0][0].decode() != str(position):
            raise self._missing(stream, position)
        del found[0]
        return found, there.published

    def _missing(self, stream: str, position: Position) -> StreamTailLost | StreamHole:
        key, ends = self._key(stream), self.ends(stream)
        if ends.last_generated < position:
            return StreamTailLost(
                f"{key} ends at {ends.last_generated}, before the checkpoint {position}: Redis lost its tail"
            )
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

    def wait(self, positions: Mapping[str, Position], timeout_seconds: float) -> None:
        """Return when one of the streams has an entry behind its position, or after the timeout."""
        with translated_errors():
            streams = {self._key(stream): str(position) for stream, position in positions.items()}
            self._client.xread(cast(Any, streams), count=1, block=max(1, int(timeout_seconds * 1000)))

    def move_group(self, stream: str, position: Position) -> None:
        """Set the sink's consumer group to the checkpoint, where the stream exists."""
        key = self._key(stream)
        with translated_errors():
            try:
                self._client.xgroup_setid(key, self._sink, str(position))
            except redis.ResponseError as error:
                if "NOGROUP" in str(error):
                    self._client.xgroup_create(key, self._sink, str(position))
                elif "requires the key to exist" not in str(error) and "no such key" not in str(error):
                    raise

    def _key(self, stream: str) -> str:
        return f"{self._keys.pipeline}:{stream}"


def _meta(values: Any) -> Meta | None:
    incarnation, epoch, published = values
    if incarnation is None:
        return None
    return Meta(incarnation.decode(), int(epoch or 1), LSN.parse((published or b"0/0").decode()))


def _size(entry: Entry) -> int:
    words = entry[1]
    return _ENTRY_OVERHEAD_BYTES + (len(words[5]) + len(words[7]) if len(words) > 7 else 0)


def _bounded(entries: list[Entry]) -> list[Entry]:
    """The entries that make a batch of at most BATCH_BYTES, at least one."""
    total = 0
    for count, entry in enumerate(entries):
        total += _size(entry)
        if total > BATCH_BYTES and count:
            return entries[:count]
    return entries
