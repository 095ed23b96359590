"""The lines on which the promise rests, each with a way to break it and the tests that notice.

A test that would pass with the promise broken proves nothing: `test_mutations.py` breaks each line in a copy of the
project, and its tests must fail there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One line, and what breaks it."""

    rule: str
    """What the line is there for."""
    file: str
    line: str
    """Text that is found once in the file."""
    broken: str
    """What stands there instead."""
    test: str
    """A node id of pytest that must fail."""

    def text(self, root: Path) -> str:
        """The file below `root`, with the line broken. Raises ValueError where the line is not found once."""
        text = (root / self.file).read_text()
        if (count := text.count(self.line)) != 1:
            raise ValueError(f"{self.file} has {count} times, not once: {self.line}")
        return text.replace(self.line, self.broken)


_APPLYING = """\
            Applier(self._database, replicas, rebuilds, *lots, needless=needless, careful=careful).apply(steps)
            self._rebuilding.note(touched)
            reached(Failpoint.ROWS_APPLIED)
"""
_ADVANCING = "            advanced = self._checkpoints.advance(checkpoint, position, applied_lsn)\n"

MUTATIONS = [
    Mutation(
        "a position is confirmed only when all before it is in its streams and stored",
        "cdc/publisher.py",
        "return None if sent.stores is None else sent.stores.end",
        "return sent.batch.end",
        "tests/integration/test_publisher.py::test_a_batch_is_stored_with_the_one_that_follows",
    ),
    Mutation(
        "rows that are to be read again hold the position back",
        "cdc/translation.py",
        "self._latest_end if held is None else held",
        "self._latest_end",
        "tests/unit/test_translation_marks.py",
    ),
    Mutation(
        "behind the first entry that was refused nothing is appended",
        "cdc/append.lua",
        "if precedes(seen.last, ARGV[2]) then",
        "if false then",
        "tests/integration/test_publisher.py::test_behind_a_batch_that_failed_the_next_one_appends_nothing",
    ),
    Mutation(
        "a stream that ends before what is known to be in it is a hole",
        "cdc/publisher.py",
        "if seen.last < known:",
        "if False:",
        "tests/integration/test_publisher.py::test_a_stream_that_lost_its_end_is_not_appended_to",
    ),
    Mutation(
        "what is skipped as a repeat is compared with what is there",
        "cdc/proof.py",
        "if found[entry_id] != (tx, ts):",
        "if False:",
        "tests/integration/test_publisher.py::test_entries_that_somebody_else_added_are_not_taken_for_ours",
    ),
    Mutation(
        "a slot that was confirmed beyond what Redis holds stops the reader",
        "cdc/startup.py",
        "if source.slot_confirmed > stored.published:",
        "if False:",
        "tests/unit/test_startup.py",
    ),
    Mutation(
        "a slot that is gone is never made again in silence",
        "cdc/startup.py",
        "if source.slot_plugin is None:\n        raise SlotMissing",
        "if False:\n        raise SlotMissing",
        "tests/unit/test_startup.py",
    ),
    Mutation(
        "a chunk whose snapshot misses what was delivered before its low mark is read again",
        "cdc/snapshot/visibility.py",
        "        unseen |= {wide for wide in map(snapshot.widen, self._before) if not snapshot.sees(wide)}\n",
        "",
        "tests/unit/test_visibility.py",
    ),
    Mutation(
        "rows changed between the marks and not seen leave the chunk",
        "cdc/snapshot/visibility.py",
        "whole |= touched.whole",
        "pass",
        "tests/unit/test_visibility.py",
    ),
    Mutation(
        "a row that was found meanwhile by a query that saw more leaves the chunk",
        "cdc/snapshot/visibility.py",
        "whole |= frozenset(found.keys)",
        "pass",
        "tests/unit/test_visibility.py",
    ),
    Mutation(
        "an update that changes the key deletes the row under its old key",
        "cdc/translation.py",
        "if old_key is not None and old_key != key and self._was_held(route, frame):\n                self._publish",
        "if False:\n                self._publish",
        "tests/unit/test_translation.py",
    ),
    Mutation(
        "a large value that was not sent is named as absent",
        "cdc/translation.py",
        'words += (b"partial", wire.compact_json(encoded.partial))',
        "pass",
        "tests/unit/test_translation.py",
    ),
    Mutation(
        "rows and checkpoint are committed together",
        "sinks/applying.py",
        _APPLYING + _ADVANCING,
        _ADVANCING + "        with self._database.transaction():\n" + _APPLYING,
        "tests/faults/test_failpoints.py::test_nothing_is_wrong_after_a_death_at_each_arrow",
    ),
    Mutation(
        "the checkpoint moves only from where this worker left it",
        "sinks/checkpoint.py",
        'AND incarnation = %s AND commit_lsn = %s::pg_lsn AND ordinal = %s AND owner = %s"',
        "AND (incarnation, commit_lsn, ordinal, owner) IS DISTINCT FROM (%s, %s::pg_lsn, %s, %s || '.')\"",
        "tests/integration/test_sink_checkpoint.py::test_where_the_checkpoint_is_another_one_nothing_is_committed",
    ),
    Mutation(
        "a read finds the entry at the checkpoint, or entries were removed",
        "sinks/stream.py",
        "if not found or found[0][0].decode() != str(position):",
        "if not found:",
        "tests/integration/test_sink_removed_by_hand.py::test_nothing_behind_the_hole_is_applied[XTRIM-head-running-0]",
    ),
    Mutation(
        "a batch ends where a transaction of the source ends",
        "sinks/batch.py",
        "max(entries.ended(), before_newest)",
        "len(entries)",
        "tests/unit/test_sink_batch.py",
    ),
    Mutation(
        "of a key's changes the last one is written",
        "sinks/entries.py",
        "latest[key] = new(change, (entry_id, key, words[7], *rest))",
        "latest.setdefault(key, new(change, (entry_id, key, words[7], *rest)))",
        "tests/unit/test_sink_compaction.py",
    ),
]
