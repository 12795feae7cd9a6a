"""The page of reliability is what the tests show, and every fault has a test."""

from __future__ import annotations

import pytest

from tests.support import reliability
from tests.support.reliability import FAULTS, PROMISES, REQUIRED, ROOT, Promise


def test_the_page_is_current() -> None:
    assert reliability.PAGE.read_text(encoding="utf-8") == reliability.page(), "write it anew: python -m tests.support.reliability"


def test_every_fault_has_a_test_and_every_mark_a_fault() -> None:
    found = reliability.collect()
    assert [number for number in REQUIRED if number not in FAULTS or number not in found] == []
    assert set(found) <= set(FAULTS), "say in tests/support/reliability.py what that fault is and what must happen"


@pytest.mark.parametrize("promise", PROMISES, ids=lambda one: one.name)
def test_every_promise_is_kept_by_code_and_shown_by_tests(promise: Promise) -> None:
    assert promise.code
    assert promise.tests
    for reference in promise.code:
        reliability.resolve(reference)
    for test in promise.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), test
        assert not name or name in reliability.names(ROOT / path), test


def test_no_promise_is_missing() -> None:
    wanted = [*(f"S{n}" for n in range(1, 8)), *(f"P{n}" for n in range(1, 5)), *(f"E{n}" for n in range(1, 10))]
    assert [one.name for one in PROMISES] == wanted


@pytest.mark.parametrize("number", [number for number, one in FAULTS.items() if one.torture])
def test_what_torture_is_said_to_do_stands_there(number: int) -> None:
    reliability.resolve(FAULTS[number].torture)
