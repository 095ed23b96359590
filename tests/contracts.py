"""Whether what is in a pipeline's streams is what its schema documents promise consumers.

Every pipeline of the tests is looked at when its test is over (`tests.processes.closing`): each entry must validate
against the JSON Schema of its event, and parse with the generated model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple, cast

import jsonschema
import pydantic
import redis

from transforms.keys import Keys
from transforms.model_names import class_name
from transforms.model_source import models
from transforms.schema import SchemaDocument

OLDEST, NEWEST = 10, 20
"""Of each stream, entries that are looked at: more would cost much and tell little."""

Fields = Mapping[bytes, bytes]


class Contract(NamedTuple):
    """What consumers of one event's version are promised."""

    state: jsonschema.Draft202012Validator
    lenient: jsonschema.Draft202012Validator
    """For states that lack something."""
    key: jsonschema.Draft202012Validator
    model: type[pydantic.BaseModel]


def imported(source: str) -> ModuleType:
    """A generated module, as importing its file would make it."""
    module = ModuleType("generated")
    exec(compile(source, "generated", "exec", dont_inherit=True), module.__dict__)
    return module


@lru_cache(maxsize=500)
def contract_of(text: bytes) -> Contract:
    """The contract in a stored document."""
    document = SchemaDocument.parse(text)
    schema = json.loads(text)["json_schema"]
    assert schema == json.loads(json.dumps(document.json_schema())), "the document and its json_schema differ"
    jsonschema.Draft202012Validator.check_schema(schema)
    made = getattr(imported(models("tests", [document])), class_name(document.label, ()))
    assert issubclass(made, pydantic.BaseModel)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    whole, lenient, key = (
        jsonschema.Draft202012Validator(one, format_checker=checker)
        for one in (schema, schema | {"required": []}, schema["$defs"]["key"])
    )
    return Contract(whole, lenient, key, made)


def problems_of(contract: Contract, fields: Fields) -> list[str]:
    """What an entry breaks of the contract."""
    key, absent = json.loads(fields[b"key"]), json.loads(fields.get(b"partial", b"[]"))
    found = [f"key: {error.message[:300]}" for error in contract.key.iter_errors(key)]
    if fields[b"op"] == b"upsert":
        found += _problems_of_state(contract, fields[b"state"], absent)
    if b"previous" in fields:
        found += [f"previous: {each}" for each in _problems_of_state(contract, fields[b"previous"], [])]
    return found


def _problems_of_state(contract: Contract, text: bytes, absent: Sequence[str]) -> list[str]:
    schema = contract.lenient if absent else contract.state
    found = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in schema.iter_errors(json.loads(text))
    ]
    try:
        contract.model.model_validate_json(text)
    except pydantic.ValidationError as error:
        found += [
            f"model: {each['loc']} {each['msg']}"
            for each in error.errors()
            if not (each["type"] == "missing" and each["loc"][0] in absent)
        ]
    return found


def expect_as_promised(documents: Mapping[bytes, bytes], entries: Iterable[Fields]) -> None:
    """Fail with each entry that breaks the contract of its event."""
    broken = [
        f"{fields[b'type'].decode()} {fields[b'key'].decode()}: {problem}"
        for fields in entries
        if fields.get(b"op") in (b"upsert", b"delete")
        for problem in problems_of(contract_of(documents[fields[b"type"]]), fields)
    ]
    assert not broken, f"{len(broken)} breaches of what the schema documents promise:\n" + "\n".join(broken[:20])


def expect_streams_as_promised(client: redis.Redis, keys: Keys) -> None:
    """The same for the oldest and newest entries of each stream of a pipeline, as it is now."""
    documents = cast(dict[bytes, bytes], client.hgetall(keys.schema))
    streams = {stream for text in documents.values() for stream in json.loads(text)["streams"]}
    for stream in streams:
        for name in (keys.stream(stream, 1), *client.scan_iter(keys.stream(stream, 1) + "@*", count=1000)):
            oldest = cast(Sequence[Any], client.xrange(name, count=OLDEST))
            newest = cast(Sequence[Any], client.xrevrange(name, count=NEWEST))
            expect_as_promised(documents, (fields for _, fields in (*oldest, *newest)))
