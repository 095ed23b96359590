"""The keys beside the streams: meta, schema documents, snapshot runs, requests, and the reader's status."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import redis

from cdc.errors import TransportError
from cdc.known import Known
from cdc.parked import Parked
from cdc.snapshot.run import Run
from cdc.transport import TransportState, translated_errors
from transforms.keys import Keys
from transforms.position import LSN, Position
from transforms.schema import SchemaDocument

log = logging.getLogger(__name__)


STANDBY_SHOWN_SECONDS = 10
"""How long a reader that waits for the slot is shown after it was last heard of."""


class PipelineMadeMeanwhile(TransportError):
    """Two readers have started a new pipeline at once; the other was first."""

    retryable = True
    remedy = "Nothing: this reader stands by and takes over when the slot is free."


@dataclass(frozen=True, slots=True)
class _Request:
    """A snapshot that somebody asks for."""

    events: tuple[str, ...] = ()
    sink: str | None = None
    where: str | None = None

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Anybody may write requests, so one that cannot be read asks for nothing."""
        try:
            events, sink = json.loads(fields.get(b"events", b"[]")), fields.get(b"sink", b"").decode() or None
        except (ValueError, RecursionError):
            events, sink = None, None
        if not isinstance(events, list) or not all(isinstance(event, str) for event in events):
            log.warning("a request for a snapshot cannot be read: its events are not a JSON array of names in UTF-8")
            return cls()
        where = fields.get(b"where")  # judged later: what is not UTF-8 in it is refused there
        return cls(tuple(events), sink, None if where is None else where.decode(errors="surrogateescape"))


@dataclass(frozen=True, slots=True)
class UnreadableRun:
    """A stored snapshot run that is none. It is left where it is: nobody knows whether rows wait for it."""

    key: str
    name: str
    """Its field of the hash `key`."""
    reason: str

    def __str__(self) -> str:
        return f"snapshot run {self.name} in {self.key} cannot be read and is not made: {self.reason}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        event = self.name.partition(":")[2].partition(".")[0] or "--all"
        return (
            f"Run `cdc snapshot {event}`, which makes it anew; then remove it in Redis: HDEL {self.key} '{self.name}'"
        )


class Control:
    """Reads and writes the pipeline's keys beside the streams. All methods raise TransportError."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._told: list[UnreadableRun] = []

    # --- meta and schema ---------------------------------------------------------------------------------------------

    def state(self, streams: Sequence[str]) -> TransportState:
        """What Redis holds of the pipeline."""
        return TransportState(self._client, self._keys, streams)

    def make_meta(self, system_identifier: str, timeline: int, slot: str, publication_oid: int, published: LSN) -> None:
        """Begin a pipeline: a new incarnation, whose streams are empty."""
        fields = {
            "epoch": "1",
            "incarnation": secrets.token_hex(16),
            "system_identifier": system_identifier,
            "timeline": str(timeline),
            "slot": slot,
            "publication_oid": str(publication_oid),
            "published": str(published),
        }
        with translated_errors():
            pipe = self._client.pipeline(transaction=True)
            try:
                cast(Any, pipe).watch(self._keys.meta)
                if pipe.hexists(self._keys.meta, "system_identifier"):
                    raise PipelineMadeMeanwhile("another reader has just made this pipeline")
                pipe.multi()
                pipe.hset(self._keys.meta, mapping=cast(Any, fields))
                pipe.execute()
            except redis.WatchError as error:
                raise PipelineMadeMeanwhile("another reader is making this pipeline") from error
            finally:
                pipe.reset()

    def store_runs(self, runs: Sequence[Run]) -> None:
        """Have snapshots made, by this session or a later one."""
        with translated_errors():
            if runs:
                self._client.hset(self._keys.runs, mapping=cast(Any, {run.id: run.to_json() for run in runs}))

    def begin_epoch(self, system_identifier: str, timeline: int, publication_oid: int, published: LSN) -> None:
        """Go on under new stream names, from `published` on; runs in hand have no meaning any more."""
        fields = {
            "system_identifier": system_identifier,
            "timeline": str(timeline),
            "publication_oid": str(publication_oid),
            "published": str(published),
        }
        with translated_errors():
            names = cast(list[bytes], self._client.hkeys(self._keys.meta))
            stale = [name for name in names if name.startswith(b"last:")]
            pipe = self._client.pipeline(transaction=True)
            pipe.hdel(self._keys.meta, "diverged", "slot_missing", "begins", *stale)
            pipe.hset(self._keys.meta, mapping=cast(Any, fields))
            pipe.hincrby(self._keys.meta, "epoch", 1)
            pipe.delete(self._keys.runs, self._keys.parked)
            pipe.execute()

    def note_divergence(self, what: str, *, slot_missing: bool = False) -> None:
        """Have the next start know that streams and source do not belong together, and that there was no slot."""
        fields = {"diverged": what} | ({"slot_missing": "1"} if slot_missing else {})
        with translated_errors():
            self._client.hset(self._keys.meta, mapping=cast(Any, fields))

    def forget_divergence(self) -> None:
        """They do belong together."""
        with translated_errors():
            self._client.hdel(self._keys.meta, "diverged")

    def set_timeline(self, timeline: int) -> None:
        """The source goes on on another timeline, which holds all that was published."""
        with translated_errors():
            self._client.hset(self._keys.meta, "timeline", str(timeline))

    def schemas(self) -> dict[str, SchemaDocument]:
        """The stored schema documents by label."""
        with translated_errors():
            labels = cast(list[bytes], self._client.hkeys(self._keys.schema))
            # Not HGETALL: the users of sinks, with which consumers ask too, may not use that.
            texts = cast(list[bytes | None], self._client.hmget(self._keys.schema, cast(Any, labels))) if labels else []
        found = zip(labels, texts, strict=True)
        return {label.decode(): SchemaDocument.parse(text) for label, text in found if text is not None}

    def store_shapes(
        self,
        documents: Sequence[SchemaDocument],
        mapped: Mapping[str, int],
        runs: Sequence[Run],
        known: Known | None = None,
    ) -> None:
        """Store documents and what is mapped (label -> table OID), together with the runs that follow from a change.

        `known`: what was seen of the tables, where they were looked at as a whole.
        """
        with translated_errors():
            pipe = self._client.pipeline(transaction=True)
            if documents:
                pipe.hset(self._keys.schema, mapping={document.label: document.to_json() for document in documents})
            fields = {"events": json.dumps(dict(mapped))} if known is None else known.fields()
            pipe.hset(self._keys.meta, mapping=cast(Any, fields))
            if runs:
                pipe.hset(self._keys.runs, mapping={run.id: run.to_json() for run in runs})
            pipe.execute()

    # --- snapshot runs and requests ----------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        """All runs that can be read, the oldest first; the log tells of each that cannot, once a connection."""
        runs, unreadable = self.examine_runs()
        for run in unreadable:
            if run not in self._told:
                log.error("%s (%s)", run, run.remedy)
        self._told = unreadable
        return runs

    def examine_runs(self) -> tuple[list[Run], list[UnreadableRun]]:
        """All runs, the oldest first, and those that some other program has spoilt."""
        with translated_errors():
            stored = cast(dict[bytes, bytes], self._client.hgetall(self._keys.runs))
        runs, unreadable = list[Run](), list[UnreadableRun]()
        for name, text in stored.items():
            try:
                runs.append(Run.parse(text))
            except ValueError as error:
                unreadable.append(UnreadableRun(self._keys.runs, name.decode(errors="backslashreplace"), str(error)))
        return sorted(runs, key=lambda run: (run.created_at, run.id)), unreadable

    def replace_runs(self, *, old: Collection[Run], new: Collection[Run]) -> None:
        """Have runs in other runs' place."""
        with translated_errors():
            pipe = self._client.pipeline(transaction=True)
            pipe.hdel(self._keys.runs, *(run.id for run in old))
            if new:
                pipe.hset(self._keys.runs, mapping=cast(Any, {run.id: run.to_json() for run in new}))
            pipe.execute()

    def forget_runs(self, ids: Sequence[str]) -> None:
        """Drop runs."""
        with translated_errors():
            if ids:
                self._client.hdel(self._keys.runs, *ids)

    def request_snapshot(self, events: Sequence[str], sink: str | None, where: str | None = None) -> list[Run]:
        """Ask the reader for snapshots; returns what was asked for: the reader makes runs that serve it."""
        fields = {"events": json.dumps(list(events))}
        fields |= {name: text for name, text in (("sink", sink), ("where", where)) if text}
        with translated_errors():
            entry_id = cast(bytes, self._client.xadd(self._keys.requests, cast(Any, fields))).decode()
        return [Run.requested(entry_id, event, sink, where or None) for event in events]

    def is_taken(self, request: Position) -> bool:
        """Whether a reader has made runs of a request."""
        with translated_errors():
            return not self._client.xrange(self._keys.requests, str(request), str(request))

    def is_asked_for(self, events: Sequence[str]) -> bool:
        """Whether a snapshot of all these events, of all their rows and for all sinks, waits to be made."""
        with translated_errors():
            entries = cast(list[Any], self._client.xrange(self._keys.requests))
        requests = [_Request.read(fields) for _, fields in entries]
        return any(each.sink is each.where is None and set(events) <= set(each.events) for each in requests)

    def take_requests(self, known: Sequence[str]) -> list[Run]:
        """Turn requests into runs, which this returns; a request for an event that is not mapped is dropped.

        Nothing has judged yet what they are to be where.
        """
        with translated_errors():
            entries = cast(list[Any], self._client.xrange(self._keys.requests))
            if not entries:
                return []
            taken: list[Run] = []
            for raw_id, fields in entries:
                request, entry_id = _Request.read(fields), raw_id.decode()
                taken += [
                    Run.requested(entry_id, event, request.sink, request.where)
                    for event in request.events
                    if event in known
                ]
            pipe = self._client.pipeline(transaction=True)
            for run in taken:
                pipe.hsetnx(self._keys.runs, run.id, run.to_json())
            pipe.xdel(self._keys.requests, *(raw_id for raw_id, _ in entries))
            pipe.execute()
        return taken

    def pause_snapshots(self, since: float | None) -> None:
        """Have snapshots pause, or go on (None), in this session and later ones."""
        with translated_errors():
            self._client.set(self._keys.snapshots_paused, "" if since is None else str(since))

    def snapshots_paused_since(self) -> float | None:
        """Since when snapshots are paused, in seconds since 1970; None: they are not."""
        with translated_errors():
            stored = cast(bytes | None, self._client.get(self._keys.snapshots_paused))
        return float(stored) if stored else None

    # --- rows that a hook failed on ----------------------------------------------------------------------------------

    def parked(self) -> Parked:
        """All that is parked."""
        with translated_errors():
            return Parked.parse(cast(dict[bytes, bytes], self._client.hgetall(self._keys.parked)))

    def parked_of(self, events: Collection[str]) -> Parked:
        """What is parked of these events; what was of others is forgotten: nobody publishes it again."""
        parked = self.parked()
        if others := [field for event, field in parked.fields() if event not in events]:
            with translated_errors():
                self._client.hdel(self._keys.parked, *others)
        return parked.of(events)

    # --- status ------------------------------------------------------------------------------------------------------

    def write_status(self, status: Mapping[str, object]) -> None:
        """Store the reader's state; it stays after the process is gone, only `alive_at` ages."""
        with translated_errors():
            self._client.set(self._keys.reader_status, json.dumps(status))

    def read_status(self) -> dict[str, Any] | None:
        """The reader's state as it was last stored."""
        with translated_errors():
            text = cast(bytes | None, self._client.get(self._keys.reader_status))
        return json.loads(text) if text else None

    def write_standby(self, name: str, status: Mapping[str, object]) -> None:
        """Store the state of a reader that waits for the slot; it is forgotten when it is not written again soon."""
        with translated_errors():
            self._client.set(self._keys.standby_status(name), json.dumps(status), ex=STANDBY_SHOWN_SECONDS)

    def forget_standby(self, name: str) -> None:
        """It waits no longer."""
        with translated_errors():
            self._client.unlink(self._keys.standby_status(name))

    def standby_statuses(self) -> list[dict[str, Any]]:
        """The readers that wait for the slot, the one that waits longest first."""
        return sorted(self._statuses(self._keys.standby_status("*")), key=lambda standby: standby["since"])

    def sink_statuses(self) -> list[dict[str, Any]]:
        """The states of all sinks."""
        return self._statuses(self._keys.sink_status("*"))

    def _statuses(self, pattern: str) -> list[dict[str, Any]]:
        with translated_errors():
            names = list(self._client.scan_iter(pattern, count=1000))
            values = cast(list[bytes | None], self._client.mget(names)) if names else []
        return [json.loads(value) for value in values if value]

    def stream_info(self, stream: str, epoch: int) -> dict[str, Any]:
        """How long and large a stream is, and where it ends."""
        key = self._keys.stream(stream, epoch)
        with translated_errors():
            if not self._client.exists(key):
                return {"key": key, "entries": 0, "bytes": 0, "last_id": "0-0"}
            info = self._client.xinfo_stream(key)
            size = self._client.memory_usage(key, samples=20)
        last = info["last-generated-id"].decode()
        return {"key": key, "entries": info["length"], "bytes": size or 0, "last_id": last}

    def committed_behind(self, stream: str, position: Position) -> float | None:
        """When the first entry behind a position of a stream (`customer`, `customer@2`) was committed.

        Seconds since 1970; None: there is no entry, or it does not tell.
        """
        with translated_errors():
            found = cast(list[Any], self._client.xrange(self._keys.stream(stream, 1), f"({position}", "+", 1))
        if not found or not (committed := found[0][1].get(b"ts", b"")).isdigit():
            return None
        return int(committed) / 1e6

    def drop(self) -> int:
        """Remove every key of the pipeline; returns how many there were."""
        with translated_errors():
            names = list(self._client.scan_iter(self._keys.everything, count=1000))
            return self._client.unlink(*names) if names else 0
