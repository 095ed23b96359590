"""Whether a column that the log announces by name is the one that has this name in the catalog now.

Relation messages tell names, in the order of the columns' numbers, and no numbers. A column that was renamed may have
left its name to another one for a while, whose values would pass for its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Attribute(NamedTuple):
    """A column that a table has or had, as pg_attribute keeps it."""

    name: str
    number: int
    dropped: bool
    generated: bool


def doubtful_columns(announced: Sequence[str], attributes: Sequence[Attribute], names: Sequence[str]) -> list[str]:
    """Those of `names` that may have been another column's when a relation was announced with these columns.

    A column that is there now was there then, if any with a higher number was; one that is dropped now may have been.
    So where nothing was dropped, a column's place tells its number.
    """
    unlogged = {one.name for one in attributes if one.generated and not one.dropped}
    logged = sorted((one for one in attributes if not one.generated or one.dropped), key=lambda one: one.number)
    places = {name: place for place, name in enumerate(name for name in announced if name not in unlogged)}
    alive = {one.name: one.number for one in logged if not one.dropped}
    known = [alive[name] for name in places if name in alive]
    reordered = known != sorted(known)
    unclear = bool(places.keys() - alive.keys()) and bool(alive.keys() - places.keys())
    doubtful = []
    least = most = 0
    for one in logged:
        if one.dropped:
            most += 1
            continue
        if one.name in names and one.name in places:
            ambiguous = most > least and (reordered or unclear)
            if ambiguous or not least <= places[one.name] <= most:
                doubtful.append(one.name)
        least, most = least + 1, most + 1
    return doubtful
