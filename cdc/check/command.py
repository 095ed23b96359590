"""The sessions of `cdc check`: one with the source, one with Redis."""

from __future__ import annotations

from contextlib import closing

from cdc.check.published import published_before
from cdc.check.redis_rights import rights_findings
from cdc.check.source import source_findings
from cdc.check.transport import transport_findings
from cdc.config import ReaderConfig
from cdc.source.connection import Source
from cdc.transport import connect, server_facts
from transforms.errors import EXIT_USAGE, StatecastError
from transforms.finding import Finding
from transforms.keys import Keys


def run_checks(config: ReaderConfig) -> list[Finding]:
    """Test everything that can be tested; what stands behind a failed connection is left out.

    Raises ConfigurationError and AddressMisread.
    """
    findings: list[Finding] = []
    try:
        with closing(Source(config.source.address, config.application_name + "_check")) as source:
            findings += source_findings(source, config, published_before(config))
    except StatecastError as error:
        findings.append(_failure("source", error))
    try:
        with connect(config.transport.address) as client:
            durability = config.transport.durability
            findings += rights_findings(client, Keys(config.pipeline.name), durability)
            findings += transport_findings(server_facts(client, durability), config.transport)
    except StatecastError as error:
        findings.append(_failure("transport", error))
    return findings


def _failure(thing: str, error: StatecastError) -> Finding:
    if error.exit_code == EXIT_USAGE:  # a mistake of the configuration, as if it had been found on reading it
        raise error
    return Finding("error", thing, str(error).removeprefix(f"{thing}: "), error.remedy)
