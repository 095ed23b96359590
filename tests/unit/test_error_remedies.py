"""Every error that is raised on purpose says what to do, how a command ends, and whether it may pass by itself."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterator

import pytest

import cdc
import sinks
import transforms
from transforms.errors import EXIT_NEEDS_PERSON, EXIT_UNREACHABLE, EXIT_USAGE, StatecastError


def _import_all() -> None:
    for package in (transforms, cdc, sinks):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith("cdc.demo") and not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def _kinds(of: type[StatecastError]) -> Iterator[type[StatecastError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from _kinds(kind)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of client libraries: tests of those modules hear them
    _import_all()
ERRORS = sorted(set(_kinds(StatecastError)), key=lambda kind: (kind.__module__, kind.__qualname__))
RAISED = [error for error in ERRORS if "remedy" in vars(error) or not error.__subclasses__()]
"""Not the roots of families, which are caught and never raised."""

every_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{error.__module__}.{error.__qualname__}")


def test_errors_of_all_rooms_are_looked_at() -> None:
    assert {error.__module__.partition(".")[0] for error in ERRORS} >= {"transforms", "cdc"}


@every_error
def test_an_error_has_a_remedy(error: type[StatecastError]) -> None:
    assert isinstance(error.remedy, str)
    assert error.remedy.strip() == error.remedy
    assert error.remedy.endswith((".", ";", "`"))


@pytest.mark.parametrize("error", RAISED, ids=lambda error: f"{error.__module__}.{error.__qualname__}")
def test_an_errors_remedy_is_more_than_to_read_its_message(error: type[StatecastError]) -> None:
    assert error.remedy != StatecastError.remedy


@every_error
def test_an_error_ends_a_command_with_a_documented_exit_code(error: type[StatecastError]) -> None:
    assert error.exit_code in (EXIT_USAGE, EXIT_NEEDS_PERSON, EXIT_UNREACHABLE)


@every_error
def test_an_error_says_whether_it_may_pass_by_itself(error: type[StatecastError]) -> None:
    assert isinstance(error.retryable, bool)


@every_error
def test_an_error_says_what_it_is_about(error: type[StatecastError]) -> None:
    assert error.__doc__
    assert error.__doc__ != StatecastError.__doc__


def test_a_remedy_may_be_given_with_the_error() -> None:
    assert StatecastError("it broke", remedy="Mend it.").remedy == "Mend it."
    assert StatecastError("it broke").remedy == StatecastError.remedy
