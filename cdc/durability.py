"""How it is found out that Redis keeps what it was given, as `transport.durability` asks. Pure decisions.

    setting      the server                     what is asked for              what is confirmed
    memory       any                            nothing                        `confirm_delay_seconds` later
    fsync        Redis 7.2, any Valkey          WAITAOF                        at once
    fsync        Redis 7.0, appendfsync always  nothing: it replies after it   at once
    fsync        Redis 7.0, everysec            nothing: it cannot be asked    FSYNC_SECONDS later
    replicas:N   any                            WAIT                           at once

Sources: https://redis.io/docs/latest/commands/waitaof/ and /commands/wait/, and for the interval
https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc.transport import ServerFacts
from transforms.config import TransportConfig

FSYNC_SECONDS = 3.0
"""`appendfsync everysec` has what it was told on disk by then: it begins an fsync each second, and puts a write off for
up to two while one is under way."""
ANSWER_SECONDS = 2.0
"""How long Redis is given for what it is asked; then it is told that it did not, and asked again."""


@dataclass(frozen=True, slots=True)
class Assurance:
    """What must be so before a position is confirmed to the source."""

    delay_seconds: float
    """It was stored so long ago,"""
    question: tuple[str, ...] | None = None
    """and Redis has said yes to this command, sent behind a write of the same connection; None: it is not asked."""
    copies: int = 0
    """To how many the first number of its answer must come."""
    shortfall: str = ""
    """What is to be said where it does not; `{}` stands for that number."""
    remedy: str = ""


def assurance_of(config: TransportConfig, facts: ServerFacts) -> Assurance:
    """What this server can be asked for what is configured."""
    durability, milliseconds = config.durability, str(int(ANSWER_SECONDS * 1000))
    if durability.kind == "replicas":
        return Assurance(
            0.0,
            ("WAIT", str(durability.replicas), milliseconds),
            durability.replicas,
            f"{{}} of the {durability.replicas} replicas that transport.durability asks for had what was published"
            f" within {ANSWER_SECONDS:g} s",
            "Start Redis' replicas, or look at what holds them up (`INFO replication`); until then the slot keeps the"
            " log.",
        )
    if durability.kind == "memory":
        return Assurance(config.confirm_delay_seconds)
    if facts.can_wait_for_fsync:
        return Assurance(
            0.0,
            ("WAITAOF", "1", "0", milliseconds),
            1,
            f"Redis did not have what was published on disk within {ANSWER_SECONDS:g} s",
            "Look at its disk, and see that `CONFIG GET appendfsync` says everysec or always; until then the slot keeps"
            " the log.",
        )
    return Assurance(0.0 if facts.append_fsync == "always" else max(config.confirm_delay_seconds, FSYNC_SECONDS))
