"""The plan: what a target says must change, in the order in which it is done, bound to the state it was computed from.

Pure. Closing stands before taking away, taking away before opening and giving (`model.change.STAGE`): a person in transit holds
too little for a second rather than too much. Rejected: letting each target order its own calls (two orders to prove, not one).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson

from model.change import IRREVERSIBLE, OPENING, REMOVING, Change, ChangeKind, Plan
from model.person import Account


def make_plan(tenant: str, person: str, target: str, changes: Iterable[Change], observed: Account | None) -> Plan:
    """Changes by stage, then by a key that no listing's order can move; an exact repeat of a change is dropped."""
    unique = {_key(change): change for change in changes}
    ordered = tuple(unique[key] for key in sorted(unique))
    return Plan(tenant=tenant, person=person, target=target, changes=ordered, observed=fingerprint(observed))


def fingerprint(account: Account | None) -> str:
    """A hash of what a look saw; the order of grants does not count. No account has a fingerprint too."""
    if account is None:
        return hashlib.sha256(b"none").hexdigest()[:32]
    seen = account.model_dump(mode="json")
    seen["grants"] = sorted(seen["grants"], key=_canonical)
    return hashlib.sha256(_canonical(seen)).hexdigest()[:32]


def without(plan: Plan, kinds: frozenset[ChangeKind]) -> Plan:
    return plan.model_copy(update={"changes": tuple(change for change in plan.changes if change.kind not in kinds)})


def opens(plan: Plan) -> bool:
    return any(change.kind in OPENING for change in plan.changes)


def removes(plan: Plan) -> bool:
    return any(change.kind in REMOVING for change in plan.changes)


#: What a Hold forbids (D18).
FORBIDDEN_UNDER_HOLD = OPENING | IRREVERSIBLE


def _key(change: Change) -> tuple[int, str, str, str, bytes]:
    return (change.stage, change.kind.value, change.subject, change.account, _canonical(change.model_dump(mode="json")))


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
