"""The shadow: a table with the columns that the event has now, and all else as the consumer has it on the live one.

It comes to be as CREATE TABLE ... LIKE does it, with defaults, checks, generated columns, comments, storage and
statistics, and is then given the event's types while it is empty. Indexes are made before it is filled, so that the
swap has nothing to wait for; the primary key is made anew.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from sinks.errors import RebuildRefused
from sinks.postgres import Database, Part, compose, identifier, listed, literal, part, verbatim
from sinks.rebuild.record import Record
from sinks.replica import Examination, examine
from transforms.names import IDENTIFIER_MAX_BYTES, TableName
from transforms.schema import SchemaDocument

_OBSTACLES, _INDEXES, _CONSTRAINTS = (
    resources.files("sinks.rebuild").joinpath(f"{name}.sql").read_bytes()
    for name in ("obstacles", "indexes", "constraints")
)
_STORAGE = (
    b"SELECT quote_ident(pg_get_userbyid(c.relowner)), c.relowner = current_user::regrole, quote_ident(m.amname),"
    b" quote_ident(t.spcname), ARRAY(SELECT unnest(c.reloptions) UNION ALL SELECT 'toast.' || unnest(o.reloptions))"
    b" FROM pg_class c JOIN pg_am m ON m.oid = c.relam LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace"
    b" LEFT JOIN pg_class o ON o.oid = c.reltoastrelid WHERE c.oid = to_regclass(%s)"
)
_EXTRA = (
    b"SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
    b" AND attgenerated = '' AND attname <> ALL(%s) ORDER BY attnum"
)
_NAMES = b"SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
_VIEWS = (
    b"SELECT DISTINCT v.oid::regclass::text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid"
    b" JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v' WHERE d.classid = 'pg_rewrite'::regclass"
    b" AND d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(%s) ORDER BY 1"
)


def shadow_name(table: TableName) -> TableName:
    """Beside the table, so that it can take its name."""
    return TableName(table.schema, f"{_cut(table.name, 8)}_rebuild")


def old_name(table: TableName) -> str:
    """What the old table is called within the swap, until it is dropped."""
    return f"{_cut(table.name, 12)}_rebuild_old"


def index_name(name: str) -> str:
    """What an index of the shadow is called until it can take this name."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{_cut(name, 17)}_rebuild_{digest}"


def require_free_way(database: Database, record: Record, examination: Examination) -> None:
    """Return when nothing hangs on the table that the shadow would not have. Raises RebuildRefused with what to do."""
    table = str(record.table)
    found: list[tuple[str, str]] = [(what, mend) for what, mend in database.rows(_OBSTACLES, [table])]
    found += [(misfit.what, f"{misfit.mend};") for misfit in examination.misfits if misfit.column is None]
    extra = [row[0] for row in database.rows(_EXTRA, [table, list(examination.document.names)])]
    if extra and not record.drop_columns:
        names = ", ".join(extra)
        found.append((f"no field of the event fills {names}, whose values would be lost", "Add --drop-columns."))
    if examination.retypes or extra:
        for (view,) in database.rows(_VIEWS, [table]):
            what = f"view {view} reads it, and columns get other types or go"
            found.append((what, f"DROP VIEW {view}; and make it again after the rebuild."))
    if record.keep_as is not None:
        kept = TableName(record.table.schema, record.keep_as)
        if database.row(b"SELECT to_regclass(%s) IS NOT NULL", [str(kept)])[0]:
            found.append((f"{kept} exists already", "Keep the old table under another name."))
    if found:
        raise RebuildRefused(
            f"{table} cannot be rebuilt: {'; '.join(dict.fromkeys(what for what, _ in found))}",
            remedy="Mend this, ask again, and put back afterwards what you took away:\n"
            + "\n".join(dict.fromkeys(mend for _, mend in found)),
        )


def make(database: Database, record: Record, document: SchemaDocument) -> None:
    """Make the shadow, empty, in the transaction in hand. Raises RebuildRefused and what the target says."""
    shadow = identifier(record.shadow)
    if database.row(b"SELECT to_regclass(%s) IS NOT NULL", [str(record.shadow)])[0]:
        raise RebuildRefused(
            f"{record.shadow} exists already, and no rebuild made it", remedy="Rename or drop it, then ask again."
        )
    owner, is_mine, method, tablespace, options = database.row(_STORAGE, [str(record.table)])
    create = part(
        "CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY) USING {}",
        shadow, identifier(record.table), verbatim(method),
    )  # fmt: skip
    with_options = part(" WITH ({})", listed(list(map(_option, options)))) if options else verbatim("")
    in_tablespace = part(" TABLESPACE {}", verbatim(tablespace)) if tablespace else verbatim("")
    database.execute(compose("{}{}{}", create, with_options, in_tablespace))
    for (name,) in database.rows(_EXTRA, [str(record.shadow), list(document.names)]):
        database.execute(compose("ALTER TABLE {} DROP COLUMN {}", shadow, identifier(name)))
    examination = examine(database, record.shadow_label, record.shadow, document)
    for statement in examination.retypes + examination.statements:
        database.execute(statement)
    key = listed([identifier(name) for name in document.key])
    database.execute(compose("ALTER TABLE {} ADD PRIMARY KEY ({})", shadow, key))
    carry(database, record)
    if not is_mine:
        database.execute(compose("ALTER TABLE {} OWNER TO {}", shadow, verbatim(owner)))


def carry(database: Database, record: Record) -> int:
    """Give the shadow the indexes and checks that it lacks, in the transaction in hand; returns how many."""
    table, shadow = str(record.table), str(record.shadow)
    lacking = database.rows(_CONSTRAINTS, [table, shadow, shadow])
    for name, definition in lacking:
        statement = compose(
            "ALTER TABLE {} ADD CONSTRAINT {} {}", identifier(record.shadow), identifier(name), verbatim(definition)
        )
        database.execute(statement)
    there = {row[0] for row in database.rows(_INDEXES, [shadow])}
    columns = {row[0] for row in database.rows(_NAMES, [shadow])}
    count = len(lacking)
    for name, needed, constraint, definition, head in database.rows(_INDEXES, [table]):
        if (new := index_name(name)) not in there and columns.issuperset(needed):
            _make_index(database, record.shadow, name, new, constraint, definition, head)
            count += 1
    return count


def _make_index(
    database: Database, shadow: TableName, name: str, new: str, constraint: str | None, definition: str, head: str
) -> None:
    if constraint is not None:
        statement = compose(
            "ALTER TABLE {} ADD CONSTRAINT {} {}", identifier(shadow), identifier(new), verbatim(constraint)
        )
    elif definition.startswith(head):
        beginning = part("CREATE {}INDEX {} ON {}", _unique(head), identifier(new), identifier(shadow))
        statement = compose("{} {}", beginning, verbatim(definition.removeprefix(head)))
    else:
        raise RebuildRefused(f"index {name} has a definition that cannot be repeated", remedy=f"DROP INDEX {name};")
    database.execute(statement)


def _unique(head: str) -> Part:
    return verbatim("UNIQUE " if head.startswith("CREATE UNIQUE") else "")


def _option(text: str) -> Part:
    name, _, value = text.partition("=")
    return part("{} = {}", verbatim(name), literal(value))


def _cut(name: str, room: int) -> str:
    """The beginning of a name, so that `room` bytes more can follow."""
    return name.encode()[: IDENTIFIER_MAX_BYTES - room].decode(errors="ignore")


def fits(examination: Examination) -> bool:
    """Whether the live table has the event's types."""
    return not any(misfit.column for misfit in examination.misfits)
