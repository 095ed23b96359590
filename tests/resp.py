"""Entries as Redis sends them."""

from __future__ import annotations

from collections.abc import Iterable

from sinks.entries import COMPILED, Entries, Entry, no_entries


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def array(items: Iterable[bytes]) -> bytes:
    listed = list(items)
    return b"*%d\r\n" % len(listed) + b"".join(listed)


def answer(entries: Iterable[Entry]) -> bytes:
    """The answer to XRANGE."""
    return array(array([bulk(entry_id), array(map(bulk, words))]) for entry_id, words in entries)


def compiled(entries: Iterable[Entry]) -> Entries:
    """Entries as `_replies.c` keeps them, each from an answer of its own."""
    made = no_entries()
    for entry in entries:
        replies = COMPILED.Replies(COMPILED.Entries, 1, 0)
        assert replies.feed(answer([entry]))
        made.extend(replies.answers(ValueError)[0])
    return made


WAYS = [Entries, *([compiled] if COMPILED else [])]
"""What makes entries of a list, in Python and compiled."""
