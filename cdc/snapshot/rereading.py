"""Rows that must be read again by their key: found by query, and published like a chunk."""

from __future__ import annotations

from collections.abc import Mapping, Set

from cdc.rereads import Rereads
from cdc.snapshot.chunks import Chunks
from cdc.snapshot.subject import Subject
from cdc.snapshot.waiting import Waiting
from cdc.translation import Translator

REREAD_KEYS = 1_000


class Rereader:
    """Publishes whole rows for changes that could not be published as they were."""

    def __init__(
        self,
        chunks: Chunks,
        translator: Translator,
        subjects: Mapping[str, Subject],
        waiting: Waiting,
        budget_bytes: int,
    ) -> None:
        """`budget_bytes`: how much is read at a time, as the source sends it."""
        self._chunks = chunks
        self._translator = translator
        self._subjects = subjects
        self._waiting = waiting
        self._budget_bytes = budget_bytes

    def read_again(self) -> None:
        """Read and publish up to `REREAD_KEYS` rows of each event that has some waiting."""
        for event in self._translator.rereads.events:
            while unseen := self._read_some(self._subjects[event]):
                self._chunks.wait_until_seen(unseen, self._waiting)

    def _read_some(self, subject: Subject) -> tuple[int, ...]:
        event, translator = subject.event, self._translator
        taken: dict[Rereads, Set[bytes]] = {}

        window = self._chunks.open(event, lambda: taken.update(translator.rereads.oldest(event, REREAD_KEYS)))
        keys = frozenset[bytes]().union(*taken.values())
        rows = self._chunks.read(subject, subject.query(keys=keys), self._budget_bytes)
        unread = frozenset() if rows.exhausted else keys.difference(row[0] for row in rows.rows)

        def finish(incomplete: frozenset[bytes]) -> None:
            translator.rereads_done(event, taken, incomplete | unread)

        return self._chunks.publish(subject, window, rows, b"reread", None, finish)
