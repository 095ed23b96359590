"""Sinks ignore fields of entries that they do not know, and `previous`, which is for other readers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sinks.compaction import compact
from sinks.entries import Entries, Entry
from tests.resp import WAYS
from transforms import wire

MORE = [
    [b"previous", b'{"id":1,"name":"before"}'],
    [b"previous", b"no JSON at all"],
    [b"from_another_version", b"\xff\x00"],
    [b"previous", b"{}", b"from_another_version", b"", b"state_of_tomorrow", b"{}"],
]


@pytest.mark.parametrize("made", WAYS)
@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("tail", [[], [b"end", b"1"], [b"origin", b"reread", b"end", b"1"]])
def test_what_entries_come_to_is_the_same_with_fields_that_are_not_known(
    more: list[bytes], tail: list[bytes], made: Callable[[list[Entry]], Entries]
) -> None:
    type_, stamp = b"customer.v1", (b"1", b"7")
    upserts = [wire.upsert_words(type_, b'{"id":%d}' % id_, b'{"id":%d,"name":"x"}' % id_, *stamp) for id_ in (1, 2, 3)]
    all_words = [
        wire.truncate_words(type_, *stamp),
        *upserts,
        wire.delete_words(type_, b'{"id":2}', *stamp),
        wire.mark_words("run-begin", {"run": "r", "event": "customer.v1"}, b"1", None),
        upserts[0],
    ]

    def steps(added: list[bytes], behind: list[bytes]) -> object:
        entries = [(b"24-%d" % number, [*words, *added, *behind]) for number, words in enumerate(all_words, 1)]
        return compact(made(entries), "billing", {type_: "customer.v1"})

    assert steps(more, tail) == steps([], tail)
    assert steps(tail, more) == steps([], tail)
