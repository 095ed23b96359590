"""Whether each hook can be imported, and what it makes of some rows of its event's table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from cdc.config import ReaderConfig
from cdc.errors import SourceError
from cdc.event_mapping import EventMapping
from cdc.hooks import HookUnusable, find_hook
from cdc.snapshot.subject import Subject
from cdc.source.chunk import read_chunk
from cdc.source.connection import Source
from cdc.wording import counted
from transforms.errors import StatecastError
from transforms.finding import Finding
from transforms.masking import Masks
from transforms.row import Absent, EncodedRow, Failed

SAMPLE_ROWS = 20
SAMPLE_BYTES = 4 << 20


def hook_findings(source: Source, config: ReaderConfig, mappings: Sequence[EventMapping]) -> Iterator[Finding]:
    """The events with a hook, each tried on some rows as a snapshot reads them."""
    names = {event.label: event.name for event in config.events}
    for mapping in mappings:
        if mapping.transform is None:
            continue
        thing = f"event {mapping.label}"
        try:
            find_hook(mapping.transform)
        except HookUnusable as error:
            yield Finding(
                "error", thing, f"events.{names[mapping.label]}.transform: {error}",
                "Correct it; modules are found in the current directory and in those of PYTHONPATH.",
            )  # fmt: skip
            continue
        try:
            rows = _samples(source, mapping, config.masking.masks)
        except SourceError:  # what may not be read is told with the grants
            continue
        except StatecastError as error:
            yield Finding("error", thing, str(error), error.remedy)
            continue
        yield _judged(thing, mapping.transform, rows)


def _samples(source: Source, mapping: EventMapping, masks: Masks) -> list[EncodedRow]:
    subject = Subject.of(mapping, 1, str.encode, masks)
    return read_chunk(source, subject.query(limit=SAMPLE_ROWS), SAMPLE_BYTES, subject.route.encoder.lines).rows


def _judged(thing: str, hook: str, rows: Sequence[EncodedRow]) -> Finding:
    failures = Counter((row.error, row.line) for row in rows if isinstance(row, Failed))
    if failures:
        raised = ", ".join(f"{error} in {line} on {count}" for (error, line), count in failures.most_common())
        return Finding(
            "error", thing, f"{hook} raised {raised} of {counted(len(rows), 'row')} that it was tried on",
            "Mend it: a row that it fails on is not published.",
        )  # fmt: skip
    left_out = sum(isinstance(row, Absent) for row in rows)
    return Finding("ok", thing, f"{hook} was tried on {counted(len(rows), 'row')} and leaves out {left_out}")
