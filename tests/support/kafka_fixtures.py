"""Placeholder until the broker stands."""

import pytest


@pytest.fixture
def kafka():
    pytest.skip("not yet")


@pytest.fixture
def kafka_broker():
    pytest.skip("not yet")


@pytest.fixture
def kafka_server():
    pytest.skip("not yet")
