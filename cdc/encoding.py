"""The encoder of an event's rows: its mapping, masks and hook, compiled for the columns of a relation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from cdc.event_mapping import EventMapping, MappedField
from cdc.hooks import find_hook
from cdc.shaping import filter_of
from transforms.column_type import RelationColumn
from transforms.condition.tree import Condition
from transforms.encoder import RowEncoder, compile_encoder
from transforms.hooks import hooked
from transforms.masking import Masks
from transforms.row import Field


def encoder_for(
    mapping: EventMapping,
    masks: Masks,
    relation: Sequence[RelationColumn],
    fields: Iterable[MappedField],
    condition: Condition | None,
    related: Sequence[Field] = (),
) -> RowEncoder:
    """The encoder for rows of `relation` that publishes these fields, of the rows for which the condition holds.

    `related`: fields of related rows, which come behind the others.
    """

    def compiled(fields: Iterable[MappedField]) -> list[Field]:
        return [Field(field.name, field.column.name, masks.of(field.masked)) for field in fields]

    listed = [*compiled(fields), *related]
    made = compile_encoder(relation, listed, compiled(mapping.key_fields), filter_of(condition))
    if mapping.transform is None or not listed:  # without a state there is nothing to shape
        return made
    return hooked(made, partial(find_hook, mapping.transform), [field.name for field in mapping.key_fields])
