"""What can go wrong at the sink edge, and what the target's error codes mean for us.

Source of the codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from transforms.address import is_untrusted
from transforms.errors import EXIT_UNREACHABLE, StatecastError


class SinkError(StatecastError):
    """Something at the sink edge."""


# --- the replica's database ------------------------------------------------------------------------------------------


class TargetUnreachable(SinkError):
    """The replica's database does not answer, or closed the connection."""

    retryable = True
    exit_code = EXIT_UNREACHABLE
    remedy = "Start the replica's database or correct the sink's dsn; the worker goes on by itself once it answers."


class TargetBusy(SinkError):
    """The replica's database refuses for now: shutting down, a lock that lasts, a full disk."""

    retryable = True
    exit_code = EXIT_UNREACHABLE
    remedy = "Wait: the worker tries again by itself. If it lasts, look at the server's log."


class TargetReadOnly(SinkError):
    """The replica's database takes no writes: a standby, perhaps until the address leads to the new primary."""

    retryable = True
    exit_code = EXIT_UNREACHABLE
    remedy = (
        "Name the primary in the sink's dsn (several hosts with target_session_attrs=primary lead to it); the worker"
        " goes on by itself once it is there."
    )


class TargetLocked(TargetBusy):
    """Somebody else holds a lock for longer than we wait."""


class AccessDenied(SinkError):
    """The replica's database knows us but refuses: password, role or privilege."""

    remedy = (
        "Correct the role's password or privileges; `cdc-sink check NAME` prints the SQL that grants what is missing."
    )


class TargetNotTrusted(SinkError):
    """The replica's database showed no certificate, or one that cannot be trusted."""

    remedy = (
        "Let the database show a certificate for the host's name, name its authority in the sink's dsn"
        " (sslrootcert=FILE), or set allow_plaintext = true in [sinks.NAME]."
    )


class TargetRefused(SinkError):
    """The replica's database refused a statement for a reason that will not pass by itself."""

    remedy = "Read the server's message; `cdc-sink check NAME` tests every precondition and prints what mends it."


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row was refused, without any of its values: the server's own message may quote them."""

    sqlstate: str
    error: str
    """The name of psycopg's exception, like `InvalidTextRepresentation`."""
    table: str | None = None
    column: str | None = None
    constraint: str | None = None
    in_function: bool = False
    """Whether it was raised inside of a function of the replica's database, such as a trigger's."""

    def __str__(self) -> str:
        where = [f"{kind} {name}" for kind in ("table", "column", "constraint") if (name := getattr(self, kind))]
        where += ["a trigger or function of the replica"] if self.in_function else []
        return f"{self.error} (SQLSTATE {self.sqlstate})" + (f" at {', '.join(where)}" if where else "")


class DataRefused(SinkError):
    """The replica's database refused what a row holds. The worker bisects to that row and parks it."""

    remedy = (
        "Look at the parked event with `cdc-sink dead NAME list`, mend its cause, then `cdc-sink dead NAME retry ID`."
    )

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"the target refused a row: {refusal}")
        self.refusal = refusal


class RefusedAtCommit(DataRefused):
    """A deferred constraint or trigger refused what a batch holds, and does not say which row it was."""

    remedy = (
        "Find the constraint or trigger of the replica table that is DEFERRABLE, and drop it or have it check each"
        " statement (NOT DEFERRABLE); then start the worker again: nothing was skipped."
    )

    def __init__(self, refusal: Refusal) -> None:
        SinkError.__init__(self, f"the target refused a batch at COMMIT: {refusal}")
        self.refusal = refusal


class TooManyParked(SinkError):
    """Row after row is refused: that is a table that does not fit, not single bad rows. The batch is rolled back."""

    remedy = (
        "Alter the replica table so that it takes these rows, then start the worker again: nothing was skipped. If they"
        " are to be parked all the same, raise max_parked_in_a_row in [sinks.NAME]."
    )


class TableMisfit(SinkError):
    """A replica table does not have the shape that its schema document asks for."""

    remedy = "Alter the replica table as `cdc-sink check NAME` prints it, then start the worker again."


class TableForeign(SinkError):
    """A replica table belongs to someone else, or may hold someone's rows. Nothing was written."""

    remedy = "Map the event to another table, or set `adopt = true` for the sink if the table may be taken over."


class CheckpointMoved(SinkError):
    """The checkpoint is not where this worker left it: another worker went on, or the target's database went back."""

    retryable = True
    remedy = "Nothing: the worker goes on from the checkpoint that is there."


class RebuildRefused(SinkError):
    """A replica table cannot be rebuilt as it is, or as the command asks for it. Nothing was changed."""

    remedy = "Mend what the message names, then ask for the rebuild again."


class RebuildFailed(SinkError):
    """A table that was to take a replica table's place cannot be filled; it is gone, and the replica is as it was."""

    remedy = "Mend the cause, then ask again: `cdc-sink rebuild NAME EVENT`."

    def __init__(self, message: str, event: str) -> None:
        super().__init__(message)
        self.event = event


class LiveTableRefuses(SinkError):
    """A replica table that is being rebuilt with other types does not take a row that has them."""

    remedy = "Nothing: the table stays as it is until the rebuilt one takes its place."

    def __init__(self, message: str, event: str) -> None:
        super().__init__(message)
        self.event = event


class RebuildMoved(SinkError):
    """A rebuild was asked for, called off, or has come to its end, and the worker looks at its tables again."""

    retryable = True
    remedy = "Nothing: the worker goes on by itself."


class TableReplaced(SinkError):
    """Another table has taken the name of a replica table, or the table was given to another sink."""

    retryable = True
    remedy = "Nothing: the worker asks for a snapshot that fills it, or says whose the table is."


# --- the streams -----------------------------------------------------------------------------------------------------


class TransportUnreachable(SinkError):
    """Redis does not answer, is loading, or refuses for now."""

    retryable = True
    exit_code = EXIT_UNREACHABLE
    remedy = (
        "Start Redis or correct transport.url (rediss:// only where Redis speaks TLS);"
        " the worker goes on by itself once it answers."
    )


class TransportFull(SinkError):
    """Redis is out of memory. Reading goes on, and what is read makes room."""

    retryable = True
    remedy = "Give Redis more memory (`CONFIG SET maxmemory ...`); `cdc status` says who has not read what."


class TransportNotTrusted(SinkError):
    """Redis showed no certificate, or one that cannot be trusted."""

    remedy = (
        "Let Redis show a certificate for the host's name, name its authority in transport.url (?ssl_ca_certs=FILE),"
        " or set allow_plaintext = true in [transport]."
    )


class TransportRefused(SinkError):
    """Redis refuses a command for a reason that will not pass by itself."""

    remedy = (
        "Correct transport.url (redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST for the default user) or the ACL"
        " of its user, then start the worker again."
    )


class KeyForeign(SinkError):
    """A key of the pipeline holds what statecast would never put there."""

    remedy = "Find out what else writes to this Redis, or give the pipeline another name."


class StreamHole(SinkError):
    """Entries behind the checkpoint were removed from a stream before this sink had applied them."""

    remedy = (
        "Delete the sink's row of that stream in cdc.checkpoint and start again: the sink asks for a snapshot itself."
    )


class StreamEmptied(SinkError):
    """The newest entries were removed from a stream that this sink has not read before: there is none to begin at."""

    retryable = True
    remedy = "Start the reader (`cdc run`): it publishes a snapshot for this sink, which then goes on by itself."

    def __init__(self, message: str, labels: Sequence[str]) -> None:
        super().__init__(message)
        self.labels = labels


class StreamBegunAgain(SinkError):
    """Entries that this sink would have needed are gone, and it begins the stream again with a snapshot."""

    retryable = True
    remedy = "Nothing: the worker asks for a snapshot, which brings what it missed."


class StreamTailLost(SinkError):
    """Redis lost the end of a stream, which this sink has applied already. The reader publishes it again."""

    retryable = True
    remedy = "Start the reader (`cdc run`), which publishes again what Redis lost; the worker goes on by itself."


class StreamsReplaced(SinkError):
    """The pipeline was made anew, or its epoch rose: the streams are other ones than those read so far."""

    retryable = True
    remedy = "Nothing: the worker starts the new streams from their beginning and asks for a snapshot."


class SchemaBehind(SinkError):
    """An entry names a revision that its event's schema document does not have (yet)."""

    retryable = True
    remedy = (
        "Start the reader (`cdc run`), which stores the schema document; the worker goes on by itself. If the reader"
        " runs, somebody else wrote that entry: remove it from the stream (`XDEL`)."
    )


class EventUnknown(SinkError):
    """A parked event is not there, or cannot be applied now."""

    remedy = "List the parked events with `cdc-sink dead NAME list`."


# --- codes -----------------------------------------------------------------------------------------------------------


class Fault(Enum):
    """What an SQLSTATE asks of the worker."""

    TRANSIENT = "retry for ever"
    DATA = "bisect and park"
    FATAL = "stop"


_TRANSIENT_CLASSES = frozenset({"08", "40", "53", "57", "58"})
_TRANSIENT_CODES = frozenset(
    {
        "25006",  # read-only: a primary that has become a standby, until the address leads to the new one
        "25P03",  # idle_in_transaction_session_timeout: we were suspended
        "25P04",  # transaction_timeout
        "55P03",  # lock_timeout
    }
)
_DATA_CLASSES = frozenset({"22", "23"})
_DATA_CODES = frozenset(
    {
        "21000",  # two keys of one batch that differ as text and not as values: one by one they are accepted
        "42804",  # a value of another type than the column
        "54000",  # a key too long for its index
        "54001",  # JSON nested deeper than the server's stack
    }
)
_RAISED_CLASS = "P0"
"""What a function of the replica raises. While rows are written that is a trigger's word on one of them."""
_ACCESS_CODES = frozenset({"42501", "3D000"})
_LOGIN_REFUSALS = (
    (
        "password authentication failed",
        "Correct the password in the sink's dsn, or the role's (ALTER ROLE ... PASSWORD).",
    ),
    ("no password supplied", "Put the role's password into the sink's dsn."),
    ("authentication failed", "Correct the user in the sink's dsn, or let the server's pg_hba.conf know it."),
    ("pg_hba.conf", "Let the server's pg_hba.conf admit this role from this host, or correct the sink's dsn."),
    ("does not exist", "Create it on the server, or correct the sink's dsn."),
    ("not permitted to log in", "Run this on the server as an administrator: ALTER ROLE ... LOGIN;"),
    ("permission denied for database", "Run this on the server as its owner: GRANT CONNECT ON DATABASE ... TO ...;"),
)
"""Part of libpq's text, which has no code for a refused login, and what to do then."""
_READ_ONLY_CODE = "25006"
_LOCK_CODE = "55P03"


def sort_sqlstate(sqlstate: str | None) -> Fault:
    """Sort an error by its code. No code: the connection itself failed."""
    if sqlstate is None or sqlstate[:2] in _TRANSIENT_CLASSES or sqlstate in _TRANSIENT_CODES:
        return Fault.TRANSIENT
    if sqlstate[:2] in _DATA_CLASSES or sqlstate in _DATA_CODES:
        return Fault.DATA
    return Fault.FATAL


def target_error(sqlstate: str | None, message: str, refusal: Refusal | None = None) -> SinkError:
    """The error for what the server or libpq said. A message that may hold a row's values is left out."""
    fault = sort_sqlstate(sqlstate)
    if fault is Fault.DATA or (sqlstate or "").startswith(_RAISED_CLASS):
        return DataRefused(refusal or Refusal(sqlstate or "", "DataError"))
    text = " ".join(message.split())
    if sqlstate is None or sqlstate.startswith("08"):
        text = text.removeprefix("connection failed: ").removeprefix("connection is bad: ")  # psycopg's
        if is_untrusted(text):
            return TargetNotTrusted(text)
        for part, remedy in _LOGIN_REFUSALS:
            if part in text:
                return AccessDenied(text, remedy=remedy)
        return TargetUnreachable(text)
    if sqlstate == _READ_ONLY_CODE or "during recovery" in text:  # said of BEGIN READ WRITE, by a standby
        return TargetReadOnly(text)
    if sqlstate == _LOCK_CODE:
        return TargetLocked(f"{text} (SQLSTATE {sqlstate})")
    if fault is Fault.TRANSIENT:
        return TargetBusy(f"{text} (SQLSTATE {sqlstate})")
    if sqlstate[:2] == "28" or sqlstate in _ACCESS_CODES:
        return AccessDenied(text)
    return TargetRefused(f"{text} (SQLSTATE {sqlstate})")
