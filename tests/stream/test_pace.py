"""How fast the log is asked: by the vendor's headers and the vendor's clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.okta.api import LogPage
from stream.pace import BLIND_S, LONGEST_S, Pace

DATE = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
NOW = int(DATE.timestamp())


def pace(jitter: float = 1.0, share: float = 0.9) -> Pace:
    return Pace(interval_s=2.0, share=share, jitter=lambda: jitter)


def page(status: int = 200, **facts: Any) -> LogPage:
    return LogPage(status, date=DATE, **facts)


def test_behind_it_asks_at_once_and_caught_up_once_an_interval() -> None:
    plenty = page(limit=120, remaining=100, reset=NOW + 30)
    assert pace().after_page(plenty, full=True) == 0.0
    assert pace().after_page(plenty, full=False) == 2.0


def test_beyond_our_share_it_waits_for_the_reset_by_the_vendors_clock() -> None:
    spent = page(limit=120, remaining=11, reset=NOW + 30)
    assert pace().after_page(spent, full=True) == pytest.approx(30, abs=0.1)
    assert pace().after_page(page(limit=120, remaining=13, reset=NOW + 30), full=True) == 0.0
    assert pace(share=0.5).after_page(page(limit=120, remaining=60, reset=NOW + 30), full=True) == pytest.approx(30, abs=0.1)


@pytest.mark.fault(8)
def test_without_rate_headers_it_is_conservative() -> None:
    assert pace().after_page(page(), full=True) == BLIND_S
    assert pace().after_page(page(), full=False) >= BLIND_S


@pytest.mark.fault(6)
def test_a_429_whose_reset_has_passed_means_now_with_jitter() -> None:
    for answer in (page(429, limit=120, remaining=0, reset=NOW - 3600), page(429, limit=120, remaining=0, retry_after=0.0)):
        assert pace(jitter=0.0).after_refusal(answer) < 0.1
        assert 0.5 <= pace(jitter=0.5).after_refusal(answer) < 0.6


def test_a_429_waits_as_long_as_it_says_but_never_for_ever() -> None:
    assert pace(jitter=0.0).after_refusal(page(429, limit=120, remaining=0, retry_after=17.0)) == 17.0
    assert pace(jitter=0.0).after_refusal(page(429, limit=120, remaining=0, retry_after=300.0)) == LONGEST_S


@pytest.mark.fault(7)
def test_a_concurrency_429_is_a_short_bounded_backoff_whatever_its_reset_says() -> None:
    one = pace()
    crowded = page(429, limit=0, remaining=0, reset=NOW + 3600, retry_after=300.0)
    waits = [one.after_refusal(crowded) for _ in range(12)]
    assert waits == sorted(waits)
    assert waits[0] == 1.0
    assert waits[-1] == 10.0


def test_failures_back_off_to_a_longest_and_a_good_page_ends_that() -> None:
    one = pace()
    waits = [one.after_failure() for _ in range(12)]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_S
    one.after_page(page(limit=120, remaining=100, reset=NOW), full=False)
    assert one.after_failure() == 1.0


@given(
    limit=st.none() | st.integers(-5, 10**6),
    remaining=st.none() | st.integers(-5, 10**6),
    reset=st.none() | st.integers(-(10**12), 10**12),
    retry_after=st.none() | st.floats(0, 300),
    full=st.booleans(),
    failures=st.integers(0, 10**6),
)
def test_whatever_the_headers_say_every_wait_is_finite_and_not_negative(
    limit: int | None, remaining: int | None, reset: int | None, retry_after: float | None, full: bool, failures: int
) -> None:
    one = pace()
    answer = page(limit=limit, remaining=remaining, reset=reset, retry_after=retry_after)
    for wait in (one.after_page(answer, full), one.after_refusal(answer), one.after_failure()):
        assert 0.0 <= wait <= LONGEST_S + 1
    one.failures = failures
    assert one.after_failure() <= LONGEST_S
