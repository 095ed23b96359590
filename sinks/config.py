"""What `cdc-sink` reads from the configuration file: the pipeline's name, the transport and one sink.

The source, the events and the other sinks are left alone: a consuming service has neither their secrets nor,
perhaps, their sections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from sinks.table_map import EmbedTables, read_table_map
from transforms.address import Address
from transforms.config import ConfigurationError, Document, PipelineConfig, Section, TransportConfig, key_path
from transforms.names import SINK_NAME, TableName
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
    embeds: Mapping[str, EmbedTables] = field(default_factory=dict)
    """By event label: its embeds that have a table of their own. Others are columns."""


class _SinkSection(Section):
    name: str = Field(pattern=f"^{SINK_NAME.pattern}$", description=f"a name that matches {SINK_NAME.pattern}")
    type: Literal["postgres"] = Field(description='"postgres"')
    dsn: Secret = Field(description="a libpq URI or keyword string")
    adopt: bool = Field(default=False, description="true or false")
    max_parked_in_a_row: int = Field(
        default=MAX_PARKED_IN_A_ROW, ge=0, description="a whole number of events, from 0 on"
    )
    allow_plaintext: bool = Field(default=False, description="true or false")
    tables: Any = None  # read line by line in sinks/table_map.py


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
    mapped = read_table_map(document, "sinks", name, "tables")
    if pipeline is None or transport is None or sink is None or document.problems:
        raise ConfigurationError(document.problems)
    address = Address(key_path("sinks", name), sink.dsn, sink.allow_plaintext)
    tables, embeds = MappingProxyType(mapped.tables), MappingProxyType(mapped.embeds)
    return SinkConfig(pipeline, transport, name, address, tables, sink.adopt, sink.max_parked_in_a_row, embeds)
