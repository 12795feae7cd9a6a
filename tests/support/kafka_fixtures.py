"""Fixtures `kafka` (a real broker shared by the session) and `kafka_broker` (one of a test's own, to be killed).

Where it comes from, in this order: a given `KAFKA_BOOTSTRAP` (shared one only), the JVM, a container engine. Where none is: one
clear line and a skip, a failure in CI.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.kafka import Broker, KafkaMissing, find_java, find_libs
from tests.support.kafka_docker import DockerBroker
from tests.support.missing import missing

#: `tests/conftest.py` moves KAFKA_BOOTSTRAP here, out of sight of the code under test.
GIVEN = "PORTCULLIS_TEST_KAFKA"

AnyBroker = Broker | DockerBroker


@dataclass(frozen=True)
class Kafka:
    """A shared broker, seen by one test. Names made by `name` are this test's alone."""

    bootstrap: str
    prefix: str

    def name(self, what: str) -> str:
        """A topic, group or client id that no other test uses."""
        return f"{self.prefix}.{what}"


@pytest.fixture(scope="session")
def jvm() -> None:
    """For tests that start the JVM's broker themselves: a given one would not be their own."""
    try:
        find_java()
        find_libs()
    except KafkaMissing as reason:
        missing(str(reason))


def start_broker(folder: Path) -> AnyBroker:
    """A running broker from the JVM, else from a container engine. Raises KafkaMissing with both reasons."""
    broker: AnyBroker
    try:
        broker = Broker(folder)
    except KafkaMissing as no_jvm:
        try:
            broker = DockerBroker()
        except KafkaMissing as no_engine:
            raise KafkaMissing(f"no real Kafka: {no_jvm}; {no_engine}") from None
    broker.start()
    return broker


@contextmanager
def _served(folder: Path) -> Iterator[AnyBroker]:
    try:
        broker = start_broker(folder)
    except KafkaMissing as reason:
        missing(str(reason))
    try:
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of the session's broker."""
    if given := os.environ.get(GIVEN):
        yield given
        return
    with _served(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker.bootstrap


@pytest.fixture
def kafka(kafka_server: str) -> Kafka:
    """The session's broker, with names of this test's own."""
    return Kafka(kafka_server, f"t{secrets.token_hex(4)}")


@pytest.fixture
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyBroker]:
    """A fresh, empty broker for this test alone: `kill()`, `restart()`, `stop()`, `start()`, `freeze()`, `thaw()` (all blocking)."""
    with _served(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker
