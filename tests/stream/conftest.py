"""Fixtures of the stream's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stream.fakes import in_memory


@pytest.fixture
def memory() -> Iterator[None]:
    """The lanes' Kafka is a dictionary (tests.stream.memory)."""
    with in_memory():
        yield
