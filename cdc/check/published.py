"""What has been published already, as `cdc check` finds it in Redis: consumers rely on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.known import Known
from cdc.transport import connect
from transforms.errors import StatecastError
from transforms.keys import Keys
from transforms.schema import SchemaDocument


@dataclass(frozen=True, slots=True)
class Before:
    """Nothing, where nothing is known of it."""

    documents: Mapping[str, SchemaDocument] = field(default_factory=dict)
    """By label."""
    known: Known = field(default_factory=Known)


def published_before(config: ReaderConfig) -> Before:
    """What Redis holds; nothing where it cannot be asked, which is told where it is looked at itself."""
    try:
        with connect(config.transport.address) as client:
            control = Control(client, Keys(config.pipeline.name))
            return Before(control.schemas(), Known.parse(control.state([]).meta))
    except StatecastError:
        return Before()
