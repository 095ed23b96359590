"""Making what a pipeline needs at the source and does not have yet: its publication, then its slot."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cdc.catalog import Table, check_own_log
from cdc.check.publication import unfit_findings
from cdc.check.refusal import refuse_errors
from cdc.control import Control
from cdc.mapping import Shapes
from cdc.snapshot.run import Run
from cdc.source.connection import Source
from cdc.source.publication import add_to_publication, create_publication, find_publication
from cdc.source.slot import Slot, create_slot, drop_slot
from transforms.names import TableName
from transforms.position import LSN

log = logging.getLogger(__name__)


MISSING = "its table was missing in the publication: changes in between are not in the log"
ALTERED = "its publication was altered: changes that it left out meanwhile are not in the log"
RETURNED = "its table was taken out of the publication and added again: changes in between are not in the log"


class Published(NamedTuple):
    """By what the mapped tables are published, as it is stored."""

    grounds: Mapping[str, Sequence[str]]
    """Label -> rows of the catalog; see `Publication.grounds`."""
    version: str | None
    """Of the publication; None: it was not stored yet."""


def publish_tables(
    source: Source,
    name: str,
    shapes: Shapes,
    control: Control,
    planned: Sequence[Run],
    before: Published,
    tables: Mapping[TableName, Table],
) -> Published:
    """Create the publication, or add to it what is mapped and missing; tables are already known to be fit.

    Changes of a table may have been made while it was not published, so its snapshot is stored before it is added:
    after a crash in between nobody would know that it was away. `planned` are the snapshots that will be made anyway;
    `before`: by what the tables were published when that was looked at last. Returns by what they are now.
    Raises PreconditionFailed, PublicationUnfit, SourceError, TransportError.
    """
    wanted = shapes.tables
    publication = find_publication(source, name)
    for described in tables.values():
        check_own_log(described, {*wanted, *(publication.tables if publication else ())})
    if publication is None:
        create_publication(source, name, wanted)
        log.info("created publication %s of %d tables", name, len(wanted))
        return _published(source, name, shapes)
    refuse_errors(unfit_findings(name, publication, wanted))
    waiting = [run for run in control.runs() if run.first and run.state == "pending" and run.to is None]
    planned = [*planned, *waiting]
    if before.version not in (None, publication.version):
        log.warning(
            "publication %s was altered: changes that it left out meanwhile are not in the log, so snapshots are made",
            name,
        )
        runs = shapes.runs_after_return(wanted, planned, ALTERED)
        control.store_runs(runs)
        planned += runs
    for table in (returned := shapes.returned(before.grounds, publication)):
        log.warning(
            "%s was taken out of publication %s and added again: changes in between are not in the log, so a snapshot"
            " of it is made",
            table, name,
        )  # fmt: skip
    control.store_runs(shapes.runs_after_return(returned, planned, RETURNED))
    missing = [table for table in wanted if table not in publication.tables]
    if not missing:
        return Published(shapes.grounds(publication), publication.version)
    control.store_runs(shapes.runs_after_return(missing, planned, MISSING))
    add_to_publication(source, name, missing)
    log.info("added %s to publication %s", ", ".join(map(str, missing)), name)
    # Of the others, what was looked at before: they may have been taken out and added again since.
    made = _published(source, name, shapes)
    return Published({**made.grounds, **shapes.grounds(publication)}, publication.version)


def _published(source: Source, name: str, shapes: Shapes) -> Published:
    made = find_publication(source, name)
    return Published({}, None) if made is None else Published(shapes.grounds(made), made.version)


def take_slot(source: Source, name: str, found: Slot | None, *, anew: bool) -> LSN:
    """Create the slot, or take up the one that was found unless it is to be made `anew`; returns where it stands.

    A new epoch needs nothing that an old slot holds, which may be lost, or written before the publication was made.
    Waits for the application's open transactions, for as long as they last. Raises SourceError.
    """
    if found is not None and not anew and found.lost_because is None:
        log.warning("slot %s was there before: taking it up at %s", name, found.confirmed)
        return found.confirmed
    if found is not None:
        drop_slot(source, name)
    log.info("creating slot %s (waits for transactions that are open now)", name)
    return create_slot(source, name)
