"""Two other Python libraries that match Sigma rules on events, measured in a process of their own. Run by `bench.classify`:

    PYTHON bench/peers.py NAME RULES.yml EVENTS.jsonl SECONDS

It imports nothing of ours: sigma-rule-matcher wants pySigma 1, so the peers live in an environment of their own (`python -m venv V;
V/bin/pip install azuma sigma-rule-matcher orjson`). The last line is one JSON object. A rule that a peer cannot load, or that raises on the
events, is counted and left out, so that what is measured is what works.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys: azuma looks fields up in one flat dict."""
    found: dict[str, Any] = {}
    for key, one in value.items():
        name = f"{prefix}{key}"
        if isinstance(one, dict):
            found.update(flat(one, name + "."))
        else:
            found[name] = one
    return found


def azuma(documents: list[dict[str, Any]]) -> tuple[list[Any], Any]:
    rule = import_module("azuma").Rule

    rules = []
    for document in documents:
        try:
            rules.append(rule.model_validate(json.loads(json.dumps(document, default=str))).match)
        except Exception:  # a peer may raise what it likes
            continue
    return rules, flat


def sigma_rule_matcher(documents: list[dict[str, Any]]) -> tuple[list[Any], Any]:
    matcher, sigma_rule = import_module("sigma_rule_matcher").RuleMatcher, import_module("sigma.rule").SigmaRule

    rules = []
    for document in documents:
        try:
            rules.append(matcher(sigma_rule.from_dict(json.loads(json.dumps(document, default=str)))).match)
        except Exception:  # a peer may raise what it likes
            continue
    return rules, lambda event: event


def usable(rules: list[Any], events: list[Any]) -> list[Any]:
    """The rules that raise on none of the events."""
    good = []
    for rule in rules:
        try:
            for event in events:
                rule(event)
        except Exception:  # a peer may raise what it likes
            continue
        good.append(rule)
    return good


def main(name: str, rule_file: str, event_file: str, seconds: float) -> None:
    import orjson

    documents = [one for one in yaml.safe_load_all(Path(rule_file).read_text(encoding="utf-8")) if one]
    lines = Path(event_file).read_bytes().splitlines()
    rules, shape = {"azuma": azuma, "sigma-rule-matcher": sigma_rule_matcher}[name](documents)
    loaded = len(rules)
    rules = usable(rules, [shape(orjson.loads(line)) for line in lines[:2000]])
    matched = count = 0
    began = time.process_time()
    while (spent := time.process_time() - began) < seconds:
        for line in lines[count % len(lines) : count % len(lines) + 100]:
            event = shape(orjson.loads(line))
            matched += sum(1 for rule in rules if rule(event))
            count += 1
    print(
        json.dumps(
            {
                "events_per_cpu_s": round(count / spent, 1),
                "rules": len(documents),
                "loaded": loaded,
                "usable": len(rules),
                "matched": matched,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
