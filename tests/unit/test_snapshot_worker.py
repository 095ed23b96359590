"""The thread that keeps the runs of a session."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import pytest

from cdc.control import Control
from cdc.counters import Counters
from cdc.snapshot import marks, worker
from cdc.snapshot.run import Run
from cdc.snapshot.subject import Subject
from cdc.snapshot.visibility import Snapshot
from cdc.snapshot.worker import SnapshotWorker
from cdc.source.connection import Source
from tests.unit.translation_harness import PREFIX, Log
from transforms.position import LSN

EVENT = "customer.v1"


@dataclass
class Customers:
    event: str = EVENT
    estimated_rows: int = 1


class Stored:
    """One run that waits, and nothing else."""

    def runs(self) -> list[Run]:
        return [Run("r", EVENT)]

    def take_requests(self, known: Sequence[str]) -> list[Run]:
        return []

    def forget_runs(self, ids: Sequence[str]) -> None: ...

    def snapshots_paused_since(self) -> None: ...


class Silent:
    """A source that runs nothing."""

    def cancel(self) -> None: ...


def test_what_a_snapshot_sees_is_forgotten_while_a_run_waits_to_begin_behind_a_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, posted, emitted = Log(), queue.Queue[Callable[[], None]](), threading.Event()
    monkeypatch.setattr(marks, "MEANWHILE_SECONDS", 0.01)
    monkeypatch.setattr(marks, "emit_message", lambda *_: emitted.set())
    monkeypatch.setattr(worker, "LOOK_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(worker, "flush_position", lambda _: LSN(1_000))
    monkeypatch.setattr(worker, "current_snapshot", lambda _: Snapshot(1_000, 1_000, frozenset()))
    keeper = SnapshotWorker(
        cast(Source, Silent()),
        lambda: cast(Source, Silent()),
        cast(Control, Stored()),
        log.translator,
        {EVENT: cast(Subject, Customers())},
        PREFIX,
        posted.put,
        lambda _: None,
        Counters(),
        lambda _: None,
        1,
    )
    thread = threading.Thread(target=keeper.threads["snapshot"])
    thread.start()
    try:
        assert emitted.wait(10)
        log.deliveries.delivered(7)
        posted.get(timeout=10)()
        assert log.deliveries.waits_for == 0
    finally:
        keeper.stop()
        thread.join(10)
    assert not thread.is_alive()
