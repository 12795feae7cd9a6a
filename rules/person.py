"""Whom an event names (D2), as `model.event.people` says it, quick enough for every event: ids that were found safe once are remembered.

A test holds the two against each other. Rejected: changing the one in `model`, which is the plain statement of the rule.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from model.event import PersonRule, is_safe_id


@lru_cache(maxsize=65_536)
def _alone(who: str) -> tuple[str, ...]:
    """The one id as a tuple; empty where it is not safe."""
    return (who,) if is_safe_id(who) else ()


def people_of(event: dict[str, Any], how: PersonRule) -> tuple[str, ...]:
    """Ids of the persons that the event names under a person rule, in order, each once."""
    if how == "none":
        return ()
    if how != "actor":
        targets = event.get("target")
        if targets.__class__ is list:
            for one in targets:
                if one.__class__ is dict and one.get("type") == "User":
                    if found := _targeted(targets):
                        return found
                    break
        if how == "target":
            return ()
    actor = event.get("actor")
    if actor.__class__ is dict and actor.get("type") == "User" and (who := actor.get("id")).__class__ is str:
        return _alone(who)
    return ()


def _targeted(targets: list[Any]) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    for one in targets:
        if one.__class__ is dict and one.get("type") == "User" and (who := one.get("id")).__class__ is str and who not in found:
            found += _alone(who)
    return found
