"""What `cdc check` says of the source: server, role, tables, publication, slot."""

from __future__ import annotations

from collections.abc import Iterator

from cdc.check.failover import failover_findings
from cdc.check.hooks import hook_findings
from cdc.check.publication import publication_findings, slot_finding
from cdc.check.published import Before
from cdc.check.tables import event_findings, grant_findings
from cdc.config import ReaderConfig
from cdc.event_mapping import EventMapping
from cdc.server.facts import ServerFacts, describe_server
from cdc.server.providers import SELF_HOSTED
from cdc.server.readiness import role_finding, room_findings, server_findings
from cdc.source.connection import Source
from cdc.source.publication import find_publication
from cdc.source.slot import find_slot
from transforms.finding import Finding


def source_findings(source: Source, config: ReaderConfig, before: Before) -> Iterator[Finding]:
    """All that can be said; `before`: what was published already. Raises SourceError."""
    facts = describe_server(source)
    publication, slot = find_publication(source, config.publication), find_slot(source, config.source.slot)
    yield _reached(facts)
    yield from server_findings(facts, config.application_name)
    yield from room_findings(facts, slot)
    yield role_finding(facts)
    mappings: list[EventMapping] = []
    yield from event_findings(source, config, mappings, before)
    yield from grant_findings(source, mappings, facts.role)
    yield from hook_findings(source, config, mappings)
    yield from publication_findings(source, config, mappings, publication, slot, facts)
    yield slot_finding(config, slot)
    yield from failover_findings(source, config, slot, facts)


def _reached(facts: ServerFacts) -> Finding:
    where = "" if facts.provider is SELF_HOSTED else f" at {facts.provider.name}"
    way = "over a Unix socket" if facts.by_socket else facts.tls or "not encrypted"
    return Finding("ok", "source", f"Postgres {facts.version // 10_000}{where} answers, {way}")
