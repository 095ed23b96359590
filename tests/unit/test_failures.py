"""What is remembered of errors."""

from __future__ import annotations

from transforms.failures import Failures


def test_errors_are_kept_by_class_and_never_by_text() -> None:
    failures = Failures()
    failures.note(ValueError("a secret"), 100.0)
    failures.note(ValueError("another"), 101.0)
    assert failures.counts == {"ValueError": 2}
    assert failures.last_at == {"ValueError": 101.0}
