"""The streams in Redis: entries appended in order, each exactly once, and the pipeline's position beside them.

One call per stream and batch, one batch in flight. The script refuses to append behind a gap and skips what is there
already, so a call whose reply was lost is simply made again. A skip needs proof: the entries that are there must be
the ones we would have written, else the source is not the one that wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, cast

import redis
from redis.exceptions import NoScriptError

from cdc import append
from cdc.batch import Batch, StreamBatch
from cdc.errors import TransportError, TransportFull, TransportRefused, TransportUnreachable
from transforms.keys import Keys
from transforms.position import LSN, START, Position

_APPEND = resources.files("cdc").joinpath("append.lua").read_text()
_TRANSIENT = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "BUSY",
    "MISCONF",
    "NOREPLICAS",
    "UNBLOCKED",
)


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


class EntryTooLarge(TransportError):
    """Redis does not take an entry of this size."""

    remedy = "Leave the large column out of `columns`, or raise Redis' proto-max-bulk-len."


def connect(url: str) -> redis.Redis:
    """A client for the transport; it connects when it is first used. Raises TransportRefused for a malformed URL."""
    try:
        return redis.Redis.from_url(
            url, socket_timeout=30, socket_connect_timeout=10, socket_keepalive=True, retry=None
        )
    except ValueError:  # its message repeats parts of the URL
        raise TransportRefused(
            "transport.url is not a Redis URL", remedy="Write it as redis://user:password@host:port/database."
        ) from None


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn redis-py's exceptions into ours."""
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise TransportRefused(f"Redis refuses: {error}") from error
    except redis.exceptions.OutOfMemoryError as error:
        raise TransportFull(f"Redis is out of memory: {error}") from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise TransportUnreachable(f"Redis does not answer: {error}") from error
    except redis.ResponseError as error:
        raise _refusal(str(error)) from error


def _refusal(text: str) -> TransportError:
    code = text.split(" ", 1)[0]
    if code == "OOM" or "maxmemory" in text:
        return TransportFull(f"Redis is out of memory: {text}")
    if code in _TRANSIENT:
        return TransportUnreachable(f"Redis refuses for now: {text}")
    if "bulk length" in text or "ERANGE" in text or "too large" in text:
        return EntryTooLarge(text)
    return TransportRefused(text)


class Publisher:
    """Appends batches to the pipeline's streams. Not for use from two threads at once."""

    def __init__(self, client: redis.Redis, keys: Keys, epoch: int, last_ids: Mapping[str, Position]) -> None:
        """`last_ids`: for each stream (without pipeline and epoch) the last id it must hold."""
        self._client = client
        self._keys = keys
        self._epoch = epoch
        self._sha = ""
        self.last_ids: dict[str, Position] = dict(last_ids)
        self.unproven: frozenset[bytes] = frozenset()
        """Events that were not published before: their entries may be missing among those that are skipped."""
        self.appended = 0
        self.skipped = 0

    def publish(self, batch: Batch) -> None:
        """Append a batch and store `published`; when this returns, all of it is in Redis. Raises TransportError."""
        with translated_errors():
            if batch.streams:
                self._append(batch.streams)
            self._store(batch)

    def _append(self, streams: Mapping[str, StreamBatch]) -> None:
        if not self._sha:
            self._sha = self._client.script_load(_APPEND)
        try:
            replies = self._call(
                [
                    append.command(
                        self._sha,
                        self._keys.stream(stream, self._epoch),
                        str(self.last_ids.get(stream, START)),
                        entries.words,
                        entries.items,
                    )
                    for stream, entries in streams.items()
                ]
            )
        except NoScriptError:
            self._sha = ""
            self._append(streams)
            return
        failures = [
            failure
            for (stream, entries), reply in zip(streams.items(), replies, strict=True)
            if (failure := self._take_reply(stream, entries, reply))
        ]
        if failures:
            raise failures[0]

    def _call(self, commands: Sequence[bytes]) -> list[Any]:
        """Send commands that are in the protocol's form already; raises the first error after all have answered."""
        pool = self._client.connection_pool
        connection: Any = pool.get_connection()
        replies, errors = [], []
        try:
            connection.send_packed_command(commands)
            for _ in commands:
                try:
                    replies.append(connection.read_response())
                except redis.ResponseError as error:
                    errors.append(error)
        except BaseException:
            connection.disconnect()  # replies may be left in it
            raise
        finally:
            pool.release(connection)
        if errors:
            raise errors[0]
        return replies

    def _take_reply(self, stream: str, entries: StreamBatch, reply: Sequence[Any]) -> TransportError | None:
        appended, skipped, last, *error = reply
        if error:
            text = error[0].decode(errors="replace")
            if text.startswith("HOLE"):
                return StreamHole(f"stream {self._keys.stream(stream, self._epoch)} lost entries: {text[5:]}")
        self.last_ids[stream] = Position.parse(last.decode())
        self.appended += appended
        if skipped:
            self.skipped += skipped
            self._prove(stream, entries, skipped)
        return _refusal(error[0].decode(errors="replace")) if error else None

    def _prove(self, stream: str, entries: StreamBatch, skipped: int) -> None:
        """Compare skipped entries with those in the stream: the same id must have the same tx and ts."""
        expected = dict(append.identities(entries.items, skipped))
        ids = list(expected)
        key = self._keys.stream(stream, self._epoch)
        oldest = cast(list[Any], self._client.xrange(key, count=1))
        found = {
            entry_id: (fields.get(b"tx"), fields.get(b"ts"))
            for entry_id, fields in cast(list[Any], self._client.xrange(key, ids[0], ids[-1]))
        }
        floor = Position.parse(oldest[0][0].decode()) if oldest else self.last_ids[stream]
        for entry_id, (type_, tx, ts) in expected.items():
            if entry_id in found:
                if found[entry_id] != (tx, ts):
                    raise SourceDiverged(f"entry {entry_id.decode()} of {key} belongs to another transaction")
            elif Position.parse(entry_id.decode()) >= floor and type_ not in self.unproven:
                raise SourceDiverged(f"entry {entry_id.decode()} is not in {key}, though later ones are")

    def _store(self, batch: Batch) -> None:
        fields: dict[Any, Any] = {f"last:{stream}": str(self.last_ids[stream]) for stream in batch.streams}
        fields["published"] = str(batch.end)
        pipe = self._client.pipeline(transaction=True)
        pipe.hset(self._keys.meta, mapping=fields)
        if batch.notes:
            pipe.hset(self._keys.runs, mapping=cast(Any, batch.notes))
        pipe.execute()


class TransportState:
    """What Redis holds of a pipeline: its meta hash, and where each stream ends."""

    def __init__(self, client: redis.Redis, keys: Keys, streams: Sequence[str]) -> None:
        """Read it. `streams`: those the configuration names. Raises TransportError."""
        with translated_errors():
            raw: dict[bytes, bytes] = cast(Any, client.hgetall(keys.meta))
            self.meta = {name.decode(): value.decode() for name, value in raw.items()}
            self.epoch = int(self.meta.get("epoch", "1"))
            kept = [name.removeprefix("last:") for name in self.meta if name.startswith("last:")]
            self.stream_ends = {
                stream: _last_id(client, keys.stream(stream, self.epoch)) for stream in dict.fromkeys((*streams, *kept))
            }
            self.run_id = str(client.info("server").get("run_id", ""))

    @property
    def published(self) -> LSN:
        """Up to which every stream has everything."""
        return LSN.parse(self.meta.get("published", "0/0"))

    def kept_last_id(self, stream: str) -> Position:
        """The last id that was stored for a stream together with `published`."""
        return Position.parse(self.meta.get(f"last:{stream}", "0-0"))


def _last_id(client: redis.Redis, key: str) -> Position:
    try:
        info = client.xinfo_stream(key)
    except redis.ResponseError as error:
        if "no such key" in str(error):
            return START
        raise
    return Position.parse(info["last-generated-id"].decode())
