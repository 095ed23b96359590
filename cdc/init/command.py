"""`cdc init`: reads the catalog of a source, and makes the text of a starter file and of what to do with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import AccessDenied, SourceBusy, SourceNotTrusted, SourceUnreachable
from cdc.init.access import access_sql
from cdc.init.errors import NoDsn, NothingThere, NothingToMap
from cdc.init.event_names import pipeline_name
from cdc.init.plan import choose, make_plan, skip
from cdc.init.report import report, unfit_lines
from cdc.init.starter_file import starter_file
from cdc.init.survey import Survey
from cdc.server.facts import describe_server
from cdc.server.providers import SUPABASE
from cdc.server.readiness import room_findings, server_findings
from cdc.source.publication import find_publication
from cdc.source.slot import find_slot
from transforms.address import Address, AddressMisread, NotEncrypted
from transforms.config import ConfigurationError
from transforms.secret import Secret

_APPLICATION_NAME = "statecast_init"
_TLS_REMEDY = (
    "Write sslmode=verify-full in the DSN (with sslrootcert=FILE for an authority of your own),"
    " or add --allow-plaintext."
)
_REFERENCE = re.compile(r"\$\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a survey of the source came to."""

    file: str
    report: str


def read_dsn(text: str, environ: Mapping[str, str]) -> Secret:
    """A DSN as it is, or `${NAME}` or `${file:PATH}`, which keep it out of the list of processes. Raises NoDsn."""
    if not _REFERENCE.fullmatch(text):
        if not text:
            raise NoDsn("--source: the value is empty")
        return Secret(text)
    try:
        return Secret.parse(text, environ)
    except ValueError as error:
        raise NoDsn(f"--source: {error}") from None


def propose(address: Address, globs: Sequence[str], file: Path | None) -> Proposal:
    """Read the catalog and propose a pipeline. Raises StatecastError."""
    with _told_for_init():
        survey = Survey(address, _APPLICATION_NAME)
        try:
            return _proposal(survey, globs, file, allow_plaintext=address.allow_plaintext)
        finally:
            survey.close()


def _proposal(survey: Survey, globs: Sequence[str], file: Path | None, *, allow_plaintext: bool) -> Proposal:
    server = describe_server(survey)
    pipeline = pipeline_name(server.database)
    publication = f"cdc_{pipeline}"
    role = f"{publication}_reader"
    chosen = choose(survey.tables(), globs)
    candidates, skipped = skip(chosen, supabase=server.provider is SUPABASE and not globs)
    tables = survey.describe([facts.name for facts in candidates])
    plan = make_plan(pipeline, candidates, tables, skipped, server.version)
    if not candidates:
        reasons = "".join(f"\n- {len(group.tables)} {group.reason}" for group in skipped)
        raise NothingThere(f"no table is of a kind that could be mapped{reasons}")
    if not plan.events:
        lines = [line for unfit in plan.unfit for line in unfit_lines(unfit)]
        raise NothingToMap("\n".join(["no table can be mapped as it is", *lines]))
    existing, role_exists = find_publication(survey, publication), survey.has_role(role)
    access = access_sql(role, publication, plan.events, server, existing, role_exists=role_exists)
    slot = find_slot(survey, publication)
    findings = [*server_findings(server, f"statecast_{pipeline}"), *room_findings(server, slot)]
    return Proposal(
        starter_file(plan, server, access, allow_plaintext=allow_plaintext),
        report(plan, role, server, survey.place(), findings, access, file),
    )


@contextmanager
def _told_for_init() -> Iterator[None]:
    """Remedies of the source's errors, for one who has no configuration and no reader yet."""
    try:
        yield
    except SourceUnreachable as error:
        raise SourceUnreachable(str(error), remedy="Start the server, or correct host and port in --source.") from error
    except SourceBusy as error:
        raise SourceBusy(str(error), remedy="Run `cdc init` again in a moment: it gives way to other work.") from error
    except AccessDenied as error:
        raise AccessDenied(
            str(error), remedy="Correct user, password and database in --source; any role that may connect will do."
        ) from error
    except (NotEncrypted, SourceNotTrusted) as error:
        told = str(error).removeprefix("source: ")
        raise type(error)(f"--source: {told}", remedy=_TLS_REMEDY) from error
    except AddressMisread as error:
        raise AddressMisread(f"--source: {str(error).removeprefix('source: ')}") from error
    except ConfigurationError as error:
        raise NoDsn(str(error).replace("source.dsn", "--source")) from error
