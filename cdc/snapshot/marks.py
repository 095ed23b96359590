"""Marks: logical messages with which other threads meet the stream's thread at a place in the log."""

from __future__ import annotations

import itertools
import json
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from cdc.source.connection import Source
from cdc.source.write_ahead_log import emit_message

Result = TypeVar("Result")

MEANWHILE_SECONDS = 1.0


class Stopped(Exception):
    """The session ends; the work in hand is taken up by the next one."""


class Marks:
    """The marks of one session. Any thread may emit one over its own connection."""

    def __init__(self, prefix: str, delivered: dict[str, Callable[[], object]]) -> None:
        """`delivered` is where the stream's thread looks for what to do, by a message's token."""
        self._prefix = prefix
        self._delivered = delivered
        self._tokens = map("{}-{}".format, itertools.repeat(secrets.token_hex(8)), itertools.count(1))
        self._awaited: set[Future[Any]] = set()
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def emit(
        self, source: Source, act: Callable[[], Result], *, meanwhile: Callable[[], None] = lambda: None
    ) -> Result:
        """Emit a mark and wait until the stream's thread has come to it and called `act`.

        `meanwhile` is called every second of the wait. Raises what `act` raises, SourceError, and Stopped.
        """
        token = next(self._tokens)
        delivered: Future[Result] = Future()

        def deliver() -> None:
            if not delivered.set_running_or_notify_cancel():
                return
            try:
                delivered.set_result(act())
            except BaseException as error:  # the session ends with it; nobody may go on waiting here
                delivered.set_exception(error)
                raise

        with self._lock:
            if self._stopped.is_set():
                raise Stopped
            self._awaited.add(delivered)
        try:
            self._delivered[token] = deliver
            emit_message(source, self._prefix, json.dumps({"token": token}).encode())
            while True:
                try:
                    return delivered.result(timeout=MEANWHILE_SECONDS)
                except TimeoutError:
                    if delivered.done():  # just now; or it is what `act` raised
                        return delivered.result()
                    meanwhile()
        except CancelledError:
            raise Stopped from None
        finally:
            with self._lock:
                self._awaited.discard(delivered)

    def stop(self) -> None:
        """Have everybody who waits here raise Stopped, once the stream's thread has ended its work."""
        with self._lock:
            self._stopped.set()
            for delivered in self._awaited:
                delivered.cancel()
