"""`cdc schema`: what events hold, for those who consume them.

It tells what is published, as Redis has it; so a consuming team needs no more than `[pipeline]` and `[transport]`. Of
events that are configured and were never published it tells what the first start of the reader would publish.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cdc.config import EventConfig, ReaderConfig, load_reader_config
from cdc.control import Control
from cdc.mapping import Shapes
from cdc.source.connection import Source
from cdc.source.tables import describe_tables
from cdc.transport import connect
from transforms.config import NAMED_WRONG, ConfigurationError, Document, PipelineConfig, TransportConfig
from transforms.errors import StatecastError
from transforms.json_schema import DIALECT
from transforms.keys import Keys
from transforms.model_source import models
from transforms.schema import SchemaDocument


class NothingPublished(StatecastError):
    """There is no event to tell of."""

    remedy = "Correct pipeline.name and transport.url; or have the pipeline's reader started once with `cdc run`."


@dataclass(frozen=True, slots=True)
class ConsumerConfig:
    """What a consuming team's file tells."""

    pipeline: PipelineConfig
    transport: TransportConfig
    events: tuple[EventConfig, ...] = ()


SchemaConfig = ReaderConfig | ConsumerConfig


def load_schema_config(path: Path, environ: Mapping[str, str]) -> SchemaConfig:
    """Read the file at `path`, which may leave out both source and events. Raises ConfigurationError."""
    document = Document.read(path, environ)
    if {"source", "events"} & document.content.keys():
        return load_reader_config(path, environ)
    pipeline = document.section(PipelineConfig, "pipeline")
    transport = document.section(TransportConfig, "transport")
    if pipeline is None or transport is None or document.problems:
        raise ConfigurationError(document.problems)
    return ConsumerConfig(pipeline, transport)


def find_documents(config: SchemaConfig, names: Sequence[str], *, planned: bool) -> list[SchemaDocument]:
    """The documents of events by name, label or type; of all without names. `planned`: as if nothing were published.

    Raises ConfigurationError for an unknown name, NothingPublished, TableUnfit and its kinds.
    """
    published = {} if planned else _published(config)
    configured = {event.label: event for event in config.events}
    labels = _chosen(configured, published, names)
    if not labels:
        raise NothingPublished(f"pipeline {config.pipeline.name} has published no event")
    fresh = [configured[label] for label in labels if label not in published]
    found = {**published, **_unpublished(config, fresh)}
    return [found[label] for label in labels]


def _published(config: SchemaConfig) -> dict[str, SchemaDocument]:
    with connect(config.transport.address) as client:
        stored = Control(client, Keys(config.pipeline.name)).schemas()
    by_age = sorted(stored.values(), key=lambda document: (document.type, document.version))
    return {document.label: document for document in by_age}


def _chosen(
    configured: Mapping[str, EventConfig], published: Mapping[str, SchemaDocument], names: Sequence[str]
) -> list[str]:
    if not names:
        return list(configured or published)
    answers_to = {label: {label, document.type} for label, document in published.items()}
    for label, event in configured.items():
        answers_to.setdefault(label, set()).update({event.name, label, event.type})
    chosen: list[str] = []
    for name in names:
        labels = [label for label, called in answers_to.items() if name in called]
        if not labels:
            known = ", ".join(configured or published) or "none"
            raise ConfigurationError([f"there is no event {name} (there are: {known})"], remedy=NAMED_WRONG)
        chosen += labels
    return list(dict.fromkeys(chosen))


def _unpublished(config: SchemaConfig, events: Sequence[EventConfig]) -> dict[str, SchemaDocument]:
    """The documents that the first start of the reader would publish."""
    if not events:
        return {}
    assert isinstance(config, ReaderConfig)
    shapes = Shapes(events, {}, config.masking.masks)
    with closing(Source(config.source.address, f"{config.application_name}_schema")) as source:
        shapes.compare(describe_tables(source, shapes.tables), {}, snapshot=False)
    return {shape.document.label: shape.document for shape in shapes.values()}


def written(config: SchemaConfig, documents: Sequence[SchemaDocument], format_: str) -> str:
    """The documents as `jsonschema` (one alone, or several under `$defs`) or as a module in `python`."""
    if format_ == "python":
        return models(config.pipeline.name, documents)
    schemas = {document.label: document.json_schema() for document in documents}
    [schema] = schemas.values() if len(schemas) == 1 else [{"$schema": DIALECT, "$defs": schemas}]
    return json.dumps(schema, ensure_ascii=False, indent=2) + "\n"
