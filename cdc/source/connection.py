"""A connection to the source: how it is made, what its session is set to, how its errors are told."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.errors import source_error
from transforms.address import Address, postgres_mistake
from transforms.config import ConfigurationError

SETTINGS = {
    "datestyle": "ISO",
    "intervalstyle": "iso_8601",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "standard_conforming_strings": "on",
    "search_path": "pg_catalog",
    "row_security": "off",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
}
"""Settings that the text form of values depends on, the same on every connection to the source."""


def session_conninfo(address: Address, application_name: str) -> str:
    """The conninfo of a connection to the source, with the session settings pinned.

    Raises ConfigurationError, NotEncrypted, AddressMisread, SecretUnreadable.
    """
    dsn = address.reveal()
    parameters = _parameters(dsn)
    return make_conninfo(
        dsn,
        application_name=application_name,
        client_encoding="UTF8",
        options=" ".join(f"-c {name}={value}" for name, value in SETTINGS.items()),
        connect_timeout=10,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
        **address.postgres_tls(parameters, ssl.get_default_verify_paths().cafile or "system"),
    )


def _parameters(dsn: str) -> dict[str, str]:
    """What libpq will use: the DSN's parameters, else those of its environment variables, else its defaults."""
    defaults = {default.keyword.decode(): default.val for default in pq.Conninfo.get_defaults()}
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:  # its message repeats parts of the DSN
        raise ConfigurationError(
            ["source.dsn: neither a libpq URI (user and password percent-encoded) nor a keyword string"]
        ) from None
    found = {name: value.decode() for name, value in defaults.items() if value}
    found |= {name: str(value) for name, value in given.items() if value is not None}
    if (mistake := postgres_mistake(found)) is not None:
        raise ConfigurationError([f"source.dsn: {mistake}"])
    return found


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn psycopg's exceptions into ours."""
    try:
        yield
    except psycopg.Error as error:
        raise source_error(error.sqlstate, _said(error)) from error


def _said(error: psycopg.Error) -> str:
    """What a server said, without the part of the statement that it repeats, which may hold values."""
    diag = error.diag
    if diag.message_primary is None:
        return str(error)
    others = (("DETAIL", diag.message_detail), ("HINT", diag.message_hint))
    return "\n".join([diag.message_primary, *(f"{name}: {text}" for name, text in others if text)])


class Source:
    """One SQL session with the source. Not for use from two threads at once."""

    def __init__(self, address: Address, application_name: str) -> None:
        """Connect. Raises SourceError, NotEncrypted."""
        conninfo = session_conninfo(address, application_name)
        with translated_errors():
            self.connection = psycopg.connect(conninfo, autocommit=True)
            self.connection.prepare_threshold = None

    def close(self) -> None:
        """End the session."""
        self.connection.close()

    def cancel(self) -> None:
        """End the statement that another thread is running here, if any."""
        with translated_errors():
            self.connection.cancel_safe(timeout=2)

    def abandon(self) -> None:
        """Have the thread that waits for the server here see the connection end; another one must not close it now.

        What helps where a cancel does not get through either: on a link that swallows everything no answer comes.
        """
        if self.connection.closed:
            return
        with socket.socket(fileno=os.dup(self.connection.fileno())) as same, suppress(OSError):  # it has ended already
            same.shutdown(socket.SHUT_RDWR)

    def query(
        self, statement: str, parameters: Mapping[str, object] | Sequence[object] | None = None
    ) -> list[tuple[Any, ...]]:
        """The rows of a statement. Raises SourceError."""
        with translated_errors():
            return self.connection.execute(statement.encode(), parameters).fetchall()

    @property
    def backend_pid(self) -> int:
        """The server process' id, as libpq was told it."""
        return self.connection.info.backend_pid

    def database(self) -> str:
        """The database's name."""
        return self.connection.info.dbname

    def server_version(self) -> int:
        """The server's version, like 180006."""
        return self.connection.info.server_version
