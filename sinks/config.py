"""What `cdc-sink` reads from the configuration file: the pipeline's name, the transport and one sink.

The source, the events and the other sinks are left alone: a consuming service has neither their secrets nor,
perhaps, their sections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from transforms.address import Address
from transforms.config import ConfigurationError, Document, PipelineConfig, Section, TransportConfig, key_path, kind_of
from transforms.names import EVENT_LABEL, RESERVED_NAMES, SINK_NAME, TableName, event_label
from transforms.secret import Secret

MAX_PARKED_IN_A_ROW = 100
"""Single bad rows are fewer; of a table that does not fit, a person hears before a large part of it is parked."""


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """All that one sink worker is told. `tables` maps event labels (`customer.v1`) to replica tables."""

    pipeline: PipelineConfig
    transport: TransportConfig
    name: str
    address: Address
    tables: Mapping[str, TableName]
    adopt: bool = False
    max_parked_in_a_row: int = MAX_PARKED_IN_A_ROW
    """How many events in a row may be refused and parked before the worker stops."""


class _SinkSection(Section):
    name: str = Field(pattern=f"^{SINK_NAME.pattern}$", description=f"a name that matches {SINK_NAME.pattern}")
    type: Literal["postgres"] = Field(description='"postgres"')
    dsn: Secret = Field(description="a libpq URI or keyword string")
    adopt: bool = Field(default=False, description="true or false")
    max_parked_in_a_row: int = Field(
        default=MAX_PARKED_IN_A_ROW, ge=0, description="a whole number of events, from 0 on"
    )
    allow_plaintext: bool = Field(default=False, description="true or false")
    tables: Any = None  # read line by line below


def load_sink_config(path: Path, environ: Mapping[str, str], name: str) -> SinkConfig:
    """Read what the sink `name` needs from the file at `path`. Raises ConfigurationError with all mistakes."""
    document = Document.read(path, environ)
    pipeline = document.section(PipelineConfig, "pipeline")
    transport = document.section(TransportConfig, "transport")
    sinks = document.table("sinks")
    if sinks is None or name not in sinks:
        there = f"the file has {', '.join(map(key_path, sinks))}" if sinks else "the file has no section [sinks.NAME]"
        document.refuse(("sinks", name), f"no such sink ({there})")
        raise ConfigurationError(document.problems)
    sink = document.section(_SinkSection, "sinks", name, given={"name": name})
    tables = _tables(document, ("sinks", name, "tables"))
    if pipeline is None or transport is None or sink is None or document.problems:
        raise ConfigurationError(document.problems)
    address = Address(key_path("sinks", name), sink.dsn, sink.allow_plaintext)
    return SinkConfig(
        pipeline, transport, name, address, MappingProxyType(tables), sink.adopt, sink.max_parked_in_a_row
    )


def _tables(document: Document, path: tuple[str, ...]) -> dict[str, TableName]:
    tables: dict[str, TableName] = {}
    written: dict[str | TableName, str] = {}  # a label or a table -> the key that took it first
    lines = document.table(*path)
    if lines is not None and not lines:
        document.refuse(path, 'missing: expected at least one line like customer = "replica.customers"')
    for keys, value in _lines(lines or {}):
        where = (*path, *keys)
        label = EVENT_LABEL.fullmatch(".".join(keys))
        if label is None:
            document.refuse(where, "expected an event type, like customer, or one version of it, like customer.v2")
            continue
        if label["type"] in RESERVED_NAMES:
            document.refuse(where, f"expected an event type, which is not {', '.join(sorted(RESERVED_NAMES))}")
            continue
        if not isinstance(value, str):
            document.refuse(where, f"expected a table's name as SQL writes it, got {kind_of(value)}")
            continue
        try:
            table = TableName.parse(value)
        except ValueError as error:
            document.refuse(where, str(error))
            continue
        event = event_label(label["type"], int(label["version"] or 1))
        for taken, what in ((event, "event"), (table, "table")):
            if (other := written.setdefault(taken, key_path(*where))) != key_path(*where):
                document.refuse(where, f"the same {what} as {other}")
        tables[event] = table
    return tables


def _lines(table: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    """The lines of the section. `customer.v2 = ...` without quotes is a table in a table to TOML."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from (((key, version), inner) for version, inner in value.items())
        else:
            yield (key,), value
