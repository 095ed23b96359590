"""`cdc init`: reads the catalog of a source, and makes the text of a starter file and of what to do with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import AccessDenied, SourceBusy, SourceNotTrusted, SourceRefused, SourceUnreachable
from cdc.init.access import access_sql
from cdc.init.errors import NoDsn, NothingThere, NothingToMap
from cdc.init.event_names import pipeline_name
from cdc.init.plan import choose, make_plan, skip
from cdc.init.providers import SUPABASE, provider_of
from cdc.init.report import report, unfit_lines
from cdc.init.starter_file import starter_file
from cdc.init.survey import Survey
from cdc.source.publication import find_publication
from transforms.address import Address, AddressMisread, NotEncrypted
from transforms.secret import Secret

_OLDEST_VERSION = 150000
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
    if (version := survey.server_version()) < _OLDEST_VERSION:
        raise SourceRefused(f"Postgres {version // 10000} is older than 15", remedy="Upgrade the source database.")
    pipeline = pipeline_name(survey.database())
    publication = f"cdc_{pipeline}"
    role = f"{publication}_reader"
    server = survey.server(role)
    chosen = choose(survey.tables(), globs)
    candidates, skipped = skip(chosen, supabase=provider_of(server.traces) is SUPABASE and not globs)
    tables = survey.describe([facts.name for facts in candidates])
    plan = make_plan(pipeline, candidates, tables, skipped, server.version)
    if not candidates:
        reasons = "".join(f"\n- {len(group.tables)} {group.reason}" for group in skipped)
        raise NothingThere(f"no table is of a kind that could be mapped{reasons}")
    if not plan.events:
        lines = [line for unfit in plan.unfit for line in unfit_lines(unfit)]
        raise NothingToMap("\n".join(["no table can be mapped as it is", *lines]))
    access = access_sql(role, publication, plan.events, server, find_publication(survey, publication))
    return Proposal(
        starter_file(plan, server, access, allow_plaintext=allow_plaintext),
        report(plan, role, server, survey.place(), access, file),
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
    except SourceRefused as error:
        raise SourceRefused(str(error).replace("source.dsn", "--source"), remedy=error.remedy) from error
