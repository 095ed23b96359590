"""Rows that must be read again by their key: found by query, and published like a chunk."""

from __future__ import annotations

from collections.abc import Mapping

from cdc.rereads import Rereads
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.subject import Subject
from cdc.snapshot.waiting import Waiting
from cdc.translation import Translator

REREAD_KEYS = 1_000
NO_LIMIT = 1 << 62


class Rereader:
    """Publishes whole rows for changes that could not be published as they were."""

    def __init__(
        self, chunks: Chunks, translator: Translator, subjects: Mapping[str, Subject], waiting: Waiting
    ) -> None:
        self._chunks = chunks
        self._translator = translator
        self._subjects = subjects
        self._waiting = waiting

    def read_again(self) -> None:
        """Read and publish about `REREAD_KEYS` rows of each event that has some waiting."""
        for event in self._translator.rereads.events:
            while unseen := self._read_some(self._subjects[event]):
                self._chunks.wait_until_seen(unseen, self._waiting)

    def _read_some(self, subject: Subject) -> tuple[int, ...]:
        event, translator = subject.event, self._translator
        taken: list[Rereads] = []
        keys: set[bytes] = set()

        def collect() -> None:
            found, wanted = translator.rereads.oldest(event, REREAD_KEYS)
            taken.extend(found)
            keys.update(wanted)

        def finish(incomplete: frozenset[bytes]) -> None:
            translator.rereads_done(event, taken, incomplete)

        window = self._chunks.open(event, collect)
        rows = self._chunks.read(subject, subject.query(keys=frozenset(keys)), NO_LIMIT)
        return self._chunks.publish(subject, window, rows, b"reread", None, finish)
