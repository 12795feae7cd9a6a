"""A plan's hash is what an approval binds to: the same plan has the same hash anywhere, another plan another."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.change import Change, ChangeKind, Plan

PLAN = Plan(
    tenant="acme",
    person="00uA",
    target="box",
    changes=(
        Change(kind=ChangeKind.REVOKE, target="box", account="11", subject="folder Finance", args={"id": "c1", "at": 1}),
        Change(kind=ChangeKind.GRANT, target="box", account="11", subject="folder Sales", args={"role": "editor"}, after={"x": None}),
    ),
    observed="before",
)


def test_a_hash_is_the_same_in_another_process() -> None:
    code = f"from model.change import *; from model.person import *; print(Plan.from_bytes({PLAN.to_bytes()!r}).hash)"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == PLAN.hash


@given(st.dictionaries(st.text(max_size=5), st.integers(-(2**50), 2**50) | st.text(max_size=5) | st.none(), max_size=5), st.randoms())
def test_the_order_of_keys_is_no_part_of_a_plan(args: dict[str, Any], random: Any) -> None:
    items = list(args.items())
    random.shuffle(items)
    assert _with(args=args).hash == _with(args=dict(items)).hash


@pytest.mark.parametrize(
    "other",
    [
        PLAN.model_copy(update={"tenant": "other"}),
        PLAN.model_copy(update={"person": "00uB"}),
        PLAN.model_copy(update={"target": "box-us"}),
        PLAN.model_copy(update={"observed": "after"}),
        PLAN.model_copy(update={"changes": PLAN.changes[::-1]}),
        PLAN.model_copy(update={"changes": PLAN.changes[:1]}),
        PLAN.model_copy(update={"changes": ()}),
    ],
    ids=["tenant", "person", "target", "observed", "order", "fewer", "none"],
)
def test_another_plan_has_another_hash(other: Plan) -> None:
    assert other.hash != PLAN.hash


@pytest.mark.parametrize("field", ["account", "subject", "args", "before", "after", "kind", "target"])
def test_every_part_of_a_change_counts(field: str) -> None:
    values = {"kind": ChangeKind.DELETE, "args": {"a": 1}, "before": {"a": 1}, "after": {"a": 1}}
    assert _with(**{field: values.get(field, "other")}).hash != _with().hash


def test_text_and_number_are_not_the_same() -> None:
    assert _with(args={"id": 1}).hash != _with(args={"id": "1"}).hash


def _with(**fields: Any) -> Plan:
    change = Change(kind=ChangeKind.UPDATE, target="box").model_copy(update=fields)
    return Plan(tenant="acme", person="00uA", target="box", changes=(change,))
