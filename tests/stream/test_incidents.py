"""An incident says `contained` only when nothing is open at any target it ever spoke of."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.containment import TargetResult
from model.records import IncidentChanged, IncidentState
from stream.incidents import next_incident
from tests.handlers.fakes import NOON
from tests.stream.fakes import make_order


def after(state: IncidentState, *results: TargetResult, before: IncidentChanged | None = None, left: Any = ()) -> IncidentChanged:
    return next_incident(make_order(), "i-1", state, results, before, NOON, left)


def test_a_retry_that_ends_well_does_not_speak_for_a_target_that_refused() -> None:
    """An administrator: a human must suspend. Box, which failed for a moment, is closed by its retry."""
    first = after("partial", TargetResult("okta", "refused", code="privileged"), TargetResult("box", "failed", retry=True))
    assert after("contained", TargetResult("box", "closed"), before=first).state == "partial"


def test_a_retry_that_closes_the_last_makes_it_contained() -> None:
    first = after("partial", TargetResult("okta", "closed", answered=NOON), TargetResult("box", "failed", retry=True))
    last = after("partial", TargetResult("box", "closed", answered=NOON), before=first)
    assert (last.state, last.contained) == ("contained", NOON)


@pytest.mark.parametrize(("left", "state"), [((), "contained"), (("box",), "partial"), (("okta",), "contained")])
def test_what_another_order_has_left_open_stays_told(left: tuple[str, ...], state: str) -> None:
    first = after("partial", TargetResult("okta", "closed"), TargetResult("box", "failed", retry=True))
    assert after("contained", TargetResult("box", "closed"), before=first, left=left).state == state


def test_what_goes_wrong_now_is_told_whatever_is_left() -> None:
    first = after("contained", TargetResult("box", "closed"))
    assert after("partial", TargetResult("box", "failed"), before=first, left=("box",)).targets["box"]["state"] == "failed"


def test_a_dry_run_contains_nobody() -> None:
    assert after("contained", TargetResult("box", "planned")).state == "open"


def test_without_targets_the_containments_own_word_stands() -> None:
    assert after("partial").state == "partial"
    assert after("contained").state == "contained"
