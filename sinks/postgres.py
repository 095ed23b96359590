"""The replica's database: one connection, statements, transactions, and psycopg's exceptions turned into ours.

Session settings on which the reading of values depends are set by SET LOCAL in every transaction and not by the
connection's `options`: transaction poolers refuse or forget those. For the same reason nothing is prepared, and no
statement runs outside of a transaction.
"""

from __future__ import annotations

import contextlib
import re
import select
import ssl
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, LiteralString, cast

import psycopg
from psycopg import adapt, pq, sql
from psycopg.conninfo import conninfo_to_dict

from sinks.errors import (
    DataRefused,
    Refusal,
    SinkError,
    TargetReadOnly,
    TargetRefused,
    TargetUnreachable,
    target_error,
)
from transforms.address import Address, postgres_mistake
from transforms.config import ConfigurationError
from transforms.failpoints import Failpoint, fail, is_due
from transforms.names import TableName

CONNECT_TIMEOUT_SECONDS = 4
"""Of one attempt: a worker that is told to end must not wait longer."""

SETTINGS = {
    "search_path": "pg_catalog",
    "datestyle": "ISO",
    "intervalstyle": "iso_8601",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "lc_monetary": "C",
    "xmloption": "content",
    "row_security": "off",  # a policy stops the worker instead of hiding rows from it
    "statement_timeout": "0",  # a batch that never fits the role's default would be tried for ever
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}
MERGED_BYTES = 16 * 1024
"""Up to this size JSON goes along in the text of a transaction's first statement, which saves a round trip."""
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;" + ";".join(
    f" SET LOCAL {name} = '{value}'" for name, value in SETTINGS.items()
)
_VALUE_REFUSED = re.compile(
    r'invalid (\w+) value: "|invalid integer value ".*" for connection option "(\w+)"', re.DOTALL
)
_JSON_OID = 114

Part = sql.Composable
"""A piece of SQL, safe to put into a statement."""

Statement = bytes
"""Rendered SQL with `%s` for each parameter; a percent sign of a name is doubled."""


class JsonText(bytes):
    """JSON text that goes to the server as it is."""


class JsonTextDumper(adapt.Dumper):
    """Binary, for its length prefix: in text format a NUL byte would cut the parameter off in silence."""

    oid = _JSON_OID
    format = pq.Format.BINARY

    def dump(self, obj: JsonText) -> bytes:
        return obj


def identifier(name: str | TableName) -> Part:
    """A column's or table's name, quoted."""
    return sql.Identifier(name.schema, name.name) if isinstance(name, TableName) else sql.Identifier(name)


def verbatim(text: str) -> Part:
    """SQL that the target's own catalog wrote, such as the name of a type."""
    return sql.SQL(text)


def literal(value: str) -> Part:
    """A value, quoted."""
    return sql.Literal(value)


def compose(template: LiteralString, *arguments: Part, **parts: Part) -> Statement:
    """Put parts in the place of `{}` and `{name}` in a statement."""
    return sql.SQL(template).format(*map(_escaped, arguments), **{k: _escaped(p) for k, p in parts.items()}).as_bytes()


def part(template: LiteralString, *arguments: Part, **parts: Part) -> Part:
    """Put parts in the place of `{}` and `{name}` in a piece of a statement."""
    return sql.SQL(template).format(*arguments, **parts)


def listed(parts: Iterator[Part] | Sequence[Part], separator: LiteralString = ", ") -> Part:
    """Parts with commas between them."""
    return sql.SQL(separator).join(parts)


def readable(statement: Statement) -> str:
    """A statement as a person may run it."""
    return statement.decode().replace("%%", "%")


def runnable(statement: Statement) -> str:
    """A statement as a person may run it among others: with a semicolon, on a line of its own where that is safer."""
    text = readable(statement)
    return f"{text if '--' in text else text.rstrip()};"


def _escaped(composable: Part) -> Part:
    return verbatim(composable.as_bytes().decode().replace("%", "%%"))


class Database:
    """One connection to the replica's database; all methods but `cancel` are for one thread."""

    def __init__(self, address: Address, application_name: str) -> None:
        self._address = address
        self._application_name = application_name
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._opening = ""
        """What begins the transaction in hand, as long as it has not been sent."""
        self._open = False

    def connect(self) -> None:
        """Connect, unless it is connected. Raises SinkError, ConfigurationError, NotEncrypted, SecretUnreadable."""
        if self._connection is not None and not self._connection.closed:
            return
        self._connection = None
        dsn = self._address.reveal()
        try:
            given = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
        except psycopg.Error:  # its text would quote the DSN
            raise self._mistaken(
                "neither a libpq URI nor a keyword string, or with an option unknown to libpq"
            ) from None
        if (mistake := postgres_mistake(given)) is not None:
            raise self._mistaken(mistake)
        environment = {each.keyword.decode(): each.val.decode() for each in pq.Conninfo.get_defaults() if each.val}
        tls = self._address.postgres_tls(environment | given, ssl.get_default_verify_paths().cafile or "system")
        defaults = {
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
        added = {name: value for name, value in defaults.items() if name not in given} | tls
        with translated_errors():
            try:
                connection = psycopg.connect(
                    dsn,
                    autocommit=True,
                    prepare_threshold=None,
                    application_name=self._application_name,
                    client_encoding="UTF8",
                    **cast(Any, added),
                )
            except psycopg.OperationalError as error:
                if (option := _VALUE_REFUSED.search(str(error))) is not None:
                    raise self._mistaken(f"{option[1] or option[2]} has a value that libpq does not know") from None
                raise
        if connection.info.parameter_status("in_hot_standby") == "on":
            connection.close()
            raise TargetReadOnly("the database is a standby, which takes no writes")
        connection.adapters.register_dumper(JsonText, JsonTextDumper)
        self._connection = connection

    def _mistaken(self, what: str) -> ConfigurationError:
        return ConfigurationError([f"{self._address.section}.dsn: {what}"])

    @property
    def backend_pid(self) -> int:
        """The server process' id, as libpq was told it."""
        assert self._connection is not None
        return self._connection.info.backend_pid

    def close(self) -> None:
        """Give the connection back. An open transaction is rolled back by the server."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def cancel(self) -> None:
        """Have the server end the statement that runs now. For another thread."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.cancel_safe(timeout=2)

    @contextlib.contextmanager
    def transaction(self, *, check_at_once: bool = False) -> Iterator[None]:
        """A READ COMMITTED transaction with our settings; an exception rolls it back.

        It begins together with its first statement, which saves a round trip. `check_at_once`: deferred constraints are
        checked by each statement, so that a row can be blamed.
        """
        self._opening = _BEGIN + ("; SET CONSTRAINTS ALL IMMEDIATE" if check_at_once else "")
        self._open = True
        try:
            yield
            if self._open:
                self._commit(b"COMMIT")
        except BaseException:
            self._opening = ""
            self._rollback()
            raise
        finally:
            self._opening, self._open = "", False

    def begin_with(self, statement: Statement, parameters: Sequence[str | int | None]) -> None:
        """Have the transaction that is still to begin begin with a statement, whose rows nobody asks for."""
        self._opening += f"; {self._merged(statement, parameters).decode()}"

    def commit_with(self, statement: Statement, parameters: Sequence[str | int | None]) -> None:
        """Run the transaction's last statement and COMMIT in one round trip. Raises SinkError: neither was done."""
        statements = self._take_opening() + self._merged(statement, parameters)
        if is_due(Failpoint.CHECKPOINT_UPDATED):  # what goes in one is taken apart, to fail between the two
            self._run(statements, None)
            fail(Failpoint.CHECKPOINT_UPDATED)
            statements = b"SELECT"
        statements += b"; COMMIT"
        if is_due(Failpoint.COMMIT_SENT):
            self._send_unheard(statements)
        self._commit(statements)

    def script(self, statements: Statement) -> None:
        """Run statements without parameters, separated by semicolons, in the transaction in hand."""
        self._run(statements, None)

    def execute(self, statement: Statement, parameters: Sequence[object] = ()) -> int:
        """Run a statement in the transaction in hand; returns how many rows it concerned."""
        return self._run(statement, parameters).rowcount

    def rows(self, statement: Statement, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a query in the transaction in hand."""
        cursor = self._run(statement, parameters)
        with translated_errors():
            return cursor.fetchall()

    def copy(self, statement: Statement, pieces: Iterable[bytes]) -> None:
        """Run `COPY ... FROM STDIN` in the transaction in hand, with pieces of its text."""
        if self._connection is None:
            raise TargetUnreachable("there is no connection to the replica's database")
        if self._opening:
            self._run(self._take_opening(), None)
        # without parameters psycopg takes a doubled percent sign for two
        with (
            translated_errors(),
            self._connection.cursor() as cursor,
            cursor.copy(cast(Any, readable(statement))) as copy,
        ):
            for piece in pieces:
                copy.write(piece)

    def row(self, statement: Statement, parameters: Sequence[object] = ()) -> tuple[Any, ...]:
        """Run a query that returns one row."""
        return self.rows(statement, parameters)[0]

    def _run(self, statement: Statement, parameters: Sequence[object] | None) -> psycopg.Cursor[tuple[Any, ...]]:
        if self._connection is None:
            raise TargetUnreachable("there is no connection to the replica's database")
        if self._opening:
            if parameters and (texts := _as_text(parameters)) is not None:
                statement, parameters = self._take_opening() + self._merged(statement, texts), None
            else:
                self._run(self._take_opening(), None)
        with translated_errors():
            cursor = self._connection.execute(statement, parameters)
            while cursor.nextset():
                continue
        return cursor

    def _take_opening(self) -> bytes:
        """What begins the transaction that is still to begin, for other statements to follow; empty: it has begun."""
        opening, self._opening = self._opening, ""
        return f"{opening}; ".encode() if opening else b""

    def _merged(self, statement: Statement, parameters: Sequence[str | int | None]) -> bytes:
        """A statement with its parameters in it: only a text without parameters may hold several statements.

        What `psycopg.ClientCursor` does takes a fifth of all that a sink does for a batch of a few rows.
        """
        assert self._connection is not None
        escaping = pq.Escaping(self._connection.pgconn)
        with translated_errors():
            return statement % tuple([_literal(escaping, value) for value in parameters])

    def _commit(self, statements: bytes) -> None:
        if self._run(statements, None).statusmessage != "COMMIT":  # without an error, when the transaction had failed
            raise TargetRefused("the transaction was rolled back by the server")
        self._open = False

    def _send_unheard(self, statements: Statement) -> None:
        """Send what ends with COMMIT, and fail. Raises TargetUnreachable where that is survived."""
        assert self._connection is not None
        pgconn = self._connection.pgconn
        with translated_errors():
            pgconn.send_query(statements)
            while pgconn.flush():
                select.select([], [pgconn.socket], [])
        fail(Failpoint.COMMIT_SENT)
        raise TargetUnreachable("the answer to COMMIT was not heard")

    def _rollback(self) -> None:
        try:
            self._run(b"ROLLBACK", None)
        except SinkError:
            self.close()


def _literal(escaping: pq.abc.Escaping, value: str | int | None) -> bytes:
    """A value as SQL. Raises psycopg.DataError for a text that libpq would cut off in silence, as a parameter would."""
    if value is None:
        return b"NULL"
    if isinstance(value, int):
        return b"%d" % value
    text = value.encode()
    if 0 in text:
        raise psycopg.DataError("a text with a NUL byte")
    return bytes(escaping.escape_literal(text))


def _as_text(parameters: Sequence[object]) -> list[str | int | None] | None:
    """Parameters that may become part of a statement's text; None: some may not."""
    texts: list[str | int | None] = []
    for value in parameters:
        if isinstance(value, JsonText) and len(value) <= MERGED_BYTES and value.find(0) < 0:
            try:
                texts.append(value.decode())
            except UnicodeDecodeError:
                return None
        elif isinstance(value, str | int | None):
            texts.append(value)
        else:
            return None
    return texts


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn psycopg's exceptions into ours."""
    try:
        yield
    except psycopg.Error as error:
        translated = _translated(error)
        # A data error's text quotes the row, and whoever prints the chain would print that.
        raise translated from (None if isinstance(translated, DataRefused) else error)


def _translated(error: psycopg.Error) -> SinkError:
    if error.sqlstate is None and isinstance(error, psycopg.DataError):  # psycopg's own: a NUL in a text
        return DataRefused(Refusal("22021", type(error).__name__))
    if error.sqlstate is None and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return TargetRefused(f"psycopg refused a statement: {type(error).__name__}")
    diagnostic, name = error.diag, type(error).__name__
    message = diagnostic.message_primary or str(error)
    where = (diagnostic.table_name, diagnostic.column_name, diagnostic.constraint_name)
    context = diagnostic.context or ""  # in the server's language: PL/pgSQL-Funktion
    refusal = Refusal(error.sqlstate or "", name, *where, in_function="PL/" in context or "function" in context)
    return target_error(error.sqlstate, message, refusal)
