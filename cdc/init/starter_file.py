"""The starter configuration as TOML text with comments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from cdc.init.amounts import rate_text, rows_text
from cdc.init.plan import Plan, PlannedEvent, Skipped, Unfit
from cdc.init.printable import WIDTH, wrapped
from cdc.init.sql_text import column_list, filled, identifier, table_name
from cdc.server.facts import ServerFacts
from cdc.wording import size
from transforms.names import TableName


def starter_file(plan: Plan, server: ServerFacts, access: str, *, allow_plaintext: bool = False) -> str:
    """A file that `cdc check` and `cdc run` accept as it is; `access` is the SQL that it ends with."""
    blocks = [_head(plan, server, allow_plaintext=allow_plaintext)]
    blocks += ["\n".join(_event(planned, server)) for planned in plan.events]
    if plan.unfit:
        blocks.append("\n".join(_unfit(plan.unfit, server)))
    if plan.skipped:
        blocks.append("\n".join(_skipped(plan.skipped)))
    blocks += [_sink(plan.events), "\n".join(_access(access))]
    return "\n\n".join(blocks) + "\n"


def toml_string(text: str) -> str:
    """A basic string. JSON's escapes are TOML's; what an editor would hide or act on is escaped as well.

    Source: https://toml.io/en/v1.0.0#string
    """
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in quoted)


def comment(text: str, *, hanging: str = "") -> str:
    """Text as comment lines of 80 columns; what TOML, a terminal or an editor would act on is escaped."""
    return "\n".join(f"# {line}" for line in wrapped(text, hanging=hanging, width=WIDTH - 2))


def sql_comment(sql: str) -> Iterator[str]:
    """Statements as comment lines, further in than prose: without what stands before them they can be run."""
    return (f"#     {line}".rstrip() for line in sql.split("\n"))


def _head(plan: Plan, server: ServerFacts, *, allow_plaintext: bool) -> str:
    about = (
        f"Written by `cdc init` from the database {identifier(server.database)} (Postgres {server.version // 10000})."
        " What is listed here is published, and nothing else: read it before you run it."
    )
    plaintext = "allow_plaintext = true\n" if allow_plaintext else ""
    return (
        f"{comment(about)}\n\n"
        f'[pipeline]\nname = {toml_string(plan.pipeline)}\n\n[source]\ndsn = "${{SOURCE_DSN}}"\n{plaintext}\n'
        '[transport]\nurl = "${REDIS_URL}"\n\n'
        f"{comment(f'{_tables(len(plan.events))} can be published as they are; those most written to come first.')}"
    )


def _event(planned: PlannedEvent, server: ServerFacts) -> Iterator[str]:
    facts, mapping = planned.facts, planned.mapping
    amounts = _amounts(facts.size_bytes, mapping.table.estimated_rows, facts.writes, server)
    yield comment(f"{table_name(facts.name)}: {amounts}; key {column_list(mapping.key)}")
    if planned.personal:
        names = ", ".join(map(identifier, planned.personal))
        yield comment(
            f"- left out since they look personal: {names}; add those that consumers need (and to the GRANT below)",
            hanging="  ",
        )
    for caution in planned.cautions:
        yield comment(f"- {caution.text}", hanging="  ")
        if caution.sql is not None:
            yield from sql_comment(caution.sql)
    yield f"[events.{planned.event.name}]"
    yield f"table = {toml_string(str(facts.name))}"
    yield _list("columns", mapping.names)
    if planned.event.key is not None:
        yield _list("key", planned.event.key)


def _list(field: str, names: Iterable[str]) -> str:
    return filled(f"{field} = [", map(toml_string, names), "]", width=WIDTH)


def _amounts(size_bytes: int, rows: int, writes: int, server: ServerFacts) -> str:
    return f"{size(size_bytes)}, {rows_text(rows)}, {rate_text(writes, server.counted_days)}"


def _unfit(tables: Iterable[Unfit], server: ServerFacts) -> Iterator[str]:
    yield comment(
        "Not mapped, with what mends it. Afterwards `cdc init -o new.toml` has them as events, to be taken over here."
    )
    for unfit in tables:
        facts = unfit.facts
        amounts = _amounts(facts.size_bytes, unfit.estimated_rows, facts.writes, server)
        yield "#"
        yield comment(f"{table_name(facts.name)}: {amounts}")
        yield comment(f"- {unfit.reason}", hanging="  ")
        if unfit.sql is None:
            yield comment(f"- {unfit.advice}", hanging="  ")
        else:
            yield from sql_comment(unfit.sql)


def _skipped(groups: Iterable[Skipped]) -> Iterator[str]:
    yield comment("Left out:")
    for group in groups:
        yield comment(f"- {group.reason}: {', '.join(map(table_name, group.tables))}", hanging="  ")


def _sink(events: Iterable[PlannedEvent]) -> str:
    about = "A consuming service needs the sections pipeline and transport, and one like this, with the events it uses:"
    lines = [
        comment(about),
        "#",
        "#     [sinks.billing]",
        '#     type = "postgres"',
        '#     dsn = "${BILLING_DSN}"',
        "#     [sinks.billing.tables]",
    ]
    names = [planned.event.name for planned in events]
    lines += [f"#     {name} = {toml_string(str(TableName('replica', name)))}" for name in names]
    return "\n".join(lines)


def _access(access: str) -> Iterator[str]:
    yield comment("The role that reads, and the publication: what was printed when this file was written.")
    yield "#"
    yield from sql_comment(access)


def _tables(number: int) -> str:
    return "1 table" if number == 1 else f"{number} tables"
