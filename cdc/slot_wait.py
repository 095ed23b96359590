"""A slot that is being made waits for all transactions that are open then, of any database, until they end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from cdc.errors import SourceBusy
from cdc.source.blockers import blockers
from cdc.source.connection import Source
from transforms.errors import StatecastError

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 10.0
"""After how long the wait is told, and how often it is looked again."""


class SlotWaits(SourceBusy):
    """The new slot waits for transactions that were open before it."""

    remedy = "Let them end. If one was forgotten: SELECT pg_terminate_backend(PID), or ROLLBACK PREPARED."


@contextmanager
def telling_who_is_waited_for(
    waiting_pid: int, connect: Callable[[], Source], tell: Callable[[SlotWaits], None]
) -> Iterator[None]:
    """While the block runs, in which the server process `waiting_pid` makes a slot, `tell` whom that waits for.

    From a thread and a connection of its own.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(waiting_pid, connect, tell, over), name="slot", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(
    waiting_pid: int, connect: Callable[[], Source], tell: Callable[[SlotWaits], None], over: threading.Event
) -> None:
    while not over.wait(PATIENCE_SECONDS):
        try:
            with closing(connect()) as source:
                found = blockers(source, waiting_pid)
        except StatecastError as error:
            log.warning("whom the new slot waits for cannot be told: %s", error)
            continue
        if found and not over.is_set():
            tell(SlotWaits(f"the new slot waits for open transactions to end: {'; '.join(found)}"))
