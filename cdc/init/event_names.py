"""How `cdc init` names the pipeline and its events."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from cdc.init.words import words
from transforms.names import RESERVED_NAMES, TableName

_PIPELINE_NAME_SIZE: Final = 31
_EVENT_NAME_SIZE: Final = 63

_SAID_PLAINLY: Final = re.compile(r"[a-z0-9_]+s")
"""Such a table keeps the name without a number where others in its schema give the same."""

_SINGULAR: Final = {"people": "person", "children": "child", "men": "man", "women": "woman"}
_NO_PLURAL: Final = frozenset({"series", "species", "news", "address", "sms", "gps", "dns", "https", "always"})
_KEEP_E: Final = frozenset({"movies", "cookies", "caches", "aches", "sizes", "prizes", "axes"})


def pipeline_name(database: str) -> str:
    """A pipeline's name made of a database's."""
    return _fit(_named(words(database), "db"), _PIPELINE_NAME_SIZE)


def event_names(tables: Sequence[TableName]) -> dict[TableName, str]:
    """A name for each table's event: the table's in the singular, with its schema where two would be alike."""
    short = {table: _event_name(table.name) for table in tables}
    used = Counter(short.values())
    chosen: dict[TableName, str] = {}
    taken = {name for name, times in used.items() if times == 1 and name not in RESERVED_NAMES}
    for table in sorted(tables, key=lambda table: (table.schema, not _SAID_PLAINLY.fullmatch(table.name), table.name)):
        name = short[table]
        if used[name] > 1 or name in RESERVED_NAMES:
            name = _free(_fit(_named(words(table.schema) + name.split("_"), "t"), _EVENT_NAME_SIZE), taken)
            taken.add(name)
        chosen[table] = name
    return chosen


def _event_name(table: str) -> str:
    parts = words(table)
    if parts:
        parts[-1] = singular(parts[-1])
    return _fit(_named(parts, "t"), _EVENT_NAME_SIZE)


def singular(word: str) -> str:
    """The singular of an English plural; other words stay as they are, as far as their ends tell."""
    if word in _SINGULAR:
        return _SINGULAR[word]
    if word in _NO_PLURAL or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word in _KEEP_E:
        return word[:-1]
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    if word.endswith("uses") and len(word) > 5 and word[-5] not in "aeou":  # statuses, not houses
        return word[:-2]
    return word[:-1]


def _named(parts: Sequence[str], prefix: str) -> str:
    """Words joined to a name that begins with a letter."""
    name = "_".join(parts) or "table"
    return name if name[0].isalpha() else f"{prefix}_{name}"


def _fit(name: str, size: int) -> str:
    return name[:size].rstrip("_")


def _free(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken or free in RESERVED_NAMES:
        free = f"{_fit(name, _EVENT_NAME_SIZE - len(str(number)) - 1)}_{number}"
        number += 1
    return free
