"""The encoder of an event's rows: its mapping, masks and hook, compiled for the columns of a relation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from cdc.catalog import EventMapping, MappedField
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
) -> RowEncoder:
    """The encoder for rows of `relation` that publishes these fields, of the rows for which the condition holds."""

    def compiled(fields: Iterable[MappedField]) -> list[Field]:
        return [Field(field.name, field.column.name, masks.of(field.masked)) for field in fields]

    made = compile_encoder(relation, compiled(fields), compiled(mapping.key_fields), filter_of(condition))
    if mapping.transform is None:
        return made
    return hooked(made, partial(find_hook, mapping.transform), [field.name for field in mapping.key_fields])
