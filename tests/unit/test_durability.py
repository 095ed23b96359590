"""What Redis is asked before a position is confirmed, and what is said of what each setting can lose."""

from __future__ import annotations

import pytest

from cdc.check.durability import durability_findings
from cdc.durability import FSYNC_SECONDS, assurance_of
from cdc.transport import ServerFacts
from transforms.config import TransportConfig
from transforms.durability import Durability
from transforms.secret import Secret


def facts(
    product: str = "Redis",
    version: str = "7.2.0",
    append_only: bool | None = True,
    append_fsync: str | None = None,
    replicas: int = 0,
) -> ServerFacts:
    return ServerFacts(product, version, "noeviction", append_only, "master", 0, 0, replicas, append_fsync)


def config(durability: str, delay_seconds: float = 2.0) -> TransportConfig:
    return TransportConfig(
        url=Secret("redis://"), durability=Durability.parse(durability), confirm_delay_seconds=delay_seconds
    )


OLD = "7.0.15"


@pytest.mark.parametrize(
    ("durability", "server", "question", "delay_seconds"),
    [
        ("memory", facts(), None, 2.0),
        ("fsync", facts(), ("WAITAOF", "1", "0"), 0.0),
        ("fsync", facts(product="Valkey", version="7.2.4"), ("WAITAOF", "1", "0"), 0.0),
        ("fsync", facts(append_fsync="always"), ("WAITAOF", "1", "0"), 0.0),
        ("fsync", facts(version=OLD, append_fsync="always"), None, 0.0),
        ("fsync", facts(version=OLD, append_fsync="everysec"), None, FSYNC_SECONDS),
        ("fsync", facts(version=OLD), None, FSYNC_SECONDS),
        ("replicas:2", facts(version=OLD, replicas=2), ("WAIT", "2"), 0.0),
    ],
)
def test_what_a_server_is_asked_follows_from_what_it_can_say(
    durability: str, server: ServerFacts, question: tuple[str, ...] | None, delay_seconds: float
) -> None:
    assurance = assurance_of(config(durability), server)
    assert (assurance.question and assurance.question[:-1]) == question
    assert assurance.delay_seconds == delay_seconds


def test_a_confirm_delay_that_is_longer_than_an_fsync_takes_is_kept() -> None:
    old = facts(version=OLD, append_fsync="everysec")
    assert assurance_of(config("fsync", delay_seconds=60.0), old).delay_seconds == 60.0


@pytest.mark.parametrize(
    ("durability", "server", "verdicts", "words"),
    [
        ("memory", facts(append_only=False), ["warning"], "since its last dump"),
        ("memory", facts(), ["ok"], "may lose about the last second; the reader confirms to Postgres 2 s later"),
        ("fsync", facts(append_only=False), ["error"], "nothing is ever on disk"),
        ("fsync", facts(append_only=None), ["warning"], "does not tell whether it has an append-only file"),
        ("fsync", facts(), ["ok"], "says is on its disk (WAITAOF)"),
        ("fsync", facts(version=OLD, append_fsync="always"), ["ok"], "(appendfsync always)"),
        ("fsync", facts(version=OLD, append_fsync="everysec"), ["warning"], "confirms 3 s later"),
        ("fsync", facts(version=OLD), ["warning"], "nor does it tell its appendfsync"),
        ("fsync", facts(version=OLD, append_fsync="no"), ["error"], "nobody knows when something is on disk"),
        ("replicas:1", facts(replicas=2), ["ok"], "1 of 2 replicas have in memory too"),
        ("replicas:2", facts(replicas=1), ["warning"], "1 of the 2 that transport.durability asks for"),
        ("replicas:1", facts(replicas=1, append_only=False), ["ok", "warning"], "empties its replicas"),
    ],
)
def test_what_each_setting_can_lose_is_said_in_plain_words(
    durability: str, server: ServerFacts, verdicts: list[str], words: str
) -> None:
    findings = list(durability_findings(server, config(durability)))
    assert [finding.verdict for finding in findings] == verdicts
    assert words in " ".join(finding.what for finding in findings)
    assert all(finding.remedy for finding in findings if finding.verdict == "error")
