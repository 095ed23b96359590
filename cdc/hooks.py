"""The hooks of a configuration: found by their names, imported once, as Python finds modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Protocol

from transforms.config import ConfigurationError, key_path
from transforms.hooks import Function


class HookUnusable(ValueError):
    """There is no such function."""


class HasHook(Protocol):
    """What is written of an event."""

    @property
    def name(self) -> str: ...
    @property
    def transform(self) -> str | None: ...


@cache
def find_hook(name: str) -> Function:
    """The function that `module:function` names. Raises HookUnusable.

    Modules are looked for in the current directory and where Python looks (PYTHONPATH).
    """
    module_name, _, path = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:  # a command's own directory stands there instead
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does
        raise HookUnusable(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise HookUnusable(f"{module_name} has no {path}")
        found = getattr(found, part)
    if not callable(found):
        raise HookUnusable(f"{name} is no function")
    hook: Function = found
    return hook


def expect_hooks(events: Iterable[HasHook]) -> None:
    """Import all hooks. Raises ConfigurationError with those that there are not."""
    problems = []
    for event in events:
        try:
            if event.transform is not None:
                find_hook(event.transform)
        except HookUnusable as error:
            problems.append(f"{key_path('events', event.name, 'transform')}: {error}")
    if problems:
        raise ConfigurationError(
            problems, remedy="Correct it; modules are found in the current directory and in those of PYTHONPATH."
        )
