"""Fixtures for tests of mixed precision."""

import pytest

from tensorlite.backends import mixed_precision


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch):
    """Let autocast compute in bfloat16 on every processor, so that all of them give the same dtypes."""
    monkeypatch.setattr(mixed_precision, "has_bfloat16_products", lambda: True)
