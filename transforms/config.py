"""The configuration file: how it is read, how secrets are kept, and how mistakes are told.

Commands validate only the sections they use, each with a model of its own (`Section`), through one `Document` that
collects the mistakes of the whole file. A mistake names the key's full path and what is allowed there, and never
the value: whoever pastes a password under the wrong key must not find it in a log. Keys and values that the
contract reserves for later are listed in each model (`later`) and refused as "not supported yet".
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from transforms import duration
from transforms.address import Address, redis_mistake
from transforms.durability import DURABILITIES, MEMORY, WrittenDurability
from transforms.duration import Duration
from transforms.errors import EXIT_USAGE, StatecastError
from transforms.names import PIPELINE_NAME, TableName
from transforms.secret import Secret

SECTIONS: Final = ("pipeline", "source", "transport", "masking", "events", "sinks")
NOT_SUPPORTED_YET: Final = "not supported yet"
SMALLEST_BACKLOG_BYTES: Final = 16 * 1024 * 1024
"""Less than this is perhaps not enough for a sink to see that a large transaction does not end yet (sinks/stream.py
reads 5,000 entries or 8 MB at once), and a reader that is blocked would never send the rest."""
NO_DEFAULT: Final = object()
"""In `Section.later`: no value of this key is accepted."""


NO_FILE: Final = (
    "Go to the file's folder, or name it: `-c FILE` or CDC_CONFIG. For a database that has none, `cdc init` writes it."
)
NAMED_WRONG: Final = "Correct the command: name one of those that there are."
"""Of what a command was given, not of the file."""


class ConfigurationError(StatecastError):
    """The configuration file cannot be used. `problems` has one line for each mistake, and so has the message."""

    exit_code = EXIT_USAGE
    remedy = "Correct the lines named above in the configuration file, or the environment it refers to."

    def __init__(self, problems: Sequence[str], *, remedy: str | None = None) -> None:
        super().__init__("\n".join(problems), remedy=remedy)
        self.problems = tuple(problems)


class Section(BaseModel):
    """One table of the file. A field's description completes "expected ..." in the mistakes told about it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    later: ClassVar[Mapping[str, object]] = {}
    """Keys of the contract that are not built yet, with their documented default, which is accepted and ignored."""

    sections: ClassVar[frozenset[str]] = frozenset()
    """Keys that hold sections of their own, which are read by themselves."""


AnySection = TypeVar("AnySection", bound=Section)


class PipelineConfig(Section):
    """`[pipeline]`."""

    name: str = Field(pattern=f"^{PIPELINE_NAME.pattern}$", description=f"a name that matches {PIPELINE_NAME.pattern}")


class TransportConfig(Section):
    """`[transport]`: the Redis or Valkey that holds the streams."""

    url: Secret = Field(description="a redis://, rediss:// or unix:// address")
    durability: WrittenDurability = Field(
        default=MEMORY,  # what every server can do, at no cost
        description=DURABILITIES,
    )
    confirm_delay_seconds: float = Field(
        default=2.0,  # longer than the tail that Redis' appendfsync everysec may lose
        ge=0,
        allow_inf_nan=False,
        description="a number of seconds, 0 or more",
    )
    retain: Duration = Field(
        default=timedelta(hours=1),  # time to look at what was published, and for readers without a consumer group
        description=duration.EXPECTED,
    )
    max_backlog_bytes: int | None = Field(
        default=None,  # Redis' maxmemory is the limit
        ge=SMALLEST_BACKLOG_BYTES,
        description=f"a whole number of bytes, {SMALLEST_BACKLOG_BYTES} or more",
    )
    laggard: Literal["block", "resync"] = Field(default="block", description='"block" or "resync"')
    allow_plaintext: bool = Field(default=False, description="true or false")

    @property
    def address(self) -> Address:
        """Where Redis is."""
        return Address("transport", self.url, self.allow_plaintext)

    @field_validator("laggard")
    @classmethod
    def _has_a_limit(cls, laggard: str, info: ValidationInfo) -> str:
        if laggard == "resync" and info.data.get("max_backlog_bytes", 0) is None:
            raise ValueError('"resync" needs transport.max_backlog_bytes, from which on a sink is a laggard')
        return laggard

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: Secret) -> Secret:
        scheme = url.reveal().partition("://")[0]
        if scheme in ("redis+cluster", "redis+sentinel"):
            raise ValueError(NOT_SUPPORTED_YET)
        if scheme not in ("redis", "rediss", "unix"):
            raise ValueError("expected a redis://, rediss:// or unix:// address, got another scheme")
        if scheme != "unix" and (mistake := redis_mistake(url.reveal())) is not None:
            raise ValueError(mistake)
        return url


def _table_name(value: object) -> TableName:
    if isinstance(value, TableName):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "not a text")
    return TableName.parse(value)


Table = Annotated[TableName, PlainValidator(_table_name)]
"""A field that holds a TableName and is written as SQL would name the table."""


class Document:
    """A configuration file while it is read: its content, the environment, and the mistakes met so far."""

    def __init__(self, content: Mapping[str, object], environ: Mapping[str, str]) -> None:
        self.content = content
        self.environ = environ
        self.problems = [f"{key_path(key)}: {unknown_key(key, SECTIONS)}" for key in content if key not in SECTIONS]

    @classmethod
    def read(cls, path: Path, environ: Mapping[str, str]) -> Self:
        """Raises ConfigurationError when there is no such file, or no TOML in it (with line and column)."""
        try:
            with path.open("rb") as file:
                return cls(tomllib.load(file), environ)
        except FileNotFoundError as error:
            raise ConfigurationError([f"{path}: {error.strerror}"], remedy=NO_FILE) from error
        except OSError as error:
            raise ConfigurationError([f"{path}: {error.strerror}"]) from error
        except ValueError as error:  # from None: the error may carry the whole text
            raise ConfigurationError([f"{path}: not TOML: {error}"]) from None

    def refuse(self, path: Sequence[str], problem: str, *index: int | str) -> None:
        """Note a mistake, or one for each line of `problem`, at `path` (or at `index` in the list that is there)."""
        steps = (f"[{step}]" if isinstance(step, int) else f".{key_path(step)}" for step in index)
        where = key_path(*path) + "".join(steps)
        self.problems.extend(f"{where}: {line}" for line in problem.splitlines())

    def table(self, *path: str) -> Mapping[str, object] | None:
        """The table at `path`. An absent one is empty; anything else there is a mistake, and None."""
        found: object = self.content
        for key in path:
            found = found.get(key, {}) if isinstance(found, dict) else {}
        if isinstance(found, dict):
            return found
        self.refuse(path, f"expected a section, got {kind_of(found)}")
        return None

    def section(
        self,
        model: type[AnySection],
        *path: str,
        given: Mapping[str, object] = MappingProxyType({}),
        defaults: Mapping[str, object] = MappingProxyType({}),
    ) -> AnySection | None:
        """Validate the table at `path`; None after a mistake. The fields `given` cannot be written in the file."""
        written = self.table(*path)
        if written is None:
            return None
        table = dict(written)
        before = len(self.problems)
        for key, default in model.later.items():
            if key in table and (type(value := table.pop(key)), value) != (type(default), default):
                self.refuse((*path, key), NOT_SUPPORTED_YET)
        known = [name for name in model.model_fields if name not in given] + sorted(model.sections)
        for key in model.sections:
            table.pop(key, None)
        for key in [key for key in table if key not in known]:
            del table[key]
            self.refuse((*path, key), unknown_key(key, known))
        try:
            section = model.model_validate({**defaults, **table, **given}, context={"environ": self.environ})
        except ValidationError as error:
            for details in error.errors(include_url=False):
                field = str(details["loc"][0])
                where = path if field in given else (*path, field)
                if details["type"] != "default_factory_not_called":  # follows from another field's mistake
                    self.refuse(where, _explained(details, model.model_fields[field].description), *details["loc"][1:])
            return None
        return section if len(self.problems) == before else None


def key_path(*keys: str) -> str:
    """Join keys as TOML writes them: `events.customer.columns`; other than plain keys are quoted, on one line."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key) for key in keys)


def kind_of(value: object) -> str:
    """What a TOML value is, without saying its content."""
    return _KINDS.get(type(value), "a date or time")


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The mistake of a key that does not exist, with the one that was probably meant or else all there are."""
    allowed = list(known)
    for close in difflib.get_close_matches(key, allowed, n=1):
        return f'unknown key (did you mean "{close}"?)'
    return f"unknown key (allowed: {', '.join(allowed)})" if allowed else "unknown key"


def _explained(error: ErrorDetails, expected: str | None) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "missing":
        return f"missing: expected {expected}"
    got = kind_of(error["input"])
    if got == "text" and error["type"] in ("literal_error", "string_pattern_mismatch"):
        got = "other text"
    elif error["type"] in ("greater_than_equal", "less_than_equal", "finite_number"):
        got = "another number"
    if error["loc"][1:]:
        expected = error["ctx"]["expected"].replace("'", '"') if error["type"] == "literal_error" else "text"
    return f"expected {expected}, got {got}"


_KINDS: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a number",
    float: "a decimal number",
    str: "text",
    list: "a list",
    dict: "a section",
}
