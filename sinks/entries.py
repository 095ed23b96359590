"""Entries of a stream, as a sink reads them.

Most of the words of an entry are the same in all of them, and an object for each is the most that a sink spends on it.
So where it is there, `_replies.c` takes Redis' answers: it keeps their bytes, and makes an entry when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final, SupportsIndex, cast, overload

from transforms import accelerator

COMPILED: Final = accelerator.load("sinks._entries")

Entry = tuple[bytes, list[bytes]]
"""An entry as Redis returns it: its id, and its words (field, value, field, value ...)."""
Kept = Mapping[bytes, tuple[dict[bytes, Any], dict[bytes, list[Any]]]]
"""`latest` and `behind` of each event type, by its label as in entries."""

_ID: Final = rb"[1-9][0-9]*+-[1-9][0-9]{6,17}+"
"""A checkpoint's ordinal is a bigint."""
_IDS = re.compile(rb"(?:%b )*+" % _ID)
ENTRY_OVERHEAD_BYTES: Final = 160
"""What an entry has besides key and state."""
_PLAIN_FIELDS = [b"op", b"type", b"key", b"state"]
_PLAIN_TAIL = frozenset((b"end", b"origin"))


class Entries(list[Entry]):
    """Entries in order; what is compiled has the same methods, and `extend`, items, and slices without a step."""

    @overload
    def __getitem__(self, at: SupportsIndex) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> Entries: ...
    def __getitem__(self, at: SupportsIndex | slice) -> Entry | Entries:
        """An entry, or some of them."""
        found = super().__getitem__(at)
        return Entries(cast(Iterable[Entry], found)) if isinstance(at, slice) else cast(Entry, found)

    def odd_id(self) -> bytes | None:
        """The first id that no reader gives, which are `<commit_lsn>-<n * 1000000 + slot>`, n from 1 on."""
        ids = [entry_id for entry_id, _ in self]
        if _IDS.fullmatch(b" ".join([*ids, b""])):
            return None
        return next(entry_id for entry_id in ids if not re.fullmatch(_ID, entry_id))

    def size(self) -> int:
        """How many bytes they have, about."""
        return sum([ENTRY_OVERHEAD_BYTES + len(words[7]) if len(words) > 7 else 0 for _, words in self])

    def ended(self) -> int:
        """How many there are up to the last one with `end` or `origin`; 0: none has it."""
        for count in range(len(self), 0, -1):
            words = self[count - 1][1]
            if b"origin" in words[::2] or ends_transaction(words):
                return count
        return 0

    def take_plain(self, first: int, kept: Kept, change: type[Any], rest: tuple[Any, Any, Any]) -> int:
        """Keep plain upserts, from number `first` on, each as a `change`, a NamedTuple of id, key, state and `rest`.

        A plain one has no optional fields that say more than where it came from. Returns the number of the first other.
        """
        new = tuple.__new__  # a NamedTuple's own costs three times as much
        for number, (entry_id, words) in enumerate(islice(self, first, None), first):
            size = len(words)
            if (
                words[0:7:2] != _PLAIN_FIELDS
                or words[1] != b"upsert"
                or not (size == 12 or (size in (14, 16) and _PLAIN_TAIL.issuperset(words[12::2])))
            ):
                return number
            if (of_type := kept.get(words[3])) is not None:
                latest, behind = of_type
                key = words[5]
                latest[key] = new(change, (entry_id, key, words[7], *rest))
                if behind:
                    behind.pop(key, None)
        return len(self)


def no_entries() -> Entries:
    """To be followed by what is read."""
    return Entries() if COMPILED is None else cast(Entries, COMPILED.Entries())


def joined(entries: Entries, more: Entries) -> Entries:
    """The first with the others behind them, which may be the first itself, made longer."""
    if isinstance(more, Entries):  # which what is compiled does not take
        entries = Entries(entries)
    entries.extend(more)
    return entries


def ends_transaction(words: list[bytes]) -> bool:
    """Whether an entry with these words, in pairs, is the last one of its transaction in its stream."""
    if words[-2:] == [b"end", b"1"]:
        return True
    return any(words[at] == b"end" and words[at + 1] == b"1" for at in range(0, len(words) - 1, 2))
