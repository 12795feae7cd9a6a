"""The ledger of offsets: what is committed is the end of the contiguous run of finished batches, and of nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from faust.types import TP, ConsumerMessage
from hypothesis import given
from hypothesis import strategies as st

from model.errors import FaultError
from stream.transport import Ledger

TP0, TP1 = TP("t", 0), TP("t", 1)


def message(tp: TP = TP0, last: int = 0) -> ConsumerMessage:
    value: Any = []
    return ConsumerMessage(tp.topic, tp.partition, last, 0.0, 0, None, None, value, None, 0, 0, tp, generation_id=1)


def admitted(ledger: Ledger, first: int, last: int, tp: TP = TP0) -> ConsumerMessage:
    one = message(tp, last)
    assert ledger.admit(tp, one, first, last) is None
    return one


def ledger_at(*positions: int) -> Ledger:
    ledger = Ledger()
    ledger.assign({TP("t", at): offset for at, offset in enumerate(positions)})
    return ledger


def test_nothing_is_committable_before_the_first_batch_is_done() -> None:
    ledger = ledger_at(10)
    first, second = admitted(ledger, 10, 14), admitted(ledger, 15, 15)
    assert ledger.committable(TP0) is None
    assert ledger.finish(second)
    assert ledger.committable(TP0) is None, "what came behind an unfinished batch was committed over it"
    assert ledger.finish(first)
    assert ledger.committable(TP0) == 16


def test_a_batch_stays_until_kafka_took_its_commit() -> None:
    ledger = ledger_at(0)
    ledger.finish(admitted(ledger, 0, 4))
    ledger.finish(admitted(ledger, 5, 9))
    assert ledger.unfinished() == 2
    assert list(ledger.waiting()) == [TP0]
    ledger.committed(TP0, 5)
    assert (ledger.unfinished(), ledger.committable(TP0)) == (1, 10)
    ledger.committed(TP0, 10)
    assert (ledger.unfinished(), list(ledger.waiting())) == (0, [])


def test_acks_count_only_for_the_very_message_of_this_assignment() -> None:
    """A message of an earlier assignment has the same coordinates; it says nothing about the work of this one."""
    ledger = ledger_at(0)
    old = admitted(ledger, 0, 4)
    ledger.assign({TP0: 0})
    new = admitted(ledger, 0, 4)
    assert not ledger.finish(old)
    assert ledger.committable(TP0) is None
    assert ledger.finish(new)
    assert not ledger.finish(new), "twice is once"
    assert ledger.committable(TP0) == 5


def test_partitions_are_counted_each_for_itself() -> None:
    ledger = ledger_at(0, 100)
    admitted(ledger, 0, 4)
    ledger.finish(admitted(ledger, 100, 104, TP1))
    assert ledger.committable(TP0) is None
    assert ledger.committable(TP1) == 105
    assert ledger.next_offsets() == {TP0: 5, TP1: 105}


def test_a_batch_that_does_not_begin_where_it_should_is_dropped_and_sought_again() -> None:
    """D13."""
    ledger = ledger_at(10)
    assert ledger.admit(TP0, message(), 12, 20) == 10
    assert ledger.unfinished() == 0
    admitted(ledger, 10, 11)
    assert ledger.admit(TP0, message(), 10, 11) == 12, "a repeat of what was read is refused as well"
    admitted(ledger, 12, 20)


@pytest.mark.parametrize("first", [9, 12])
def test_twice_in_a_row_is_a_fault_never_a_reset(first: int) -> None:
    """D8, D13."""
    ledger = ledger_at(10)
    assert ledger.admit(TP0, message(), first, 20) == 10
    with pytest.raises(FaultError, match=r"t\[0\] begins at \d+ where offset 10 was due"):
        ledger.admit(TP0, message(), first, 20)
    assert ledger.committable(TP0) is None


def test_what_is_withdrawn_is_not_begun_but_may_still_be_committed() -> None:
    """D12: between the revocation and the end of its work."""
    ledger = ledger_at(0, 0)
    done, begun = admitted(ledger, 0, 4), admitted(ledger, 5, 9)
    ledger.finish(done)
    assert ledger.holds(begun)
    ledger.withdraw([TP0])
    assert not ledger.holds(begun)
    assert not ledger.owns(TP0)
    assert ledger.partitions() == {TP1}
    late = message()
    assert ledger.admit(TP0, late, 10, 12) is None
    assert not ledger.holds(late)
    assert ledger.committable(TP0) == 5
    ledger.forget([TP0])
    assert ledger.committable(TP0) is None
    assert not ledger.finish(begun)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    acks=st.lists(st.integers(0, 30), max_size=40),
    start=st.integers(0, 10**12),
)
def test_whatever_is_acknowledged_in_whatever_order_the_commit_never_passes_unfinished_work(
    sizes: list[int], acks: list[int], start: int
) -> None:
    ledger = ledger_at(start)
    batches: list[tuple[int, int, ConsumerMessage]] = []
    at = start
    for size in sizes:
        batches.append((at, at + size - 1, admitted(ledger, at, at + size - 1)))
        at += size
    done: set[int] = set()
    committed = start
    for ack in acks:
        if ack < len(batches):
            assert ledger.finish(batches[ack][2]) == (ack not in done and batches[ack][1] >= committed)
            done.add(ack)
        else:
            assert not ledger.finish(message())
        unfinished = [first for number, (first, _, _) in enumerate(batches) if number not in done]
        edge = unfinished[0] if unfinished else at
        offset = ledger.committable(TP0)
        assert offset == (edge if edge > committed else None)
        if ack % 3 == 0 and offset is not None:
            ledger.committed(TP0, offset)
            committed = offset
    assert ledger.unfinished() == sum(last >= committed for _, last, _ in batches)


@given(steps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), max_size=30))
def test_what_is_admitted_has_no_gap_and_no_repeat(steps: list[tuple[int, int]]) -> None:
    ledger = ledger_at(20)
    expected = 20
    for first, size in steps:
        try:
            again = ledger.admit(TP0, message(), first, first + size - 1)
        except FaultError:
            return
        if again is None:
            assert first == expected
            expected += size
        else:
            assert again == expected
        assert ledger.next_offsets() == {TP0: expected}
