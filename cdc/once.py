"""Where `cdc run --once` ends."""

from __future__ import annotations

import json
import time

from cdc.snapshot.worker import SnapshotWorker
from cdc.source.connection import Source
from cdc.source.write_ahead_log import emit_message
from cdc.translation import Translator
from transforms.position import LSN


class Goal:
    """Behind every snapshot, and behind all that was committed when they were complete."""

    def __init__(self, source: Source, translator: Translator, worker: SnapshotWorker, prefix: str) -> None:
        self._source = source
        self._translator = translator
        self._worker = worker
        self._prefix = prefix
        self._emitted = False
        self._delivered = False
        self._looked = False
        self._position: LSN | None = None

    def reached_at(self) -> LSN | None:
        """The position that must be confirmed, once it is known. Called by the stream's thread."""
        if not self._emitted and self._worker.idle.is_set():
            self._emitted = True
            token = f"once-{time.time_ns()}"
            self._translator.marks[token] = self._deliver
            emit_message(self._source, self._prefix, json.dumps({"token": token}).encode())
        if self._delivered and self._position is None and not self._translator.hand.is_open:
            self._position = self._translator.latest_end
        return self._position

    def is_settled(self) -> bool:
        """Whether no fan-out is left of what was published up to there. Called when that is confirmed, and stored."""
        if not self._looked:
            self._looked = True
            self._worker.wake()
        return self._worker.idle.is_set()

    def _deliver(self) -> None:
        self._delivered = True
