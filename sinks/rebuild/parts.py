"""What a rebuild is made of: the event's own table, and with it the tables of its embeds, each with its own shadow."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from sinks.children.shape import ChildShape, shapes
from sinks.config import SinkConfig
from sinks.rebuild.record import Record
from sinks.rebuild.shadow import shadow_name
from transforms.schema import SchemaDocument


class Part(NamedTuple):
    """One table of a rebuild."""

    record: Record
    """Of the whole, with the names of this table."""
    document: SchemaDocument


def parts_of(config: SinkConfig, record: Record, document: SchemaDocument) -> list[Part]:
    """The event's own table first. `document`: the event's, as the sink keeps it."""
    children = [
        Part(
            replace(
                record,
                table=shape.table,
                event=shape.label,
                shadow=shadow_name(shape.table),
                keep_as=record.keep_as and f"{record.keep_as}_{shape.field}",
            ),
            shape.document,
        )
        for shape in shapes(config, record.event, document)
    ]
    return [Part(record, document), *children]


def shadow_shapes(config: SinkConfig, record: Record, document: SchemaDocument) -> list[ChildShape]:
    """The tables of the embeds as they hang on the shadow."""
    return [replace(shape, table=shadow_name(shape.table)) for shape in shapes(config, record.event, document)]
