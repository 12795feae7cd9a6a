"""State in compacted topics: read whole at start, own writes seen at once and never undone by their echoes, dead followers known."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError
from hypothesis import given
from hypothesis import strategies as st

from model.errors import FaultError
from model.settings import KafkaSettings
from stream import topics
from stream.broker import Broker, Publisher
from stream.incarnation import KEY, incarnation
from stream.state import Follower, State
from stream.topics import FOREVER, Topic, partition_of
from tests.handlers.fakes import swap
from tests.stream.stations import until
from tests.support.kafka_fixtures import Kafka


class Mirror(State):
    """The bookkeeping alone, without Kafka: `log` is what a topic of one partition holds."""

    def __init__(self) -> None:
        self._broker = cast(Any, type("One", (), {"partitions": 1})())
        self._written, self._read, self.values = {}, {}, {}
        self.changes: list[tuple[str, bytes | None]] = []
        self._on_change = lambda key, value: self.changes.append((key, value))
        self.log: list[tuple[str, bytes | None]] = []
        self.reads = 0

    def produce(self, key: str, value: bytes | None) -> int:
        self.log.append((key, value))
        return len(self.log) - 1

    def follow(self, count: int) -> None:
        for offset in range(self.reads, min(self.reads + count, len(self.log))):
            self._echo(*self.log[offset], 0, offset)
            self.reads = offset + 1

    @property
    def truth(self) -> dict[str, bytes]:
        values: dict[str, bytes] = {}
        for key, value in self.log:
            values.pop(key, None)
            if value is not None:
                values[key] = value
        return values


def test_an_own_write_is_seen_at_once_and_its_echo_changes_nothing() -> None:
    state = Mirror()
    state._own("k", b"2", state.produce("k", b"2"))
    assert state.values == {"k": b"2"}
    state.follow(1)
    assert state.changes == [("k", b"2")]


def test_an_older_echo_does_not_undo_a_newer_own_write() -> None:
    state = Mirror()
    state.produce("k", b"old")
    state._own("k", b"new", state.produce("k", b"new"))
    state.follow(1)
    assert state.values == {"k": b"new"}
    state.follow(1)
    state.produce("k", b"of somebody else")
    state.follow(1)
    assert state.values == {"k": b"of somebody else"}


def test_an_own_write_that_hears_of_itself_late_does_not_undo_what_came_after_it() -> None:
    """The acknowledgement is a task's turn away; the follower may have read on meanwhile."""
    state = Mirror()
    offset = state.produce("k", b"mine")
    state.produce("k", b"later")
    state.follow(2)
    state._own("k", b"mine", offset)
    assert state.values == {"k": b"later"}


def test_a_tombstone_is_told_and_an_empty_value_is_none() -> None:
    state = Mirror()
    state._own("k", b"", state.produce("k", b""))
    assert state.values == {"k": b""}
    state._own("k", None, state.produce("k", None))
    assert state.values == {}
    assert state.changes == [("k", b""), ("k", None)]


def test_what_came_back_is_not_remembered() -> None:
    """Every intent has a key of its own: a worker that runs for months must not keep one entry for each."""
    state = Mirror()
    for number in range(1000):
        key = f"intent-{number}"
        state._own(key, b"open", state.produce(key, b"open"))
        state._own(key, None, state.produce(key, None))
    state.follow(2000)
    assert state.values == {}
    assert state._written == {}


@given(data=st.data())
def test_whatever_the_order_of_answers_and_echoes_the_state_ends_as_the_log(data: st.DataObject) -> None:
    """Several writers of ours, whose acknowledgements are heard in any order, and strangers, while the follower lags."""
    state = Mirror()
    waiting: list[tuple[str, bytes | None, int]] = []
    newest: dict[str, int] = {}
    for _ in range(data.draw(st.integers(1, 25))):
        move = data.draw(st.sampled_from(["write", "stranger", "hear", "follow"]))
        key, value = data.draw(st.sampled_from("ab")), data.draw(st.sampled_from([None, b"1", b"2", b"3"]))
        if move == "write":
            newest[key] = state.produce(key, value)
            waiting.append((key, value, newest[key]))
        elif move == "stranger":
            state.produce(key, value)
        elif move == "hear" and waiting:
            one = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            state._own(*one)
            if newest[one[0]] == one[2] and state.reads <= one[2]:
                assert state.values.get(one[0]) == one[1], "the newest own write of a key is seen at once"
        elif move == "follow":
            state.follow(data.draw(st.integers(1, 3)))
    random.Random(0).shuffle(waiting)
    for one in waiting:
        state._own(*one)
    state.follow(len(state.log))
    assert state.values == state.truth


# --- on a real Kafka ------------------------------------------------------------------------------------------------------------


class Office:
    def __init__(self, broker: Broker, publisher: Publisher, topic: Topic) -> None:
        self.broker, self.publisher, self.topic = broker, publisher, topic

    @contextlib.asynccontextmanager
    async def state(self, on_change: Any = None) -> AsyncIterator[State]:
        state = State(self.broker, self.publisher, self.topic, on_change)
        await state.start()
        try:
            yield state
        finally:
            await state.stop()


@pytest.fixture
async def office(kafka: Kafka) -> AsyncIterator[Office]:
    broker = Broker(KafkaSettings(bootstrap=kafka.bootstrap, partitions=3))
    topic = Topic(kafka.name("state"), "key", FOREVER, "of a test", compacted=True)
    await broker._make_topics([topic])
    publisher = Publisher(broker)
    await publisher.start()
    yield Office(broker, publisher, topic)
    await publisher.stop()


@pytest.mark.kafka
async def test_a_topic_is_read_whole_before_anybody_relies_on_it(office: Office) -> None:
    async with office.state() as first:
        for number in range(200):
            await first.write(f"k{number % 50}", b"%d" % number)
        await first.erase("k7")
        assert len(first.values) == 49
    heard: list[str] = []
    async with office.state(lambda key, value: heard.append(key)) as second:
        assert second.values == first.values
        assert second.values["k49"] == b"199"
        assert len(heard) == 201
        assert "k7" not in second.values


@pytest.mark.kafka
async def test_caught_up_sees_everything_that_was_acknowledged_before_the_call(office: Office) -> None:
    """D11: a Hold that the other lane wrote must be known before anything is opened."""
    async with office.state() as writer, office.state() as reader:
        for number in range(30):
            await writer.write("hold", b"%d" % number)
            await reader.caught_up()
            assert reader.values["hold"] == b"%d" % number


@pytest.mark.kafka
async def test_own_writes_never_go_back_while_echoes_arrive(office: Office) -> None:
    seen: list[int] = []
    async with office.state(lambda key, value: seen.append(int(value or b"-1"))) as state:
        for number in range(300):
            await state.write("k", b"%d" % number)
            assert state.values["k"] == b"%d" % number
        await state.caught_up()
    assert seen == sorted(set(seen)) == list(range(300))


@pytest.mark.kafka
async def test_a_follower_that_dies_is_a_fault_for_whoever_relies_on_it(office: Office) -> None:
    def broken(key: str, value: bytes | None) -> None:
        if value == b"poison":
            raise ValueError("bytes that are none of our words")

    async with office.state() as writer, office.state(broken) as reader:
        await writer.write("k", b"fine")
        await reader.caught_up()
        await writer.write("k", b"poison")
        with pytest.raises(FaultError, match=r"the follower of .*state died: ValueError"):
            await reader.caught_up()
        assert isinstance(reader.dead, ValueError)
        with pytest.raises(FaultError):
            await reader.caught_up()


@pytest.mark.kafka
async def test_a_broken_connection_is_tried_again_and_a_lost_log_is_not(office: Office) -> None:
    async with office.state() as state:
        errors: list[Exception] = [KafkaConnectionError(), KafkaConnectionError()]
        getmany = state._consumer.getmany

        async def failing(**options: Any) -> Any:
            if errors:
                raise errors.pop()
            return await getmany(**options)

        swap(state._consumer, "getmany", failing)
        await until(lambda: not errors)
        await state.write("k", b"v")
        await state.caught_up()
        assert state.dead is None
        errors.append(OffsetOutOfRangeError({}))
        await until(lambda: state.dead is not None)
        with pytest.raises(FaultError):
            await state.caught_up()


@pytest.mark.kafka
async def test_a_topic_that_cannot_be_read_to_its_end_in_time_is_a_fault(office: Office) -> None:
    async with office.state() as state:
        swap(state, "_reached", lambda ends: False)
        with pytest.raises(FaultError, match="could not be read to its end within 0 s"):
            await state.caught_up(timeout_s=0.2)


@pytest.mark.kafka
async def test_a_start_that_cannot_read_everything_is_no_start(office: Office) -> None:
    async with office.state() as writer:
        await writer.write("k", b"v")

    def broken(key: str, value: bytes | None) -> None:
        raise ValueError("damaged")

    follower = Follower(office.broker, office.topic, broken)
    with pytest.raises(FaultError, match="damaged"):
        await follower.start()
    await follower.stop()


# --- the log's own id -----------------------------------------------------------------------------------------------------------


@pytest.mark.kafka
async def test_the_incarnation_is_one_whoever_asks_first_and_for_ever(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """D9."""
    topic = Topic(kafka.name("incarnation"), "one key", FOREVER, "of a test", compacted=True)
    monkeypatch.setattr(topics, "INCARNATION", topic)
    broker = Broker(KafkaSettings(bootstrap=kafka.bootstrap, partitions=3))
    await broker._make_topics([topic])
    publishers = [Publisher(broker) for _ in range(4)]
    for publisher in publishers:
        await publisher.start()
    try:
        names = await asyncio.gather(*(incarnation(broker, publisher) for publisher in publishers))
        assert len(set(names)) == 1
        assert await incarnation(broker, publishers[0]) == names[0]
        async with Office(broker, publishers[0], topic).state() as state:
            assert state.values == {KEY.decode(): names[0].encode()}, "compaction keeps the answer that everybody was given"
    finally:
        for publisher in publishers:
            await publisher.stop()
    assert partition_of(KEY, 3) in range(3)


async def test_a_new_embedded_broker_is_another_incarnation() -> None:
    names = set()
    for _ in range(2):
        broker = Broker(KafkaSettings())
        await broker.start()
        publisher = Publisher(broker)
        await publisher.start()
        first = await incarnation(broker, publisher)
        assert await incarnation(broker, publisher) == first
        names.add(first)
        await publisher.stop()
        await broker.stop()
    assert len(names) == 2
