"""Who emits a mark waits until the stream's thread has come to it, or the session ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import pytest

from cdc.snapshot import marks
from cdc.snapshot.marks import Marks, Stopped
from cdc.source.connection import Source


class Log:
    """Takes the messages that are emitted, and delivers them when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.delivered: dict[str, Callable[[], object]] = {}
        self.emitted: list[str] = []
        self.came = threading.Semaphore(0)
        monkeypatch.setattr(marks, "emit_message", self._emit)

    def _emit(self, source: Source, prefix: str, content: bytes) -> None:
        assert prefix == "statecast:shop"
        self.emitted.append(json.loads(content)["token"])
        self.came.release()

    def deliver_next(self) -> None:
        assert self.came.acquire(timeout=60)
        self.delivered.pop(self.emitted.pop(0))()


SOURCE = cast(Source, None)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


@pytest.fixture
def session(log: Log) -> Marks:
    return Marks("statecast:shop", log.delivered)


def test_what_is_done_at_a_mark_is_done_by_the_streams_thread(log: Log, session: Marks) -> None:
    with ThreadPoolExecutor(1) as other:
        result = other.submit(session.emit, SOURCE, threading.get_ident)
        log.deliver_next()
        assert result.result(timeout=60) == threading.get_ident()


def test_no_two_marks_have_the_same_token(log: Log, session: Marks) -> None:
    with ThreadPoolExecutor(4) as others:
        results = [others.submit(session.emit, SOURCE, lambda number=number: number) for number in range(100)]
        for _ in results:
            log.deliver_next()
        assert [result.result(timeout=60) for result in results] == list(range(100))


@pytest.mark.parametrize("error", [ValueError("broken"), TimeoutError("too slow")])
def test_what_fails_at_a_mark_fails_for_both_threads(log: Log, session: Marks, error: Exception) -> None:
    def fail() -> None:
        raise error

    with ThreadPoolExecutor(1) as other:
        result = other.submit(session.emit, SOURCE, fail)
        with pytest.raises(type(error)):
            log.deliver_next()
        with pytest.raises(type(error)):
            result.result(timeout=60)


def test_a_mark_that_is_delivered_just_when_a_wait_has_run_out_is_delivered(
    log: Log, session: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Future[str]):
        def result(self, timeout: float | None = None) -> str:
            if log.emitted:
                log.deliver_next()
                raise TimeoutError
            return super().result(timeout)

    monkeypatch.setattr(marks, "Future", Late)
    assert session.emit(SOURCE, lambda: "done") == "done"


def test_the_end_of_the_session_frees_who_waits_and_who_comes_later(log: Log, session: Marks) -> None:
    done: list[str] = []
    with ThreadPoolExecutor(1) as other:
        result = other.submit(session.emit, SOURCE, lambda: done.append("late"))
        assert log.came.acquire(timeout=60)
        session.stop()
        with pytest.raises(Stopped):
            result.result(timeout=60)
    with pytest.raises(Stopped):
        session.emit(SOURCE, lambda: done.append("later"))
    log.delivered.pop(log.emitted.pop())()  # the log brings it all the same
    assert done == []


def test_other_work_goes_on_while_a_mark_is_waited_for(
    log: Log, session: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "MEANWHILE_SECONDS", 0.01)
    twice = threading.Semaphore(0)
    with ThreadPoolExecutor(1) as other:
        result = other.submit(session.emit, SOURCE, lambda: "done", meanwhile=twice.release)
        assert twice.acquire(timeout=60)
        assert twice.acquire(timeout=60)
        log.deliver_next()
        assert result.result(timeout=60) == "done"
