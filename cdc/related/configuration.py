"""`[events.NAME.embed.FIELD]`: rows of another table that belong to an event's state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from pydantic import Field, field_validator

from cdc.column_names import ColumnNames
from cdc.shaping import Mistake, mistakes_of
from transforms.config import Document, Section, Table
from transforms.masking import MaskName
from transforms.names import EVENT_NAME, identifier_problem

EMBED: Final = "embed"
"""The key under which embeds are written."""
MOST_LEVELS: Final = 3


class EmbedConfig(Section):
    """One embed, and those within it."""

    sections: ClassVar[frozenset[str]] = frozenset({EMBED})

    name: str = Field(
        pattern=f"^{EVENT_NAME.pattern}$", description=f"a name for the field that matches {EVENT_NAME.pattern}"
    )
    embeds: tuple[EmbedConfig, ...] = ()
    table: Table = Field(description="a table's name as SQL writes it")
    on: Mapping[str, str] = Field(description='columns that relate the two, like { order_id = "id" }')
    """Column of this table -> the column of the table around it that has the same value."""
    columns: ColumnNames = Field(description="a list of column names")
    many: bool = Field(
        default=True,  # a list can hold one row, too
        description="true or false",
    )
    rename: Mapping[str, str] = Field(default={}, description='a section like { name = "full_name" }')
    mask: Mapping[str, MaskName] = Field(
        default={}, description='a section like { email = "hash" } of "hash", "redact" and "null"'
    )

    @field_validator("on")
    @classmethod
    def _relates(cls, on: Mapping[str, str]) -> Mapping[str, str]:
        if not on:
            raise ValueError('expected at least one column of each, like { order_id = "id" }')
        for name in (*on, *on.values()):
            if (problem := identifier_problem(name)) is not None:
                raise ValueError(f"a column is {problem}")
        return on

    @field_validator("columns")
    @classmethod
    def _are_listed(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in columns:
            raise ValueError('expected column names, got "*": what an embed holds is listed')
        return columns

    @property
    def key(self) -> None:
        """Its rows have no key of the event's."""

    @property
    def where(self) -> None:
        """All rows that are related belong to it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The published fields of its columns."""
        return tuple(self.rename.get(column, column) for column in self.columns)


def read_embeds(document: Document, path: tuple[str, ...], level: int = 1) -> tuple[EmbedConfig, ...]:
    """The embeds of the event or embed at `path`; mistakes are noted in the document."""
    names = document.table(*path, EMBED)
    if names and level > MOST_LEVELS:
        document.refuse((*path, EMBED), f"embeds nest to {MOST_LEVELS} levels, this would be another one")
        return ()
    found = [_read(document, (*path, EMBED, name), level) for name in names or ()]
    return tuple(embed for embed in found if embed is not None)


def _read(document: Document, path: tuple[str, ...], level: int) -> EmbedConfig | None:
    within = read_embeds(document, path, level + 1)
    embed = document.section(EmbedConfig, *path, given={"name": path[-1], "embeds": within})
    for other in within:
        if embed is not None and other.name in embed.names:
            document.refuse((*path, EMBED, other.name), "its table has a field of this name: give the embed another")
    return embed


def embed_mistakes(embeds: Sequence[EmbedConfig], *, has_hash_key: bool) -> Iterator[Mistake]:
    """What is wrong with the shapes of embeds, and of those within them: where in the section around them, and what."""
    for embed in embeds:
        within = embed_mistakes(embed.embeds, has_hash_key=has_hash_key)
        for where, problem in (*mistakes_of(embed, has_hash_key=has_hash_key), *within):
            yield (EMBED, embed.name, *where), problem
