"""Whom an event names (D2), as `model.event.people` says it, quick enough for every event: ids that were found safe once are remembered.

A test holds the two against each other. Rejected: changing the one in `model`, which is the plain statement of the rule.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from model.event import PersonRule, is_safe_id

_is_safe = lru_cache(maxsize=65_536)(is_safe_id)


def people_of(event: dict[str, Any], how: PersonRule) -> tuple[str, ...]:
    """Ids of the persons that the event names under a person rule, in order, each once."""
    if how == "none":
        return ()
    found: tuple[str, ...] = ()
    if how != "actor":
        targets = event.get("target")
        if targets.__class__ is list:
            for one in targets:
                if one.__class__ is dict and one.get("type") == "User":
                    who = one.get("id")
                    if who.__class__ is str and who not in found and _is_safe(who):
                        found = (*found, who)
        if found or how == "target":
            return found
    actor = event.get("actor")
    if actor.__class__ is dict and actor.get("type") == "User":
        who = actor.get("id")
        if who.__class__ is str and _is_safe(who):
            return (who,)
    return ()
