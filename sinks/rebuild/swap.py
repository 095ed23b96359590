"""The swap: the shadow gets the live table's name, privileges, triggers and views, in the transaction in hand.

Only the catalog is changed, so that it takes milliseconds once the lock is there. Readers that wait for that lock find
the new table when they get it: Postgres looks a name up again after a wait. A statement that was prepared is planned
again. Views are pointed to the new table by CREATE OR REPLACE, which keeps whatever stands on them.
"""

from __future__ import annotations

from typing import Any

from sinks.postgres import Database, Part, Statement, compose, identifier, literal, part, verbatim
from sinks.rebuild.record import Record
from sinks.rebuild.shadow import index_name, old_name
from transforms.names import TableName

_GRANTS = (
    b"SELECT NULL, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,"
    b" a.privilege_type, a.is_grantable FROM pg_class c, aclexplode(c.relacl) a"
    b" WHERE c.oid = to_regclass(%s) AND a.grantee <> c.relowner"
    b" UNION ALL SELECT t.attname,"
    b" CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,"
    b" a.privilege_type, a.is_grantable FROM pg_attribute t, aclexplode(t.attacl) a"
    b" WHERE t.attrelid = to_regclass(%s) AND NOT t.attisdropped AND EXISTS (SELECT FROM pg_attribute s"
    b" WHERE s.attrelid = to_regclass(%s) AND s.attname = t.attname AND NOT s.attisdropped)"
)
_TRIGGERS = (
    b"SELECT tgname, pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger"
    b" WHERE tgrelid = to_regclass(%s) AND NOT tgisinternal ORDER BY tgname"
)
_TRIGGER_STATES = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
_OF_VIEWS = (
    b" FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'"
    b" WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass"
    b" AND d.refobjid = to_regclass(%s) ORDER BY 1"
)
_VIEWS = b"SELECT DISTINCT v.oid::regclass::text, pg_get_viewdef(v.oid), v.reloptions" + _OF_VIEWS
_VIEW_OWNERS = b"SELECT DISTINCT v.oid::regclass::text, quote_ident(pg_get_userbyid(v.relowner))" + _OF_VIEWS
_INDEXES = (
    b"SELECT c.relname, i.indisprimary, i.indisreplident FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    b" WHERE i.indrelid = to_regclass(%s)"
)
_ABOUT = b"SELECT obj_description(oid, 'pg_class'), relreplident::text FROM pg_class WHERE oid = to_regclass(%s)"


def lock(database: Database, record: Record) -> None:
    """Take the exclusive locks that the swap needs. Raises TargetLocked.

    First those of the views, as their readers do. A view cannot be locked alone but by changing it: to the owner that
    it has.
    """
    for view, owner in database.rows(_VIEW_OWNERS, [str(record.table)]):
        database.execute(compose("ALTER VIEW {} OWNER TO {}", verbatim(view), verbatim(owner)))
    database.execute(compose("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", identifier(record.table)))


def swap(database: Database, record: Record) -> None:
    """Put the shadow in the live table's place, whose exclusive lock is held. Raises what the target says."""
    live, shadow = record.table, record.shadow
    triggers = database.rows(_TRIGGERS, [str(live)])
    views = database.rows(_VIEWS, [str(live)])
    names = database.rows(_INDEXES, [str(live)])
    primary = next(name for name, is_primary, _ in database.rows(_INDEXES, [str(shadow)]) if is_primary)
    _take_privileges(database, live, shadow)
    _take_description(database, live, shadow)

    old = TableName(live.schema, record.keep_as or old_name(live))
    database.execute(_rename(live, old))
    database.execute(_rename(shadow, live))
    for view, definition, options in views:
        with_options = part(" WITH ({})", verbatim(", ".join(options))) if options else verbatim("")
        head = part("CREATE OR REPLACE VIEW {}{}", verbatim(view), with_options)
        database.execute(compose("{} AS {}", head, verbatim(definition)))
    for name, definition, enabled in triggers:
        database.execute(compose("{}", verbatim(definition)))
        if (words := _TRIGGER_STATES.get(enabled)) is not None:
            database.execute(
                compose("ALTER TABLE {} {} TRIGGER {}", identifier(live), verbatim(words), identifier(name))
            )
    if record.keep_as is None:
        database.execute(compose("DROP TABLE {}", identifier(old)))  # RESTRICT: what hangs on it would be an error
    there = {row[0] for row in database.rows(_INDEXES, [str(live)])}
    for name, is_primary, is_identity in names:
        new = primary if is_primary else index_name(name)
        if new in there:
            if record.keep_as is not None:
                database.execute(_rename_index(live.schema, name, index_name(f"{name} of {old}")))
            database.execute(_rename_index(live.schema, new, name))
            if is_identity:
                database.execute(
                    compose("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}", identifier(live), identifier(name))
                )
    _take_registration(database, record)


def _take_privileges(database: Database, live: TableName, shadow: TableName) -> None:
    """Those of the live table, and none of those that a new table gets by default."""
    for _, grantee, *_ in database.rows(_GRANTS, [str(shadow)] * 3):
        database.execute(compose("REVOKE ALL ON TABLE {} FROM {}", identifier(shadow), verbatim(grantee)))
    for column, grantee, privilege, grantable in database.rows(_GRANTS, [str(live), str(live), str(shadow)]):
        of_column = part(" ({})", identifier(column)) if column is not None else verbatim("")
        granted = part("{}{}", verbatim(privilege), of_column)
        option = verbatim(" WITH GRANT OPTION" if grantable else "")
        database.execute(
            compose("GRANT {} ON TABLE {} TO {}{}", granted, identifier(shadow), verbatim(grantee), option)
        )


def _take_description(database: Database, live: TableName, shadow: TableName) -> None:
    comment, identity = database.row(_ABOUT, [str(live)])
    if comment is not None:
        database.execute(compose("COMMENT ON TABLE {} IS {}", identifier(shadow), literal(comment)))
    if identity in ("f", "n"):
        words = verbatim({"f": "FULL", "n": "NOTHING"}[identity])
        database.execute(compose("ALTER TABLE {} REPLICA IDENTITY {}", identifier(shadow), words))


def _take_registration(database: Database, record: Record) -> None:
    """What is known of the shadow is known of the live table now; what was known of that one is forgotten."""
    forgotten = database.rows(
        b"DELETE FROM cdc.replica WHERE table_name = %s RETURNING unseen_table", [str(record.table)]
    )
    for (unseen_table,) in forgotten:
        if unseen_table is not None:
            database.execute(compose("DROP TABLE IF EXISTS {}", identifier(TableName("cdc", unseen_table))))
    database.execute(
        b"WITH moved AS (UPDATE cdc.replica SET table_name = %s, event = %s, wants_snapshot = false"
        b" WHERE table_name = %s RETURNING pipeline, sink),"
        b" healed AS (DELETE FROM cdc.dead_event d USING moved m"
        b" WHERE d.pipeline = m.pipeline AND d.sink = m.sink AND d.type = %s)"
        b" UPDATE cdc.dead_event d SET type = %s FROM moved m"
        b" WHERE d.pipeline = m.pipeline AND d.sink = m.sink AND d.type = %s",
        [str(record.table), record.event, str(record.shadow), record.event, record.event, record.shadow_label],
    )


def _rename(table: TableName, to: TableName) -> Statement:
    return compose("ALTER TABLE {} RENAME TO {}", identifier(table), identifier(to.name))


def _rename_index(schema: str, name: str, to: str) -> Statement:
    return compose("ALTER INDEX {} RENAME TO {}", _index(schema, name), identifier(to))


def _index(schema: str, name: str) -> Part:
    return identifier(TableName(schema, name))


def older_transactions(database: Database) -> dict[str, int]:
    """Transactions under way in this database: virtual id -> PID. Their snapshots may lack rows of the shadow.

    Everybody may see this much. Autovacuum, which has no user, reads no rows for anybody.
    """
    rows: list[tuple[Any, ...]] = database.rows(
        b"SELECT l.virtualtransaction, l.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
        b" WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL"
        b" AND a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return {virtual_id: int(pid) for virtual_id, pid in rows}
