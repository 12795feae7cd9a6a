"""One TOML file plus the environment. Secrets by reference only (`*_env`, `*_file`); unknown keys refuse with the nearest known name.

A secret is read when it is needed and wrapped in pydantic's SecretStr: it never shows in a repr, an error or a log.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from model.errors import ConfigurationError

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def checked_url(value: str) -> str:
    """https anywhere, http only to loopback (D31); no credentials, query or fragment; no trailing slash."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("needs a URL such as https://example.okta.com")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("plain http is allowed to loopback addresses only: use https")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must not carry credentials, a query or a fragment")
    return value.rstrip("/")


class Secret(Section):
    """A reference to a secret: the name of an environment variable or the path of a file."""

    env: str | None = None
    file: Path | None = None

    def read(self, what: str) -> SecretStr:
        """The secret itself. Raises ConfigurationError that names the reference, never the value."""
        if self.env:
            value = os.environ.get(self.env, "")
            if not value:
                raise ConfigurationError(f"{what}: the environment variable {self.env} is not set: export it, or use the *_file form")
            return SecretStr(value.strip())
        if self.file:
            try:
                value = self.file.read_text().strip()
            except OSError as error:
                raise ConfigurationError(f"{what}: cannot read {self.file}: {error.strerror}") from None
            if not value:
                raise ConfigurationError(f"{what}: {self.file} is empty")
            return SecretStr(value)
        raise ConfigurationError(f"{what}: no secret is referred to: set *_env or *_file")


class KafkaSettings(Section):
    bootstrap: str | None = None
    replication: int = 1
    partitions: int = Field(default=4, ge=1, le=256)
    session_timeout_s: float = 20.0


class OktaSettings(Section):
    """One tenant. `start`: `now`, `beginning`, `-7d` or a time; without a checkpoint and without it the poller refuses (D29)."""

    url: str
    token_env: str | None = None
    token_file: Path | None = None
    client_id: str | None = None
    key_file: Path | None = None
    scopes: tuple[str, ...] = ("okta.logs.read", "okta.users.manage", "okta.groups.read")
    start: str | None = None
    poll_interval_s: float = Field(default=2.0, gt=0)
    page_size: int = Field(default=1000, ge=1, le=1000)
    #: What is ours of the log's rate bucket (a token gets half by default).
    rate_share: float = Field(default=0.9, gt=0, le=1)

    _url = field_validator("url")(checked_url)

    @property
    def token(self) -> Secret:
        return Secret(env=self.token_env, file=self.token_file)

    @model_validator(mode="after")
    def _one_credential(self) -> OktaSettings:
        token, oauth = bool(self.token_env or self.token_file), bool(self.client_id and self.key_file)
        if token == oauth:
            raise ValueError("needs exactly one credential: token_env or token_file, or client_id with key_file")
        return self


class TargetSettings(Section):
    """One target instance. `kind = "okta"` names the tenant it belongs to (default: the only one)."""

    kind: Literal["okta", "box"]
    url: str | None = None
    token_url: str | None = None
    tenant: str | None = None
    client_id: str | None = None
    client_secret_env: str | None = None
    client_secret_file: Path | None = None
    token_env: str | None = None
    token_file: Path | None = None
    enterprise_id: str | None = None
    concurrency: int = Field(default=8, ge=1, le=10)
    rate_per_minute: float = Field(default=900, gt=0)
    lockdown_share: float = Field(default=0.3, gt=0, lt=1)
    timeout_s: float = Field(default=15.0, gt=0)

    @field_validator("url", "token_url")
    @classmethod
    def _urls(cls, value: str | None) -> str | None:
        return None if value is None else checked_url(value)

    @property
    def secret(self) -> Secret:
        return Secret(env=self.client_secret_env, file=self.client_secret_file)

    @property
    def token(self) -> Secret:
        return Secret(env=self.token_env, file=self.token_file)


class SlackSettings(Section):
    url: str = "https://slack.com/api"
    token_env: str | None = None
    token_file: Path | None = None
    channel: str

    _url = field_validator("url")(checked_url)

    @property
    def token(self) -> Secret:
        return Secret(env=self.token_env, file=self.token_file)


class AuditSettings(Section):
    path: Path = Path("data/audit.duckdb")
    memory_limit: str = "1GB"
    sql_timeout_s: float = 30.0


class BrakeSettings(Section):
    lockdown_count: int = Field(default=5, ge=0)
    lockdown_percent: float = Field(default=1.0, ge=0)
    lockdown_window_s: float = Field(default=600, gt=0)
    removal_count: int = Field(default=25, ge=0)
    removal_percent: float = Field(default=5.0, ge=0)
    removal_window_s: float = Field(default=3600, gt=0)


class SafetySettings(Section):
    protected: Path | None = None
    max_action_age_s: float = Field(default=900, gt=0)
    read_back_after_s: float = Field(default=60, gt=0)
    #: A second look where the directory lags the log (D6).
    second_look_s: float = Field(default=5, gt=0)
    #: C50: from deactivation to transfer of content.
    transfer_hold_s: float = Field(default=7 * 86400, ge=0)
    #: A piece of work that takes longer leaves its batch and goes on by the schedule (D24).
    batch_patience_s: float = Field(default=20, gt=0)
    #: The first retry of a temporary failure comes after about so long, doubling up to the longest; after `give_up_s` provisioning parks.
    retry_first_s: float = Field(default=2, gt=0)
    retry_longest_s: float = Field(default=900, gt=0)
    give_up_s: float = Field(default=86400, gt=0)
    #: Every so often each tenant's people are listed and looked at (0: never); the first time so long after the start.
    sweep_every_s: float = Field(default=6 * 3600, ge=0)
    sweep_after_s: float = Field(default=60, ge=0)
    #: How many of them a second, so that live events do not wait.
    sweep_per_s: float = Field(default=2, gt=0)
    #: A listing that names less than so much of the last good one concludes nothing.
    listing_least_percent: float = Field(default=80, ge=0, le=100)
    #: Between the two direct looks that prove somebody absent.
    absence_pause_s: float = Field(default=60, ge=0)
    brakes: BrakeSettings = BrakeSettings()


class RulesSettings(Section):
    """Folders of Sigma rules and of access tables, and the guards' file; None: the built-in ones, and no guards."""

    detections: Path | None = None
    access: Path | None = None
    guards: Path | None = None


class HealthSettings(Section):
    """Loopback HTTP for readiness, liveness and audit SQL. Port 0: any free one, written into the data folder."""

    host: str = "127.0.0.1"
    port: int = 0


class Settings(Section):
    kafka: KafkaSettings = KafkaSettings()
    okta: dict[str, OktaSettings] = {}
    targets: dict[str, TargetSettings] = {}
    slack: SlackSettings | None = None
    audit: AuditSettings = AuditSettings()
    safety: SafetySettings = SafetySettings()
    rules: RulesSettings = RulesSettings()
    health: HealthSettings = HealthSettings()
    dry_run: bool = False
    #: Where relative paths of the file point from.
    base: Path = Path(".")

    @property
    def data(self) -> Path:
        """The folder of everything kept on this disk; all of it can be rebuilt from Kafka."""
        return self.audit.path.parent

    @field_validator("okta", "targets")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not name or not all(c.isalnum() or c in "-_" for c in name):
                raise ValueError(f"the name {name!r} may hold letters, digits, - and _ only")
        return value

    def tenant_of(self, target: TargetSettings) -> str:
        return target.tenant or next(iter(self.okta))


def load(path: Path | None) -> Settings:
    """Reads the TOML file and the environment. Raises ConfigurationError with place and remedy."""
    raw: dict[str, Any] = {}
    base = Path.cwd()
    if path is not None:
        base = path.resolve().parent
        try:
            raw = tomllib.loads(path.read_text())
        except FileNotFoundError:
            raise ConfigurationError(
                f"{path}: no such file: `portcullis simulate --write-config {path}` writes one to try things with"
            ) from None
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    if "base" in raw:
        raise ConfigurationError(f"{path}: unknown key base")
    if bootstrap := os.environ.get("KAFKA_BOOTSTRAP"):
        kafka = raw.setdefault("kafka", {})
        if isinstance(kafka, dict):
            kafka["bootstrap"] = bootstrap
    try:
        settings = Settings.model_validate(_absolute(raw, base) | {"base": base})
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(path, error))) from None
    if settings.audit.path == Path("data/audit.duckdb"):
        audit = settings.audit.model_copy(update={"path": base / "data" / "audit.duckdb"})
        settings = settings.model_copy(update={"audit": audit})
    return settings


_PATH_KEYS = {"path", "protected", "detections", "access", "guards"}


def _absolute(value: Any, base: Path, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _absolute(item, base, name) for name, item in value.items()}
    if isinstance(value, str) and (key in _PATH_KEYS or key.endswith("_file")):
        return str(base / Path(value).expanduser())
    return value


def _explain(path: Path | None, error: ValidationError) -> Iterator[str]:
    where = str(path or "configuration")
    for one in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in one["loc"])
        if one["type"] == "extra_forbidden":
            known = sorted(_known_names(one["loc"][:-1]))
            near = difflib.get_close_matches(str(one["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            yield f"{where}: unknown key {place}: {hint}"
        else:
            yield f"{where}: {place or 'file'}: {one['msg'].removeprefix('Value error, ')}"


def _known_names(loc: tuple[int | str, ...]) -> set[str]:
    model: Any = Settings
    for part in loc:
        field = model.model_fields.get(str(part)) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            continue  # the name of a section such as okta.NAME: its model stays what it was
        args = [arg for arg in getattr(field.annotation, "__args__", ()) if arg is not type(None)]
        model = args[-1] if args else field.annotation
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {name for name in model.model_fields if name != "base"}
    return set()
