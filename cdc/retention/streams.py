"""The streams in Redis as retention sees them: who stands where, how old entries are, and trimming."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple, cast

import redis

from cdc.retention.entry_trail import EntryTrail
from cdc.retention.judging import Holder, Memory, StreamSeen
from cdc.transport import TransportState, translated_errors
from transforms.keys import Keys
from transforms.position import LSN, Position

STEP_ENTRIES = 10_000
"""How many entries one call removes at most: other clients of Redis wait for no longer than that takes."""
_SAMPLES = 20
_TRIM = resources.files("cdc.retention").joinpath("trim.lua").read_text()
_UNMARK = resources.files("cdc.retention").joinpath("unmark.lua").read_text()

Passed = Mapping[tuple[str, str], str]
"""(sink, stream) of those that were trimmed past and have not begun again -> the first entry that was left then."""


class StreamName(NamedTuple):
    """A stream of the present epoch or of an earlier one."""

    stream: str
    epoch: int


def names_of(state: TransportState) -> list[StreamName]:
    """Every stream of the pipeline, those of earlier epochs too."""
    return [StreamName(stream, epoch) for stream in state.stream_ends for epoch in range(1, state.epoch + 1)]


class RegisteredSink(NamedTuple):
    """A sink of ours, by its status."""

    name: str
    positions: Mapping[str, Position]
    """Stream (`customer`, `customer@2`) -> its checkpoint."""


class Streams:
    """The streams of one pipeline. All methods raise TransportError."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._trim_script = client.register_script(_TRIM)
        self._unmark_script = client.register_script(_UNMARK)

    # --- what is there -----------------------------------------------------------------------------------------------

    def memory(self) -> Memory:
        """How full Redis is."""
        with translated_errors():
            info = self._client.info("memory")
        return Memory(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)))

    def sinks(self) -> list[RegisteredSink]:
        """All sinks that have ever told of themselves and were not forgotten."""
        with translated_errors():
            names = list(self._client.scan_iter(self._keys.sink_status("*"), count=1000))
            values = cast(list[bytes | None], self._client.mget(names)) if names else []
        told = [json.loads(value) for value in values if value]
        return [
            RegisteredSink(
                str(status["name"]),
                {stream: Position.parse(text) for stream, text in status.get("streams", {}).items()},
            )
            for status in told
        ]

    def passed(self) -> Passed:
        """Who was trimmed past."""
        with translated_errors():
            marks = cast(dict[bytes, bytes], self._client.hgetall(self._keys.passed))
        return {
            cast(tuple[str, str], tuple(field.decode().split(" ", 1))): left.decode() for field, left in marks.items()
        }

    def look(self, name: StreamName, sinks: Sequence[RegisteredSink], passed: Passed) -> StreamSeen | None:
        """A stream and all who read it; None: there is no entry."""
        key, own = self._keys.stream(*name), self._own(name)
        with translated_errors():
            pipe = self._client.pipeline(transaction=False)  # a full Redis 7.0 refuses MULTI
            pipe.exists(key)
            pipe.xinfo_stream(key)
            pipe.xinfo_groups(key)
            pipe.memory_usage(key, samples=_SAMPLES)
            exists, info, groups, size_bytes = pipe.execute(raise_on_error=False)
            for reply in (exists, *((info, groups, size_bytes) if exists else ())):
                if isinstance(reply, Exception):
                    raise reply
            if not exists:
                return None
            if not info["length"]:
                return None
            positions = {group["name"].decode(errors="replace"): self._position(key, group) for group in groups}
        registered = {sink.name: sink.positions for sink in sinks}
        groupless = {  # told less often than a group is moved
            each: places[own] for each, places in registered.items() if own in places and each not in positions
        }
        holders = tuple(
            Holder(each, position, each in registered, each in positions, (each, own) in passed)
            for each, position in sorted((positions | groupless).items())
        )
        return StreamSeen(
            key,
            Position.parse(info["first-entry"][0].decode()),
            Position.parse(info["last-entry"][0].decode()),
            int(info["length"]),
            int(info["entries-added"]),
            int(size_bytes or 0),
            holders,
        )

    def _position(self, key: str, group: Mapping[str, Any]) -> Position:
        delivered = Position.parse(group["last-delivered-id"].decode())
        if not group["pending"]:
            return delivered
        first = cast(Any, self._client.xpending(key, group["name"]))["min"]
        return min(delivered, Position.parse(first.decode())) if first else delivered

    def younger_than(self, stream: StreamSeen, at: float) -> Position:
        """The first entry that was committed later than `at` (seconds since 1970), or a position behind the last one.

        Found by halving the range of commit LSNs: about forty short calls.
        """
        low, high = int(stream.first.commit_lsn), int(stream.last.commit_lsn) + 1
        with translated_errors():
            while low < high:
                middle = (low + high) // 2
                found = cast(list[Any], self._client.xrange(stream.key, f"{middle}-0", count=1))
                if not found or _committed_at(found[0][1]) > at:
                    high = middle
                else:
                    low = int(Position.parse(found[0][0].decode()).commit_lsn) + 1
        return Position(LSN(low), 0)

    # --- trimming ----------------------------------------------------------------------------------------------------

    def trim(self, name: StreamName, keep_from: Position, exempt: Sequence[str]) -> Iterator[int]:
        """Remove the entries before `keep_from` step by step; yields how many each step has removed.

        Nothing is removed that a group other than `exempt` needs at that moment, whatever was seen before.
        """
        while removed := self._trim(name, keep_from, exempt, STEP_ENTRIES):
            yield removed
        yield self._trim(name, keep_from, exempt, 0)  # less than a node is left

    def _trim(self, name: StreamName, keep_from: Position, exempt: Sequence[str], at_most: int) -> int:
        words = (str(keep_from), self._own(name), str(at_most), *exempt)
        with translated_errors():
            return cast(int, self._trim_script([self._keys.stream(*name), self._keys.passed], words))

    def unmark(self, sink: str, name: StreamName, passed: Passed) -> None:
        """A sink that was trimmed past, as `passed` tells, has begun again. A later mark of it stays."""
        own = self._own(name)
        with translated_errors():
            self._unmark_script([self._keys.passed], [f"{sink} {own}", passed[sink, own]])

    # --- what is kept from one session to the next -------------------------------------------------------------------

    def trails(self) -> dict[str, EntryTrail]:
        """Stream key -> its trail, as it was stored last."""
        with translated_errors():
            stored = cast(dict[bytes, bytes], self._client.hgetall(self._keys.trails))
        return {
            key.decode(): EntryTrail((Position.parse(last), int(added)) for last, added in json.loads(text))
            for key, text in stored.items()
        }

    def store_trails(self, trails: Mapping[str, EntryTrail]) -> None:
        """Have the next session, and `cdc status`, know them."""
        fields = {
            key: json.dumps([(str(last), added) for last, added in trail.samples]) for key, trail in trails.items()
        }
        with translated_errors():
            if fields:
                self._client.hset(self._keys.trails, mapping=cast(Any, fields))

    # --- forgetting --------------------------------------------------------------------------------------------------

    def groups(self, name: StreamName) -> list[str]:
        """The consumer groups of a stream, which may have no entries."""
        key = self._keys.stream(*name)
        with translated_errors():
            if not self._client.exists(key):
                return []
            return [group["name"].decode(errors="replace") for group in self._client.xinfo_groups(key)]

    def is_read_now(self, name: StreamName, group: str, within_seconds: float) -> bool:
        """Whether a consumer of the group has shown itself within so many seconds."""
        with translated_errors():
            consumers = cast(list[Any], self._client.xinfo_consumers(self._keys.stream(*name), group))
        return any(consumer["idle"] < within_seconds * 1000 for consumer in consumers)

    def forget(self, who: str, names: Sequence[StreamName]) -> None:
        """Remove a sink's or group's place in all these streams, and a sink's status."""
        with translated_errors():
            pipe = self._client.pipeline(transaction=True)
            for name in names:
                pipe.xgroup_destroy(self._keys.stream(*name), who)
                pipe.hdel(self._keys.passed, f"{who} {self._own(name)}")
            pipe.delete(self._keys.sink_status(who))
            pipe.execute()

    def _own(self, name: StreamName) -> str:
        """A stream as sinks name it."""
        return self._keys.stream(*name).removeprefix(f"{self._keys.pipeline}:")


def _committed_at(fields: Mapping[bytes, bytes]) -> float:
    """Seconds since 1970; an entry that does not tell counts as old."""
    ts = fields.get(b"ts", b"")
    return int(ts) / 1e6 if ts.isdigit() else 0.0
