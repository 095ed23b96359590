"""What a sink's role may not do yet, each with the SQL that lets it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sinks.errors import AccessDenied
from sinks.postgres import Database, compose, identifier, readable, verbatim
from transforms.names import TableName

_NEEDED = ("SELECT", "INSERT", "UPDATE", "DELETE")
OWN_TABLES = tuple(TableName("cdc", name) for name in ("checkpoint", "replica", "dead_event", "rebuild"))
"""What the sinks of all pipelines keep in a replica's database."""


class Lack(NamedTuple):
    """A privilege that is missing."""

    what: str
    grant: str


def lacking(database: Database, table: TableName, *, make: bool = False) -> list[Lack]:
    """What the role lacks to write to a table, or to make it where it is not there yet; in the transaction in hand.

    `make`: it shall be able to make others beside it.
    """
    role, name, may_make_schemas = database.row(
        b"SELECT current_user, current_database(), has_database_privilege(current_database(), 'CREATE')"
    )
    schemas = database.rows(
        b"SELECT c.oid::bigint, has_schema_privilege(n.oid, 'USAGE'), has_schema_privilege(n.oid, 'CREATE')"
        b" FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = %s WHERE n.nspname = %s",
        [table.name, table.schema],
    )
    if not schemas:
        grant = compose("GRANT CREATE ON DATABASE {} TO {}", identifier(name), identifier(role))
        what = f"schema {table.schema} does not exist and role {role} may not create it"
        return [] if may_make_schemas else [Lack(what, readable(grant))]
    oid, uses, creates = schemas[0]
    found = []
    missing = [word for word, has in (("USAGE", uses), ("CREATE", creates or not (make or oid is None))) if not has]
    if missing:
        words = ", ".join(missing)
        grant = compose("GRANT {} ON SCHEMA {} TO {}", verbatim(words), identifier(table.schema), identifier(role))
        found.append(Lack(f"role {role} lacks {words} on schema {table.schema}", readable(grant)))
    return found if oid is None else found + _lacking_on(database, table, oid, role)


def _lacking_on(database: Database, table: TableName, oid: int, role: str) -> list[Lack]:
    found = []
    rows = database.rows(
        b"SELECT p FROM unnest(%s::text[]) WITH ORDINALITY AS needed (p, place)"
        b" WHERE NOT has_table_privilege(%s::bigint::oid, p) ORDER BY place",
        [list(_NEEDED), oid],
    )
    if rows:
        words = ", ".join(row[0] for row in rows)
        grant = compose("GRANT {} ON TABLE {} TO {}", verbatim(words), identifier(table), identifier(role))
        found.append(Lack(f"role {role} lacks {words} on {table}", readable(grant)))
    if database.row(b"SELECT row_security_active(%s::bigint::oid)", [oid])[0]:
        grant = compose("ALTER ROLE {} BYPASSRLS", identifier(role))
        found.append(Lack(f"row-level security hides rows of {table} from role {role}", readable(grant)))
    return found


def require(database: Database, tables: Sequence[TableName], *, make: bool = False) -> None:
    """Return when the role may write to these tables, or make them. Raises AccessDenied with the SQL that lets it."""
    found = [lack for table in tables for lack in lacking(database, table, make=make)]
    if found:
        what, grants = (dict.fromkeys(texts) for texts in zip(*found, strict=True))
        raise AccessDenied(
            "; ".join(what),
            remedy="Run this in the replica's database as a role that may, then start again:\n"
            + "\n".join(f"{grant};" for grant in grants),
        )


def owns(database: Database, table: TableName) -> bool:
    """Whether the role may alter a table that is there."""
    return bool(
        database.row(b"SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%s)", [str(table)])[
            0
        ]
    )
