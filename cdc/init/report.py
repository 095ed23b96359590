"""What `cdc init` tells when its file is written: what was left out, what to run, and what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cdc.init.cautions import Kind
from cdc.init.plan import Plan, Unfit
from cdc.init.printable import WIDTH, wrapped
from cdc.init.sql_text import table_name
from cdc.server.facts import ServerFacts
from transforms.finding import Finding

_NAMED: Final = 5
"""How many tables are named where the file names them all."""


def report(
    plan: Plan,
    role: str,
    server: ServerFacts,
    place: str,
    findings: Sequence[Finding],
    access: str,
    file: Path | None,
) -> str:
    """The text, in the order in which a person goes on; `file` is None where the file went to standard output.

    `place`: the source's host and port as a URL has them. `findings`: what was judged of the server, of which those
    that are well are not repeated.
    """
    blocks = [_summary(plan, file), *_cautions(plan, server), *_unfit(plan)]
    if changes := sorted((each for each in findings if each.verdict != "ok"), key=lambda each: each.verdict):
        lines = [line for finding in changes for line in finding.lines(WIDTH)]
        blocks.append("\n".join(["To change at the server:", "", *lines]))
    blocks.append(
        "SQL for a superuser or the tables' owner; the role may read what is listed only:\n\n"
        f"{access}\n\n"
        f"Then give the role a password (in psql: \\password {role}).\n"
        "It owns nothing: for a table that is mapped later, `cdc run` says what the\n"
        "table's owner has to run."
    )
    source = f"postgresql://{role}:PASSWORD@{place}/{quote(server.database, safe='')}"
    blocks.append("\n".join(_next_steps(source, file, changes=bool(changes))))
    return "\n\n".join(blocks)


def unfit_lines(unfit: Unfit) -> list[str]:
    """A table that cannot be mapped, and what mends it."""
    name = table_name(unfit.facts.name)
    lines = wrapped(f"{name}: {unfit.reason}", first="- ", hanging="  ")
    return [*lines, *(f"    {line}" for line in (unfit.sql or unfit.advice).split("\n"))]


def _summary(plan: Plan, file: Path | None) -> str:
    personal = sum(len(planned.personal) for planned in plan.events)
    left_out = sum(len(group.tables) for group in plan.skipped)
    written = f"Wrote {file}: " if file else ""
    parts = [f"{written}{_count(len(plan.events), 'event')}"]
    if plan.unfit:
        parts.append(f"{_count(len(plan.unfit), 'table')} that cannot be mapped yet")
    if left_out:
        parts.append(f"{_count(left_out, 'table')} left out")
    text = f"{', '.join(parts)}."
    if personal:
        text += f" {_count(personal, 'column')} left out since they look personal: the file names them."
    return "\n".join(wrapped(text))


def _cautions(plan: Plan, server: ServerFacts) -> Iterator[str]:
    lines = []
    for kind in Kind:
        events = [p.event.name for p in plan.events if any(caution.kind is kind for caution in p.cautions)]
        if events:
            more = f" and {len(events) - _NAMED} more" if len(events) > _NAMED else ""
            text = f"- {kind.value}: {', '.join(events[:_NAMED])}{more}"
            lines += wrapped(text, hanging="  ")
    if note := server.provider.note:
        lines += wrapped(f"- {server.provider.name}: {note}", hanging="  ")
    if lines:
        yield "\n".join(["To know (more is written at each event):", "", *lines])


def _unfit(plan: Plan) -> Iterator[str]:
    if plan.unfit:
        lines = [line for unfit in plan.unfit[:_NAMED] for line in unfit_lines(unfit)]
        if len(plan.unfit) > _NAMED:
            lines.append(f"- and {len(plan.unfit) - _NAMED} more, in the file")
        yield "\n".join(["Cannot be mapped yet, with what mends it:", "", *lines])


def _next_steps(source: str, file: Path | None, *, changes: bool) -> Iterator[str]:
    option = "" if file is None or file == Path("cdc.toml") else f" -c {shlex.quote(str(file))}"
    yield "Next:"
    yield ""
    yield "1. read the file, and take out what nobody needs, there and in the SQL above"
    yield "   (`cdc init --table NAME --table 'SCHEMA.*'` begins with fewer tables)"
    yield "2. change the server and run the SQL above" if changes else "2. run the SQL above"
    yield f"3. export SOURCE_DSN='{source}'"
    yield "   export REDIS_URL='rediss://:PASSWORD@HOST:6379'"
    yield "   (redis:// for a Redis on this machine; in passwords write @ as %40, : as %3A,"
    yield "   / as %2F, ? as %3F, # as %23 and % as %25)"
    yield f"4. cdc check{option}"
    yield f"5. cdc run{option}"
    yield "6. beside each consuming service, with a section as the file's end shows it:"
    yield f"   cdc-sink check billing{option}"
    yield f"   cdc-sink run billing{option}"


def _count(number: int, thing: str) -> str:
    return f"1 {thing}" if number == 1 else f"{number} {thing}s"
