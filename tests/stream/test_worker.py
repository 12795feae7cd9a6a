"""Batches on a real Kafka: nothing lost, nothing handled by two at once, nothing committed before it is done (P1, P2, P4, D12, D13)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import CommitFailedError, GroupAuthorizationFailedError, KafkaConnectionError
from aiokafka.structs import TopicPartition
from faust.types import TP

from model.errors import FaultError, Fenced
from stream.transport import FETCH_MAX_WAIT_MS
from stream.worker import Watchdog, Worker
from tests.handlers.fakes import swap
from tests.stream.stations import Floor, Site, Station, by_key, until
from tests.support.kafka_fixtures import Kafka

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.worker.GRACE_S", 0.5)


async def pause(key: bytes, value: bytes) -> None:
    await asyncio.sleep(0.03)


# --- nothing lost -----------------------------------------------------------------------------------------------------------


async def test_everything_is_handled_in_each_keys_order_and_a_restart_goes_on_exactly(kafka: Kafka) -> None:
    site, floor = await Site(kafka).open(), Floor()
    first = await site.spread(keys=10, each=20)
    async with site.working(Station("a", floor)) as worker:
        await until(lambda: len(floor.done) == len(first))
        await until(lambda: site.lagging(worker))  # wait for a number, whatever it is
    assert await site.total_committed() == len(first), "a graceful stop commits what is done"
    second = [(key, value + b"+") for key, value in first]
    await site.produce(*second)
    async with site.working(Station("b", floor)):
        await until(lambda: len(floor.done) >= 2 * len(first))
    assert len(floor.done) == 2 * len(first), "nothing is handled again after a graceful stop"
    for key, values in by_key(first + second).items():
        assert floor.first_times(key) == values
    assert floor.overlaps == []


@pytest.mark.fault(29)
async def test_work_that_raises_is_not_acknowledged_ends_the_worker_and_is_done_by_the_next(kafka: Kafka) -> None:
    """The same scenario loses its event on stock Faust: tests/stream/test_stock_faust.py."""
    site, floor = await Site(kafka).open(), Floor()
    records = await site.spread(keys=5, each=10)
    failing = {records[7][1], records[23][1]}

    async def once(key: bytes, value: bytes) -> None:
        if value in failing:
            failing.discard(value)
            raise ValueError("a handler that raises")

    faults = 0
    while set(floor.values) != {value for _, value in records} and faults < 10:
        async with site.working(Station("a", floor, once)) as worker:
            ended = asyncio.create_task(worker.failed())
            await until(lambda: ended.done() or set(floor.values) == {value for _, value in records})  # noqa: B023
            if ended.done():
                faults += 1
                with pytest.raises(FaultError, match="a handler that raises"):
                    ended.result()
            else:
                ended.cancel()
    assert faults >= 1
    assert {value for _, value in records} == set(floor.values)
    assert await site.total_committed() == len(records)


@pytest.mark.fault(30)
async def test_a_commit_never_passes_work_that_hangs(kafka: Kafka) -> None:
    site, floor, gate = await Site(kafka, partitions=1).open(), Floor(), asyncio.Event()

    async def hang(key: bytes, value: bytes) -> None:
        if value == b"first":
            await gate.wait()

    async with site.working(Station("a", floor, hang)) as worker:
        await site.produce((b"a", b"first"))
        await until(lambda: floor.busy)
        await site.produce(*((b"b", b"%d" % number) for number in range(50)))
        await until(lambda: len(floor.done) == 50)
        await asyncio.sleep(1.2)
        assert await site.committed() == {0: None}
        assert await worker.lag() >= 1
        gate.set()
        await until(lambda: site.total_committed())
        assert await site.committed() == {0: 51}
        await until(lambda: _is_idle(worker))


async def _is_idle(worker: Worker) -> bool:
    return await worker.lag() == 0


@pytest.mark.fault(31)
async def test_two_workers_and_rebalances_mid_flight_lose_nothing_and_never_meet_at_a_key(kafka: Kafka) -> None:
    site, floor = await Site(kafka).open(), Floor()
    sent: list[tuple[bytes, bytes]] = []
    going = True

    async def stream() -> None:
        while going:
            wave = [(b"key%d" % key, b"key%d:%05d" % (key, len(sent))) for key in range(12)]
            await site.produce(*wave)
            sent.extend(wave)
            await asyncio.sleep(0.02)

    async with site.working(Station("a", floor, pause)) as first:
        await until(lambda: first.owned == {0, 1, 2, 3})
        producing = asyncio.create_task(stream())
        await until(lambda: len(floor.done) > 20)
        async with site.working(Station("b", floor, pause)) as second:
            await until(lambda: len(first.owned) == len(second.owned) == 2)
            await until(lambda: {name for name, _ in floor.begun} == {"a", "b"})
        await until(lambda: first.owned == {0, 1, 2, 3})
        going = False
        await producing
        await until(lambda: set(floor.values) == {value for _, value in sent})
        await until(lambda: _is_idle(first))
    assert floor.overlaps == []
    for key, values in by_key(sent).items():
        assert floor.first_times(key) == values
    assert await site.total_committed() == len(sent)


async def test_a_rebalance_without_work_in_hand_repeats_nothing(kafka: Kafka) -> None:
    """What is finished is committed before the partition goes, so a scale-out costs no repeats."""
    site, floor = await Site(kafka).open(), Floor()
    async with site.working(Station("a", floor)), contextlib.AsyncExitStack() as second:
        for wave in range(8):
            await site.produce(*((b"key%d" % key, b"%d.%d" % (wave, key)) for key in range(8)))
            await until(lambda: len(floor.done) >= 8 * (wave + 1))  # noqa: B023
            if wave == 2:
                await second.enter_async_context(site.working(Station("b", floor)))
            if wave == 5:
                await second.aclose()
    assert len(floor.values) == len(set(floor.values)) == 64


async def test_a_member_for_whom_no_partition_is_left_lags_nothing(kafka: Kafka) -> None:
    site, floor = await Site(kafka, partitions=1).open(), Floor()
    await site.produce((b"key", b"value"))
    async with site.working(Station("a", floor)) as first, site.working(Station("b", floor)) as second:
        await until(lambda: len(first.owned) + len(second.owned) == 1)
        idle = second if first.owned else first
        await until(lambda: idle.consumer.settled)
        assert await idle.lag() == 0
        await until(lambda: floor.done)


async def test_a_revocation_cancels_the_work_in_hand_and_waits_for_its_end(kafka: Kafka) -> None:
    """D12: the next owner begins when the last has let go, however long that takes."""
    site, floor = await Site(kafka).open(), Floor()
    ended: list[float] = []

    async def stubborn(key: bytes, value: bytes) -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
            ended.append(time.monotonic())
            raise

    begun: list[float] = []

    async def quick(key: bytes, value: bytes) -> None:
        begun.append(time.monotonic())

    await site.produce(*((b"key%d" % key, b"%d" % key) for key in range(16)))
    slow = Station("a", floor, stubborn)
    async with site.working(slow) as first:
        await until(lambda: len(floor.busy) == 16)
        async with site.working(Station("b", floor, quick)) as second:
            await until(lambda: len(second.owned) == 2)
            await until(lambda: begun)
            await until(lambda: len(first.owned) == 2)
            assert len(floor.cancelled) == 16
            assert [len(tps) for tps in slow.revocations if tps] == [4]
            assert max(ended) <= min(begun)
            gone = next(number for number in range(100) if not first.owns("t", f"p{number}"))
            with pytest.raises(Fenced, match="not ours any more"):
                first.check("t", f"p{gone}")
            second.check("t", f"p{gone}")
        slow.work = quick
    assert floor.overlaps == []


async def test_a_batch_that_is_being_handed_over_while_its_partition_goes_is_not_worked_on(kafka: Kafka) -> None:
    site, floor, gate = await Site(kafka).open(), Floor(), asyncio.Event()

    class Slow(Station):
        async def begin(self, tp, records):  # type: ignore[no-untyped-def]
            await gate.wait()
            return await super().begin(tp, records)

    async def never(key: bytes, value: bytes) -> None:
        await asyncio.sleep(600)

    await site.produce(*((b"key%d" % key, b"%d" % key) for key in range(16)))
    slow = Slow("a", floor, never)
    async with site.working(slow) as first:
        await until(lambda: first.owned == {0, 1, 2, 3})
        await asyncio.sleep(0.5)
        async with site.working(Station("b", floor)) as second:
            await until(lambda: len(second.owned) == 2)
            gate.set()
            await asyncio.sleep(0.5)
            mine = {value for name, value in floor.begun if name == "a"}
            theirs = {value for name, value in floor.begun if name == "b"}
            assert not mine & theirs
            assert theirs
        await until(lambda: first.owned == {0, 1, 2, 3})


async def test_nothing_that_waits_in_a_buffer_is_begun_once_its_partition_goes(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slots that cancelled work lets go of are not for what stands behind it."""
    monkeypatch.setattr("stream.worker.IN_FLIGHT", 1)
    site, floor = await Site(kafka).open(), Floor()
    begun: list[int] = []

    class Leaving(Station):
        async def revoked(self, partitions: set[TP]) -> None:
            await asyncio.sleep(0.3)
            if partitions:
                begun.append(len(self.batches))

    async def never(key: bytes, value: bytes) -> None:
        await asyncio.sleep(600)

    await site.produce(*((b"key%d" % key, b"%d" % key) for key in range(16)))
    leaving = Leaving("a", floor, never)
    async with site.working(leaving) as first:
        await until(lambda: leaving.batches and first.consumer.ledger.unfinished() == 4)
        async with site.working(Station("b", floor)) as second:
            await until(lambda: len(second.owned) == 2)
            assert begun[0] == 1
        await until(lambda: first.owned == {0, 1, 2, 3})


# --- bounds, watchdogs, endings -----------------------------------------------------------------------------------------------------


async def test_no_more_batches_are_begun_than_may_be_in_flight(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.worker.IN_FLIGHT", 2)
    site, floor, gate = await Site(kafka).open(), Floor(), asyncio.Event()

    async def hang(key: bytes, value: bytes) -> None:
        await gate.wait()

    station = Station("a", floor, hang)
    async with site.working(station):
        for wave in range(4):
            await site.produce(*((b"key%d" % key, b"%d.%d" % (wave, key)) for key in range(16)))
            await asyncio.sleep(0.3)
        assert len(station.batches) == 2
        gate.set()
        await until(lambda: len(floor.done) == 64)


async def test_a_partition_that_stands_still_ends_the_worker(kafka: Kafka) -> None:
    """P4: although the others go on."""
    site, floor = await Site(kafka).open(), Floor()

    async def hang(key: bytes, value: bytes) -> None:
        if value == b"hangs":
            await asyncio.sleep(600)

    async with site.working(Station("a", floor, hang), stalled_s=2.0) as worker:
        await site.produce((b"key0", b"hangs"))
        failed = asyncio.create_task(worker.failed())
        for number in range(200):
            await site.produce(*((b"key%d" % key, b"%d.%d" % (number, key)) for key in range(1, 8)))
            if failed.done():
                break
            await asyncio.sleep(0.05)
        with pytest.raises(FaultError, match="made no progress for 2 s"):
            await asyncio.wait_for(failed, 5)


async def test_a_group_that_does_not_answer_any_more_ends_the_worker_that_has_nothing_to_do(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: a member that lost its group without a word would sleep on, and nobody would know."""
    site = await Site(kafka).open()
    async with site.working(Station("a", Floor()), stalled_s=1.0) as worker:
        monkeypatch.setattr(worker, "_membership", Watchdog(4.0))
        await until(lambda: len(worker.owned) == 4)
        with pytest.raises(TimeoutError):  # while it is answered, nothing is wrong
            await asyncio.wait_for(worker.failed(), 6)

        async def deaf() -> bool:
            await asyncio.sleep(600)
            return False

        monkeypatch.setattr(coordinator(worker), "_do_heartbeat", deaf)
        with pytest.raises(FaultError, match=r"the membership in .* made no progress for 4 s"):
            await asyncio.wait_for(worker.failed(), 15)


async def test_a_group_that_refuses_the_worker_ends_it(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    site = await Site(kafka).open()
    async with site.working(Station("a", Floor())) as worker:
        await until(lambda: len(worker.owned) == 4)

        async def refused() -> bool:
            raise GroupAuthorizationFailedError(site.group)

        monkeypatch.setattr(coordinator(worker), "_do_heartbeat", refused)
        with pytest.raises(FaultError, match="Faust crashed: GroupAuthorizationFailedError"):
            await asyncio.wait_for(worker.failed(), 10)


@pytest.mark.fault(32)
async def test_a_leader_that_knew_no_partitions_gives_them_out_as_soon_as_it_does(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut at the wrong moment: the group is joined, the metadata is not there. Left to aiokafka, nobody reads for five minutes."""
    site, floor, is_cut = await Site(kafka).open(), Floor(), True
    known = ClusterMetadata.partitions_for_topic

    def cut(cluster: ClusterMetadata, topic: str) -> Any:
        return None if is_cut and threading.current_thread() is not threading.main_thread() else known(cluster, topic)

    monkeypatch.setattr(ClusterMetadata, "partitions_for_topic", cut)
    async with site.working(Station("a", floor)) as worker:
        await until(lambda: worker.consumer.settled)
        await site.spread(keys=2, each=2)
        assert (worker.owned, floor.done) == (set(), [])
        is_cut = False
        await until(lambda: len(floor.done) == 4)


def coordinator(worker: Worker) -> Any:
    return worker.consumer._thread._ensure_consumer()._coordinator


async def test_an_idle_worker_is_no_stalled_worker(kafka: Kafka) -> None:
    site = await Site(kafka).open()
    await site.spread(keys=3, each=3)
    async with site.working(Station("a", Floor()), stalled_s=0.8) as worker:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.failed(), 2.5)


@pytest.mark.fault(33)
async def test_a_stop_waits_a_little_for_work_in_hand_and_delivers_the_rest_again(kafka: Kafka) -> None:
    site, floor = await Site(kafka).open(), Floor()

    async def some(key: bytes, value: bytes) -> None:
        await asyncio.sleep(0.2 if key in (b"key0", b"key1") else 600)

    await site.produce(*((b"key%d" % key, b"%d" % key) for key in range(10)))
    worker = site.worker(Station("a", floor, some))
    await worker.start()
    await until(lambda: len(floor.busy) == 10)
    began = time.monotonic()
    await worker.stop()
    assert time.monotonic() - began < 8
    assert sorted(floor.values) == [b"0", b"1"]
    assert len(floor.cancelled) == 8
    async with site.working(Station("b", floor)):
        await until(lambda: len(set(floor.values)) == 10)


async def test_an_error_in_taking_over_an_assignment_ends_the_worker(kafka: Kafka) -> None:
    """What the lanes' state cannot be read, must not be worked on."""

    class Broken(Station):
        async def assigned(self, partitions: object) -> None:
            raise FaultError("the Holds cannot be read")

    site, floor = await Site(kafka).open(), Floor()
    await site.spread(keys=2, each=2)
    worker = site.worker(Broken("a", floor))
    with contextlib.suppress(Exception):
        await worker.start()
    with pytest.raises(FaultError, match="the Holds cannot be read"):
        await asyncio.wait_for(worker.failed(), 10)
    assert floor.begun == []
    await worker.stop()


# --- the broker ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(32)
async def test_a_commit_that_fails_is_tried_again_and_crashes_nothing(kafka: Kafka) -> None:
    site, floor = await Site(kafka).open(), Floor()
    async with site.working(Station("a", floor)) as worker:
        await until(lambda: worker.owned)
        consumer = worker.consumer._thread._ensure_consumer()
        commit, errors = consumer.commit, [CommitFailedError(), KafkaConnectionError(), KafkaConnectionError()]

        async def failing(offsets: object) -> None:
            if errors:
                raise errors.pop()
            await commit(offsets)

        swap(consumer, "commit", failing)
        records = await site.spread(keys=3, each=5)
        await until(lambda: len(floor.done) == len(records))
        await until(lambda: not errors)
        await until(lambda: _is_idle(worker))
        assert await site.total_committed() == len(records)
        assert worker._app.crash_reason is None


async def test_records_that_were_removed_before_they_were_read_are_a_fault_never_a_reset(kafka: Kafka) -> None:
    """D8."""
    site, floor = await Site(kafka, partitions=1).open(), Floor()
    await site.produce(*((b"a", b"%d" % number) for number in range(5)))
    async with site.working(Station("a", floor)):
        await until(lambda: len(floor.done) == 5)
    await site.produce(*((b"a", b"%d" % number) for number in range(5, 20)))
    admin = AIOKafkaAdminClient(bootstrap_servers=site.broker.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(site.name, 0): RecordsToDelete(before_offset=12)})
    await admin.close()
    async with site.working(Station("b", floor)) as worker:
        with pytest.raises(FaultError, match=r"begins at 12 where offset 5 was due"):
            await asyncio.wait_for(worker.failed(), 20)
    assert len(floor.done) == 5
    assert await site.committed() == {0: 5}


async def test_a_worker_owns_the_same_partitions_of_all_its_topics(kafka: Kafka) -> None:
    """Else a person's orders and the commands about them would meet at two workers."""
    site, floor = await Site(kafka, "work", "commands").open(), Floor()
    one, two = Station("a", floor), Station("b", floor)
    async with site.working(one) as first, site.working(two) as second:
        await until(lambda: len(first.owned) == len(second.owned) == 2)
        for worker in (first, second):
            numbers = [{tp.partition for tp in worker.consumer.ledger.partitions() if tp.topic == topic.name} for topic in site.topics]
            assert numbers[0] == numbers[1] == worker.owned
        assert first.owned | second.owned == {0, 1, 2, 3}
        for topic in site.topics:
            await site.produce((b"t:person", b"x"), topic=topic.name)
        await until(lambda: len(floor.done) == 2)
        assert len({name for name, _ in floor.begun}) == 1


async def test_idle_partitions_do_not_delay_a_busy_one(kafka: Kafka) -> None:
    """Faust's hard-coded 1,500 ms would."""
    site, floor = await Site(kafka).open(), Floor()
    async with site.working(Station("a", floor)) as worker:
        await until(lambda: worker.owned == {0, 1, 2, 3})
        assert worker.consumer._thread._ensure_consumer()._fetcher._fetch_max_wait_ms == FETCH_MAX_WAIT_MS
        waits = []
        for number in range(10):
            await asyncio.sleep(0.05)
            began = time.monotonic()
            await site.produce((b"one-key", b"%d" % number))
            await until(lambda: len(floor.done) > number)  # noqa: B023
            waits.append(time.monotonic() - began)
        assert sorted(waits)[len(waits) // 2] < 0.5


async def test_one_poll_of_a_partition_is_one_event(kafka: Kafka) -> None:
    site, floor = await Site(kafka, partitions=1).open(), Floor()
    await site.produce(*((b"a", b"%d" % number) for number in range(900)))
    station = Station("a", floor)
    async with site.working(station):
        await until(lambda: len(floor.done) == 900)
    assert max(count for _, count in station.batches) >= 100
    assert len(station.batches) <= 9
