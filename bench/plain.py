"""What a team writes without an engine: one Python function a rule, asked one after the other. Side by side with ours in `bench.classify`.

The functions are those of our single-event rules that need no state, written as rule authors write them (`deep_get`, early returns). And a
loop over pySigma's own parsed rules without an index, the least that somebody could do with the parser alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from sigma.conditions import ConditionAND, ConditionFieldEqualsValueExpression, ConditionNOT, ConditionOR, ConditionValueExpression
from sigma.rule import SigmaRule
from sigma.types import (
    SigmaBool,
    SigmaCIDRExpression,
    SigmaExists,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
)

Event = dict[str, Any]


def deep_get(event: Any, *keys: str) -> Any:
    """The value at a path of dicts, or None."""
    for key in keys:
        if not isinstance(event, dict):
            return None
        event = event.get(key)
    return event


def _targets(event: Event, kind: str) -> list[Event]:
    found = event.get("target")
    return [one for one in found if isinstance(one, dict) and one.get("type") == kind] if isinstance(found, list) else []


def _type_in(*types: str) -> Callable[[Event], bool]:
    return lambda event: event.get("eventType") in types


def _succeeded(*types: str) -> Callable[[Event], bool]:
    return lambda event: event.get("eventType") in types and deep_get(event, "outcome", "result") == "SUCCESS"


def _risk(event: Event) -> dict[str, str]:
    text = deep_get(event, "debugContext", "debugData", "risk")
    return dict(re.findall(r"(\w+)=([^,}]*)", text)) if isinstance(text, str) else {}


def _risk_high(event: Event) -> bool:
    if event.get("eventType") not in ("user.risk.detect", "user.risk.change"):
        return False
    risk = _risk(event)
    return risk.get("level") == "HIGH" and risk.get("previousLevel") != "HIGH"


def _hijacked(event: Event) -> bool:
    return event.get("eventType") == "user.risk.detect" and "hijack" in _risk(event).get("reasons", "").lower()


def _intelligence(event: Event) -> bool:
    return event.get("eventType") == "user.risk.detect" and _risk(event).get("detectionName") == "Okta Threat Intelligence"


def _ended_itself(event: Event) -> bool:
    if event.get("eventType") not in ("policy.entity_risk.action", "policy.auth_reevaluate.action", "user.authentication.universal_logout"):
        return False
    actions = [deep_get(one, "detailEntry", "ruleAction") for one in event.get("target") or []]
    return any(isinstance(one, str) and one.startswith("TERMINATE_") for one in actions)


def _fastpass(event: Event) -> bool:
    if event.get("eventType") != "user.authentication.auth_via_mfa" or deep_get(event, "outcome", "result") != "FAILURE":
        return False
    return bool(deep_get(event, "outcome", "reason") == "FastPass declined phishing attempt")


def _org2org(event: Event) -> bool:
    if not str(event.get("eventType")).startswith("application.lifecycle."):
        return False
    return any("Org2Org" in str(one.get("displayName")) for one in event.get("target") or [] if isinstance(one, dict))


def _weakened(event: Event) -> bool:
    if event.get("eventType") != "policy.rule.update" or deep_get(event, "outcome", "result") != "SUCCESS":
        return False
    return any("1FA" in str(deep_get(one, "changeDetails", "to")) for one in event.get("target") or [])


def _new_console(event: Event) -> bool:
    if event.get("eventType") != "policy.evaluate_sign_on":
        return False
    if not any(one.get("displayName") == "Okta Admin Console" for one in event.get("target") or [] if isinstance(one, dict)):
        return False
    behaviors = str(deep_get(event, "debugContext", "debugData", "behaviors"))
    return "New Device=POSITIVE" in behaviors and "New IP=POSITIVE" in behaviors


def _high_risk_allowed(event: Event) -> bool:
    if event.get("eventType") not in ("user.session.start", "policy.evaluate_sign_on"):
        return False
    return deep_get(event, "outcome", "result") in ("SUCCESS", "ALLOW") and _risk(event).get("level") == "HIGH"


def _reset_by_other(event: Event) -> bool:
    if event.get("eventType") not in ("user.mfa.factor.reset_all", "user.mfa.factor.deactivate", "user.account.reset_password"):
        return False
    return any(one.get("id") != deep_get(event, "actor", "id") for one in _targets(event, "User"))


_MAIL = re.compile(r"^[a-zA-Z0-9._%+'-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,24}$")


def _password_as_name(event: Event) -> bool:
    if event.get("eventType") != "user.session.start" or deep_get(event, "outcome", "result") != "FAILURE":
        return False
    name = deep_get(event, "actor", "alternateId")
    return isinstance(name, str) and not _MAIL.match(name) and not name.startswith("0oa") and name != "unknown"


FUNCTIONS: tuple[Callable[[Event], bool], ...] = (
    _risk_high,
    _hijacked,
    _intelligence,
    _ended_itself,
    _succeeded("security.breached_credential.detected"),
    _type_in("user.account.report_suspicious_activity_by_enduser"),
    _fastpass,
    _type_in("security.session.detect_client_roaming"),
    _succeeded("user.account.privilege.grant"),
    _succeeded("group.privilege.grant"),
    _type_in("user.session.impersonation.grant", "user.session.impersonation.initiate"),
    _succeeded("system.idp.lifecycle.create", "system.idp.lifecycle.update", "system.idp.lifecycle.activate"),
    _org2org,
    _type_in("system.agent.ad.create"),
    _weakened,
    lambda event: (
        event.get("eventType") == "application.lifecycle.update" and "Pushing user passwords" in str(deep_get(event, "outcome", "reason"))
    ),
    _type_in("user.mfa.attempt_bypass"),
    _succeeded("system.mfa.factor.deactivate", "security.authenticator.lifecycle.deactivate"),
    _type_in("security.protected_action.settings.update", "security.protected_action.attempt"),
    _succeeded(
        "system.log_stream.lifecycle.deactivate", "system.log_stream.lifecycle.delete", "event_hook.deactivated", "event_hook.deleted"
    ),
    _new_console,
    lambda event: event.get("eventType") == "user.session.start" and deep_get(event, "securityContext", "isProxy") is True,
    _high_risk_allowed,
    _type_in("security.threat.detected", "security.attack.start"),
    _succeeded("system.api_token.create"),
    _succeeded("iam.resourceset.bindings.add", "iam.role.permissions.add", "app.oauth2.client.privilege.grant"),
    _reset_by_other,
    _password_as_name,
    _succeeded(
        "policy.lifecycle.deactivate", "policy.rule.deactivate", "zone.deactivate", "zone.delete", "application.policy.sign_on.update"
    ),
    _type_in("application.user_membership.show_password", "app.oauth2.client.read_client_secret"),
    _type_in("app.oauth2.token.detect_reuse", "app.oauth2.as.token.detect_reuse"),
    lambda event: deep_get(event, "actor", "alternateId") == "system@okta.com" and deep_get(event, "transaction", "id") == "unknown",
)


def functions_loop(event: Event) -> int:
    """How many of the functions hold."""
    return sum(1 for function in FUNCTIONS if function(event))


# --- pySigma's trees, without an index ----------------------------------------------------------------------------------


def pysigma_loop(rules: list[SigmaRule]) -> Callable[[Event], int]:
    """Asks every rule of every event, walking the tree that pySigma made of its condition."""
    trees = [tree for rule in rules for one in rule.detection.parsed_condition if (tree := one.parsed) is not None]
    return lambda event: sum(1 for tree in trees if _holds(tree, event))


def _holds(node: Any, event: Event) -> bool:
    if isinstance(node, ConditionAND):
        return all(_holds(arg, event) for arg in node.args)
    if isinstance(node, ConditionOR):
        return any(_holds(arg, event) for arg in node.args)
    if isinstance(node, ConditionNOT):
        return not _holds(node.args[0], event)
    if isinstance(node, ConditionFieldEqualsValueExpression):
        return _matches(node.value, deep_get(event, *node.field.split(".")), event)
    assert isinstance(node, ConditionValueExpression)
    return str(node.value).lower() in str(event).lower()


def _matches(value: Any, given: Any, event: Event) -> bool:
    if isinstance(given, list):
        return any(_matches(value, one, event) for one in given)
    if isinstance(value, SigmaString):
        return given is not None and re.fullmatch(str(value.to_regex().regexp), str(given), re.IGNORECASE | re.DOTALL) is not None
    if isinstance(value, SigmaRegularExpression):
        return given is not None and re.search(value.regexp.to_plain_regex(), str(given)) is not None
    if isinstance(value, SigmaNull):
        return given is None
    if isinstance(value, SigmaExists):
        return (given is not None) is value.exists
    if isinstance(value, SigmaBool):
        return str(given).lower() == str(value.boolean).lower()
    if isinstance(value, SigmaNumber):
        return str(given) == str(value.number)
    if isinstance(value, SigmaFieldReference):
        return given is not None and given == deep_get(event, *value.field.split("."))
    if isinstance(value, SigmaCIDRExpression):
        try:
            return ipaddress.ip_address(str(given)) in value.network
        except ValueError:
            return False
    return False
