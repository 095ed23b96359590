"""What `cdc` reads from the configuration file: pipeline, source, transport, masking and events.

The sections of sinks are left alone: they belong to the consuming services, and so do the variables they name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from cdc.column_names import ColumnNames
from cdc.related.configuration import EMBED, EmbedConfig, embed_mistakes, read_embeds
from cdc.shaping import ALL_COLUMNS as ALL_COLUMNS
from cdc.shaping import mistakes_of
from transforms.address import Address
from transforms.config import (
    ConfigurationError,
    Document,
    PipelineConfig,
    Section,
    Table,
    TransportConfig,
    key_path,
)
from transforms.masking import LEAST_KEY_CHARACTERS, MaskName, Masks
from transforms.names import EVENT_NAME, HOOK_NAME, RESERVED_NAMES, SLOT_NAME, event_label
from transforms.secret import Secret

_NAME_RULE = f"a name that matches {EVENT_NAME.pattern}, not {', '.join(sorted(RESERVED_NAMES))}"


def _not_reserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"expected {_NAME_RULE}")
    return name


EntityName = Annotated[str, Field(pattern=f"^{EVENT_NAME.pattern}$"), AfterValidator(_not_reserved)]


def _same_as(field: str) -> Callable[[dict[str, Any]], str]:
    return lambda fields: str(fields[field])


class SourceConfig(Section):
    """`[source]`: the database whose changes are published."""

    later: ClassVar[Mapping[str, object]] = {"publish_columns": "all"}

    dsn: Secret = Field(description="a libpq URI or keyword string")
    slot: str = Field(pattern=f"^{SLOT_NAME.pattern}$", description=f"a name that matches {SLOT_NAME.pattern}")
    snapshot: Literal["initial", "never"] = Field(default="initial", description='"initial" or "never"')
    snapshot_workers: int = Field(default=2, ge=1, le=16, description="a number from 1 to 16")
    allow_plaintext: bool = Field(default=False, description="true or false")

    @property
    def address(self) -> Address:
        """Where the source is."""
        return Address("source", self.dsn, self.allow_plaintext)


class EventConfig(Section):
    """`[events.NAME]`: which columns of which table are published, under which type and version."""

    later: ClassVar[Mapping[str, object]] = {
        "partitions": 1,
    }
    sections: ClassVar[frozenset[str]] = frozenset({EMBED})

    name: EntityName = Field(description=_NAME_RULE)
    table: Table = Field(description="a table's name as SQL writes it")
    columns: ColumnNames = Field(description='a list of column names, or ["*"]')
    type: EntityName = Field(default_factory=_same_as("name"), description=_NAME_RULE)
    version: int = Field(default=1, ge=1, le=999_999, description="a whole number from 1 to 999999")
    key: ColumnNames | None = Field(default=None, description="a list of column names")
    stream: EntityName = Field(default_factory=_same_as("type"), description=_NAME_RULE)
    truncate: Literal["apply", "ignore", "halt"] = Field(default="apply", description='"apply", "ignore" or "halt"')
    unchanged_toast: Literal["reread", "partial", "halt"] = Field(
        default="reread", description='"reread", "partial" or "halt"'
    )
    previous: bool = Field(default=False, description="true or false")
    transform: str | None = Field(
        default=None,  # states are published as they are
        pattern=f"^({HOOK_NAME.pattern})$",
        description='a function\'s name, like "shop.hooks:order"',
    )
    embeds: tuple[EmbedConfig, ...] = ()
    rename: Mapping[str, str] = Field(default={}, description='a section like { name = "full_name" }')
    """Column -> under which name it is published."""
    mask: Mapping[str, MaskName] = Field(
        default={}, description='a section like { email = "hash" } of "hash", "redact" and "null"'
    )
    where: str | None = Field(
        default=None,  # every row
        description="a condition on columns of the table",
    )

    @property
    def label(self) -> str:
        """Type and version as entries carry them: `customer.v1`."""
        return event_label(self.type, self.version)

    @field_validator("columns")
    @classmethod
    def _all_or_listed(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in columns and columns != ALL_COLUMNS:
            raise ValueError('"*" stands for all columns and allows no other beside it')
        return columns

    @field_validator("key")
    @classmethod
    def _key_is_published(cls, key: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        columns = info.data.get("columns", ALL_COLUMNS)
        if key is not None and "*" in key:
            raise ValueError('expected column names, got "*"')
        if key is not None and columns != ALL_COLUMNS and not set(key) <= set(columns):
            raise ValueError("every column of the key must also be listed in columns")
        return key

    @field_validator("transform")
    @classmethod
    def _is_shown_whole_rows(cls, transform: str | None, info: ValidationInfo) -> str | None:
        if transform is not None and info.data.get("unchanged_toast") == "partial":
            raise ValueError('a function is shown whole rows only: unchanged_toast must be "reread" or "halt"')
        return transform


class MaskingConfig(Section):
    """`[masking]`: the key of `hash`, and the id that tells which one it was."""

    hash_key: Secret | None = Field(default=None, description=f"a key of {LEAST_KEY_CHARACTERS} characters or more")
    hash_key_id: str = Field(
        default="k1", pattern=r"^[A-Za-z0-9_-]{1,32}$", description="up to 32 letters, digits, - and _"
    )

    @field_validator("hash_key")
    @classmethod
    def _is_long_enough(cls, key: Secret | None) -> Secret | None:
        if key is not None and len(key.reveal()) < LEAST_KEY_CHARACTERS:
            raise ValueError(f"expected {LEAST_KEY_CHARACTERS} characters or more (`openssl rand -hex 32` makes some)")
        return key

    @property
    def masks(self) -> Masks:
        """The masks with the key as it is now. Raises SecretUnreadable."""
        return Masks(None if self.hash_key is None else self.hash_key.reveal().encode(), self.hash_key_id)


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """All that the reader of one pipeline is told."""

    pipeline: PipelineConfig
    source: SourceConfig
    transport: TransportConfig
    events: tuple[EventConfig, ...]
    masking: MaskingConfig = field(default_factory=MaskingConfig)

    @property
    def publication(self) -> str:
        """The publication's name, which is the slot's."""
        return self.source.slot

    @property
    def application_name(self) -> str:
        """What the source's pg_stat_replication shows. It must not match synchronous_standby_names."""
        return f"statecast_{self.pipeline.name}"


def load_reader_config(path: Path, environ: Mapping[str, str]) -> ReaderConfig:
    """Read what `cdc` needs from the file at `path`. Raises ConfigurationError with all the file's mistakes."""
    document = Document.read(path, environ)
    pipeline = document.section(PipelineConfig, "pipeline")
    source = document.section(SourceConfig, "source", defaults={"slot": f"cdc_{pipeline.name if pipeline else ''}"})
    transport = document.section(TransportConfig, "transport")
    masking = document.section(MaskingConfig, "masking")
    events = _events(document)
    for event in events:
        has_hash_key = masking is None or masking.hash_key is not None  # else its own mistake is told
        in_embeds = embed_mistakes(event.embeds, has_hash_key=has_hash_key)
        for where, problem in (*mistakes_of(event, has_hash_key=has_hash_key), *in_embeds):
            document.refuse(("events", event.name, *where), problem)
    if pipeline is None or source is None or transport is None or masking is None or document.problems:
        raise ConfigurationError(document.problems)
    return ReaderConfig(pipeline, source, transport, tuple(events), masking)


def _event(document: Document, name: str) -> EventConfig | None:
    path = ("events", name)
    embeds = read_embeds(document, path)
    event = document.section(EventConfig, *path, given={"name": name, "embeds": embeds})
    if event is not None and event.previous and embeds:
        document.refuse(
            (*path, "previous"), "an event with embeds is read from its tables, where there is no old state"
        )
    for embed in embeds:
        if event is not None and embed.name in [event.rename.get(name, name) for name in event.columns]:
            document.refuse((*path, EMBED, embed.name), "the event has a column of this name: give the embed another")
    return event


def _events(document: Document) -> list[EventConfig]:
    names = document.table("events")
    if names is not None and not names:
        document.refuse(("events",), "missing: expected at least one section [events.NAME]")
    found = [_event(document, name) for name in names or ()]
    events = [event for event in found if event is not None]
    first: dict[str, EventConfig] = {}
    for event in events:
        if (other := first.setdefault(event.label, event)) is not event:
            document.refuse(
                ("events", event.name),
                f"{event.label} is also {key_path('events', other.name)}: give one of them another type or version",
            )
    return events
