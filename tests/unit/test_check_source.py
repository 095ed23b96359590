"""What `cdc check` and the start of `cdc run` judge of a server, without one."""

from __future__ import annotations

from typing import cast

import pytest

from cdc.check_source import server_findings
from cdc.config import ReaderConfig, SourceConfig
from cdc.facts import SourceFacts
from cdc.source.connection import Source
from transforms.config import PipelineConfig, TransportConfig
from transforms.secret import Secret

CONFIG = ReaderConfig(
    PipelineConfig(name="shop"),
    SourceConfig(dsn=Secret("host=a"), slot="cdc_shop"),
    TransportConfig(url=Secret("redis://b")),
    (),
)
FACTS = SourceFacts("logical", False, 10, 0, 10, 0, "1GB", None, None, "", None, True, 77, "reader", True, True, "shop")


class FakeSource:
    """As libpq was told of the server."""

    backend_pid = 77

    @staticmethod
    def server_version() -> int:
        return 180_000


def verdicts(facts: SourceFacts) -> dict[str, str]:
    """Of what is not as it should be."""
    found = server_findings(cast(Source, FakeSource()), facts, CONFIG)
    return {finding.thing: finding.verdict for finding in found if finding.verdict != "ok"}


@pytest.mark.parametrize(
    "names", ["*", "FIRST 1 (*)", "statecast_shop", "ANY 1 (a, statecast_shop)", '"Statecast_Shop"', "a,STATECAST_SHOP"]
)
def test_a_reader_that_would_be_a_synchronous_standby_is_an_error(names: str) -> None:
    assert verdicts(FACTS._replace(synchronous_standby_names=names)) == {"synchronous_standby_names": "error"}


@pytest.mark.parametrize("names", ["", "statecast_shop_eu", "my_statecast_shop", "FIRST 2 (a)", '"statecast_shop 2"'])
def test_standbys_of_other_names_are_of_no_concern(names: str) -> None:
    assert verdicts(FACTS._replace(synchronous_standby_names=names)) == {}


def test_what_stands_between_is_told_and_not_refused_since_some_pass_replication_through() -> None:
    assert verdicts(FACTS._replace(backend_pid=78)) == {"pooler": "warning"}
