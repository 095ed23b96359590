"""The pair of a reader and a sink that one test has die again and again."""

from __future__ import annotations

from tests.end_to_end.conftest import embedded_only, shop

__all__ = ["embedded_only", "shop"]
