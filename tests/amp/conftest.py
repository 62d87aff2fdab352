"""Fixtures for tests of mixed precision."""

import pytest

from tensorlite.amp import autocast_context


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch):
    """Let autocast compute in bfloat16 on every processor, so that all of them give the same dtypes."""
    monkeypatch.setattr(autocast_context, "has_bfloat16_products", lambda: True)
