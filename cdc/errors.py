"""What can go wrong at the source edge, and what the server's error codes mean for us.

Source of the codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from typing import Final

from transforms.address import is_untrusted
from transforms.errors import EXIT_UNREACHABLE, StatecastError

_REFUSED_AT_THE_DOOR: Final = re.compile(
    "authentication failed|no password supplied|pg_hba.conf|is not permitted to log in|permission denied to start WAL"
    '|permission denied for database|FATAL: +(?:role|database) ".*" does not exist'
)
"""What a server says to those it knows and does not let in. libpq passes on no SQLSTATE of a failed connection."""

_QUOTE: Final = "[\"'`\u00ab\u00bb\u2018-\u201f\u2039\u203a\u300c-\u300f]"
"""Of any language that a server may speak (lc_messages)."""
_VALUES: Final = re.compile(f"{_QUOTE}.*{_QUOTE}")
_FULL_TEXTS = ("max_wal_senders", "too many clients", "connection slots are reserved")
_FULL_REMEDY = "Raise max_wal_senders or max_connections at the source, restart it; or end clients that nobody needs."


class SourceError(StatecastError):
    """Something at the source database."""


class SourceUnreachable(SourceError):
    """The source does not answer, or closed the connection."""

    retryable = True
    exit_code = EXIT_UNREACHABLE
    remedy = "Start the source database or correct source.dsn; the reader goes on by itself once it answers."


class SourceBusy(SourceError):
    """The source refuses for now: shutting down, out of connections, a lock timeout."""

    retryable = True
    exit_code = EXIT_UNREACHABLE
    remedy = "Wait: the reader tries again by itself. If it lasts, look at the source's log."


class AccessDenied(SourceError):
    """The source knows us but refuses: password, role or privilege."""

    remedy = (
        "Correct the role's password (percent-encoded in a URL) or its privileges; `cdc check` prints the SQL that"
        " grants what is missing."
    )


class SourceNotTrusted(SourceError):
    """The source showed no certificate, or one that cannot be trusted."""

    remedy = (
        "Let the source show a certificate for the host's name, name its authority in source.dsn (sslrootcert=FILE),"
        " or set allow_plaintext = true in [source]."
    )


class NotThePrimary(SourceError):
    """The source is a standby: no mark can be written there. After a failover that passes."""

    retryable = True
    exit_code = EXIT_UNREACHABLE
    remedy = "Name the primary in source.dsn."


class PreconditionFailed(StatecastError):
    """Something that `cdc check` tests is not as it must be."""

    remedy = "Run `cdc check`: it prints what mends it."


class SourceRefused(SourceError):
    """The source refused a statement for a reason that will not pass by itself."""

    remedy = "Read the server's message; `cdc check` tests every precondition and prints what mends it."


class ValueRefused(SourceRefused):
    """A value does not fit the type that it is read as."""


class TransportError(StatecastError):
    """Something at Redis."""


class TransportUnreachable(TransportError):
    """Redis does not answer, is loading, or is read-only for now."""

    retryable = True
    exit_code = EXIT_UNREACHABLE
    remedy = (
        "Start Redis or correct transport.url (rediss:// only where Redis speaks TLS);"
        " work goes on by itself once it answers."
    )


class TransportFull(TransportError):
    """Redis is out of memory: nothing is published and nothing is confirmed, so the slot keeps all changes."""

    retryable = True
    remedy = "Give Redis more memory (`CONFIG SET maxmemory ...`); `cdc status` says who has not read what."


class TransportNotTrusted(TransportError):
    """Redis showed no certificate, or one that cannot be trusted."""

    remedy = (
        "Let Redis show a certificate for the host's name, name its authority in transport.url (?ssl_ca_certs=FILE),"
        " or set allow_plaintext = true in [transport]."
    )


class TransportRefused(TransportError):
    """Redis refuses a command for a reason that will not pass by itself."""

    remedy = (
        "Correct transport.url (redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST for the default user) or the ACL"
        " of its user, then start again."
    )


_POLICY_REMEDY = (
    "Have a superuser run `ALTER ROLE ... BYPASSRLS` for the reader's role: a policy would leave rows out of snapshots."
)


def source_error(sqlstate: str | None, message: str) -> SourceError:
    """The error for what a server or libpq said. Without a SQLSTATE the connection itself failed."""
    text = " ".join(message.split())
    if sqlstate is None or sqlstate.startswith("08"):
        if _REFUSED_AT_THE_DOOR.search(text):
            return AccessDenied(text)
        if any(part in text for part in _FULL_TEXTS):
            return SourceBusy(text, remedy=_FULL_REMEDY)
        return SourceNotTrusted(text) if is_untrusted(text) else SourceUnreachable(text)
    if sqlstate[:2] in ("53", "57", "40", "58") or sqlstate in ("55P03", "55006", "25P03", "25P04", "42710"):
        return SourceBusy(text)
    if sqlstate[:2] == "28" or sqlstate in ("42501", "3D000"):
        return AccessDenied(text, remedy=_POLICY_REMEDY) if "row-level security" in text else AccessDenied(text)
    if sqlstate[:2] == "22":  # what stands in quotes is the value, mostly
        return ValueRefused(f"{_VALUES.sub('...', text)} (SQLSTATE {sqlstate})")
    return SourceRefused(f"{text} (SQLSTATE {sqlstate})")
