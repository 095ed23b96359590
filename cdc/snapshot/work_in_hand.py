"""What threads that read chunks are given: a run that is worked on, whatever it finds its rows by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from cdc.snapshot import sizing
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.run import Run
from cdc.snapshot.subject import Subject
from cdc.snapshot.waiting import Waiting
from cdc.translation import Translator

MOST_SHARE: Final = 0.99
"""Of a run that is not over: what it is a share of is an estimate, which a growing table exceeds."""


class WorkInHand(ABC):
    """One run. Each call of `work` is for a chunk."""

    def __init__(
        self,
        run: Run,
        subject: Subject,
        translator: Translator,
        waiting: Waiting,
        held_by: Callable[[], str | None],
        chunk_bytes: int,
    ) -> None:
        """`run` has begun."""
        self.run = run
        """As far as it is published."""
        self.subject = subject
        self.threads = 0
        """How many work on it; kept by whoever hands out the work."""
        self.served = 0
        """When it was given a thread last, in turns; kept by the same."""
        self.held_by = held_by
        """What must be over before another chunk is begun, in words."""
        self._translator = translator
        self._waiting = waiting
        self._chunk_bytes = chunk_bytes
        self._limit = sizing.FIRST_ROWS

    @property
    @abstractmethod
    def wants_threads(self) -> bool:
        """Whether another thread would find work."""

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether every chunk is published."""

    @property
    @abstractmethod
    def may_end(self) -> bool:
        """Whether every row is published, those too that left a chunk and were to be read again."""

    @abstractmethod
    def work(self, chunks: Chunks) -> None:
        """Read and publish the next chunk, if there is one. Raises SourceError and Stopped."""
