"""What `cdc check` says of related rows: what belongs to an event, and whether indexes lead to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import NamedTuple

from cdc.catalog import Column, Table
from cdc.event_mapping import EventMapping
from cdc.related.mapping import EmbedMapping
from cdc.source.connection import Source
from cdc.wording import counted
from transforms.finding import Finding
from transforms.names import quote_identifier

_UNINDEXED = resources.files("cdc.check").joinpath("indexes.sql").read_text()


class _Join(NamedTuple):
    """By which columns of which table rows are looked for."""

    table: Table
    columns: tuple[str, ...]
    what_for: str


def related_findings(mapping: EventMapping) -> Iterator[Finding]:
    """What belongs to an event."""
    for title, way in mapping.ways.items():
        embed = way[-1]
        by = ", ".join(own.name for own, _ in embed.on)
        number = "all rows" if embed.many else "one row"
        what = f"{title}: {counted(len(embed.columns), 'column')} of {embed.table.name}, {number} by ({by})"
        yield Finding("ok", f"event {mapping.label}", what)


def index_findings(source: Source, mappings: Sequence[EventMapping]) -> Iterator[Finding]:
    """Which indexes are missing. Raises SourceError."""
    joins: dict[tuple[object, ...], tuple[EventMapping, _Join]] = {}
    for mapping in mappings:
        for join in _joins(mapping.table, mapping.embeds):
            joins.setdefault((join.table.name, *sorted(join.columns)), (mapping, join))
    asked = list(joins.values())
    parameters = {
        "schemas": [join.table.name.schema for _, join in asked],
        "names": [join.table.name.name for _, join in asked],
        "columns": [json.dumps(sorted(join.columns)) for _, join in asked],
    }
    for (place,) in source.query(_UNINDEXED, parameters) if asked else ():
        mapping, join = asked[place - 1]
        yield _missing(mapping, join)


def _joins(around: Table, embeds: Sequence[EmbedMapping]) -> Iterator[_Join]:
    for embed in embeds:
        yield _Join(embed.table, _names(own for own, _ in embed.on), f"the {embed.title} of a row are found")
        yield _Join(
            around, _names(theirs for _, theirs in embed.on), f"rows are found that a changed {embed.title} belongs to"
        )
        yield from _joins(embed.table, embed.nested)


def _names(columns: Iterator[Column]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column.name for column in columns))


def _missing(mapping: EventMapping, join: _Join) -> Finding:
    listed = ", ".join(map(quote_identifier, join.columns))
    how = "" if join.table.kind == "p" else " CONCURRENTLY"  # not there for partitioned tables
    return Finding(
        "warning", f"event {mapping.label}",
        f"no index of {join.table.name} begins with ({listed}), by which {join.what_for}: each time all of it is read",
        f"CREATE INDEX{how} ON {join.table.name} ({listed});",
    )  # fmt: skip
