"""What a process of ours says over HTTP."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.processes import Command, wait_until

ANNOUNCED = re.compile(r"metrics and health on (http://[^/\s]+)/metrics")

_TYPE = re.compile(r"^# TYPE (\w+) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server behind a `--metrics-port`."""

    url: str

    @classmethod
    def of(cls, command: Command) -> Endpoint:
        """The endpoint that a process has announced last, started with port 0."""
        wait_until("the endpoint to be announced", lambda: ANNOUNCED.search(command.output))
        return cls(ANNOUNCED.findall(command.output)[-1])

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def samples(self) -> list[Sample]:
        """Everything that is measured."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return [sample for family in families for sample in family.samples]

    def names(self) -> set[str]:
        """The metrics of statecast, as they are documented, also those that have no value now."""
        return {name for name in _TYPE.findall(self.get("/metrics")[1]) if name.startswith("statecast_")}

    def value(self, name: str, **labels: str) -> float | None:
        """One sample's value, or None where there is none."""
        found = [
            sample.value for sample in self.samples() if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert len(found) <= 1, f"{len(found)} samples of {name} {labels}"
        return found[0] if found else None

    def has(self, name: str, value: float) -> bool:
        """Whether there is one sample of the name, with this value."""
        return self.value(name) == value
