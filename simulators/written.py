"""The configuration that lets Portcullis run against the simulators: `portcullis simulate --write-config FILE`.

Secrets lie beside it in files of their own (0600). The file itself appears last and at once, because its appearance tells whoever waits
for it that every port listens. Delays are short, so that a day can be watched; the brakes' percentages are wide, because the
company of the scenario is so small that one person is a fifth of a department; their counts are the defaults.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model import settings
from model.errors import ConfigurationError
from model.settings import TargetSettings
from simulators.okta.buckets import LOGS_A_MINUTE


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    url: str
    token: str
    #: (Okta id, reason) of those whom nothing may touch.
    protected: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"Tenant(name={self.name!r}, url={self.url!r})"


@dataclass(frozen=True, slots=True)
class Scene:
    """What the configuration has to name. `rate` is the log's bucket a minute, `calls_a_minute` what Box allows."""

    tenants: tuple[Tenant, ...]
    box_url: str
    box_client: str
    box_secret: str
    enterprise: str
    slack_url: str
    slack_token: str
    channel: str
    rate: int
    calls_a_minute: int

    def __repr__(self) -> str:
        return f"Scene(tenants={self.tenants!r}, box_url={self.box_url!r}, slack_url={self.slack_url!r})"


def write(path: Path, scene: Scene) -> None:
    """Writes secrets, the protected list, and then the configuration, which loads. Raises ConfigurationError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for name, secret in _secrets(scene).items():
            _write_private(path.parent / name, secret + "\n")
        _replace(path.parent / "protected.toml", _protected(scene.tenants))
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(_text(scene), encoding="utf-8")
        settings.load(draft)
        os.replace(draft, path)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or path}: {error.strerror}: choose another place for the configuration") from None


def _secrets(scene: Scene) -> dict[str, str]:
    tokens = {_token_file(tenant.name): tenant.token for tenant in scene.tenants}
    return tokens | {"box.secret": scene.box_secret, "slack.token": scene.slack_token}


def _token_file(tenant: str) -> str:
    return f"okta-{tenant}.token"


def _write_private(path: Path, text: str) -> None:
    """0600 from the first byte on, also where the file was there before."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _protected(tenants: Sequence[Tenant]) -> str:
    lines = ["# People whom nothing here may take anything from, by immutable id."]
    for tenant in tenants:
        for user_id, reason in tenant.protected:
            lines += ["", "[[person]]", *_pairs({"tenant": tenant.name, "id": user_id, "reason": reason})]
    return "\n".join(lines) + "\n"


def _text(scene: Scene) -> str:
    lines = ["# Written by `portcullis simulate`. Without [kafka] bootstrap, `portcullis run` uses its embedded broker."]
    for tenant in scene.tenants:
        lines += _section(("okta", tenant.name), _okta(tenant, scene.rate))
    for tenant in scene.tenants:
        name = "okta" if tenant is scene.tenants[0] else f"okta-{tenant.name}"
        lines += _section(("targets", name), {"kind": "okta", "tenant": tenant.name, "rate_per_minute": _okta_calls_a_minute(scene.rate)})
    lines += _section(("targets", "box"), _box(scene))
    lines += _section(("slack",), {"url": f"{scene.slack_url}/api", "token_file": "slack.token", "channel": scene.channel})
    safety = {"protected": "protected.toml", "read_back_after_s": 3, "second_look_s": 1.5, "transfer_hold_s": 3}
    sweep = {"sweep_every_s": 3600, "sweep_after_s": 3600}  # the day is told by events alone
    lines += _section(("safety",), safety | sweep)
    lines += _section(("safety", "brakes"), {"lockdown_percent": 50, "removal_percent": 50})
    return "\n".join(lines) + "\n"


def _okta(tenant: Tenant, rate: int) -> Mapping[str, object]:
    """Caught up, the poller asks once an interval: 60 % of the bucket at most, four times a second at most."""
    interval = max(0.25, round(60 / (rate * 0.6), 2))
    return {"url": tenant.url, "token_file": _token_file(tenant.name), "start": "beginning", "poll_interval_s": interval}


def _okta_calls_a_minute(rate: int) -> float:
    """The simulator raises every bucket in proportion to the log's; what we ask of it grows alike."""
    return float(TargetSettings.model_fields["rate_per_minute"].default * max(1.0, rate / LOGS_A_MINUTE))


def _box(scene: Scene) -> Mapping[str, object]:
    return {
        "kind": "box",
        "url": f"{scene.box_url}/2.0",
        "token_url": f"{scene.box_url}/oauth2/token",
        "client_id": scene.box_client,
        "client_secret_file": "box.secret",
        "enterprise_id": scene.enterprise,
        "rate_per_minute": scene.calls_a_minute * 0.9,
    }


def _section(name: Sequence[str], pairs: Mapping[str, object]) -> list[str]:
    return ["", "[" + ".".join(_key(part) for part in name) + "]", *_pairs(pairs)]


def _pairs(pairs: Mapping[str, object]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in pairs.items()]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _value(value: object) -> str:
    """TOML writes texts and numbers as JSON does, as long as no character is escaped in two halves."""
    return json.dumps(value, ensure_ascii=False)
