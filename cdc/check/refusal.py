"""What `cdc check` calls an error ends `cdc run`."""

from __future__ import annotations

from collections.abc import Iterable

from cdc.errors import PreconditionFailed
from transforms.finding import Finding


def refuse_errors(findings: Iterable[Finding]) -> None:
    """Raise PreconditionFailed for the first error among them, with its remedy."""
    for finding in findings:
        if finding.verdict == "error":
            raise PreconditionFailed(f"{finding.thing}: {finding.what}", remedy=finding.remedy)
