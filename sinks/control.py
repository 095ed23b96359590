"""The pipeline's keys beside the streams, as a sink uses them: schema documents, its status, requests."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

import redis

from sinks.errors import TransportRefused
from sinks.known_runs import KnownRun
from sinks.transport import translated_errors
from sinks.unknown_events import Wait, missing_events
from transforms.keys import Keys
from transforms.schema import SchemaDocument


class Control:
    """Reads and writes the pipeline's keys beside the streams. All methods raise SinkError."""

    def __init__(self, client: redis.Redis, keys: Keys, sink: str) -> None:
        self._client = client
        self._keys = keys
        self._sink = sink

    def ping(self) -> None:
        """Return when Redis answers."""
        with translated_errors(self._keys.meta):
            self._client.ping()

    def server(self) -> tuple[str, str, str]:
        """Product, version and maxmemory-policy."""
        with translated_errors(self._keys.meta):
            info = self._client.info()
        valkey = info.get("valkey_version")
        version = str(valkey or info["redis_version"])
        return "Valkey" if valkey else "Redis", version, str(info.get("maxmemory_policy", ""))

    def documents(self, labels: Iterable[str]) -> dict[str, SchemaDocument]:
        """The schema documents that exist of these events. Raises MalformedEntry too."""
        wanted = list(labels)
        with translated_errors(self._keys.schema):
            stored = cast(list[bytes | None], self._client.hmget(self._keys.schema, wanted))
        return {label: SchemaDocument.parse(text) for label, text in zip(wanted, stored, strict=True) if text}

    def published_events(self) -> list[str]:
        """The labels of all events that have ever been published."""
        with translated_errors(self._keys.schema):
            return [label.decode() for label in cast(list[bytes], self._client.hkeys(self._keys.schema))]

    def mapped_events(self) -> set[str] | None:
        """The labels of the events that the reader publishes now; None: it has not said so."""
        with translated_errors(self._keys.meta):
            (stored,) = cast(list[bytes | None], self._client.hmget(self._keys.meta, ["events"]))
        return None if stored is None else set(json.loads(stored))

    def missing(self, labels: Sequence[str], mapped: Collection[str]) -> Wait:
        """What a sink waits for that maps events of which there is no schema document."""
        try:
            known = self.published_events()
        except TransportRefused as error:  # an ACL of before: nothing else needs that right
            waited_for = missing_events(labels, None, mapped, self._sink)
            return waited_for._replace(reason=f"{waited_for.reason} (which there are is not told: {error})")
        return missing_events(labels, known, mapped, self._sink)

    def request_snapshot(self, labels: Sequence[str]) -> list[str]:
        """Ask the reader to publish these events again, for this sink alone; returns the ids of the runs to come."""
        fields = {"events": json.dumps(list(labels)), "sink": self._sink}
        with translated_errors(self._keys.requests):
            entry_id = cast(bytes, self._client.xadd(self._keys.requests, cast(Any, fields))).decode()
        return [f"{entry_id}:{label}" for label in labels]

    def runs(self, ids: Sequence[str]) -> dict[str, KnownRun]:
        """What the reader has stored of snapshot runs that it knows. Raises MalformedEntry too."""
        with translated_errors(self._keys.runs):
            stored = cast(list[bytes | None], self._client.hmget(self._keys.runs, list(ids)))
        return {id_: KnownRun.parse(text) for id_, text in zip(ids, stored, strict=True) if text}

    def is_on_its_way(self, run: str) -> bool:
        """Whether the reader knows of a run that it was asked for, or will."""
        entry_id = run.partition(":")[0]
        with translated_errors(self._keys.requests):
            if self._client.xrange(self._keys.requests, entry_id, entry_id):
                return True
            (found,) = cast(list[bytes | None], self._client.hmget(self._keys.runs, run))
        return found is not None

    def write_status(self, status: Mapping[str, object]) -> None:
        """Store the sink's state; it stays after the process is gone, only `alive_at` ages."""
        with translated_errors(self._keys.sink_status(self._sink)):
            self._client.set(self._keys.sink_status(self._sink), json.dumps(status))

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()
