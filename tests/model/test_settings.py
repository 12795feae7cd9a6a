"""The configuration: unknown keys refuse with the nearest name, secrets are references and show nowhere, http is for loopback only."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from model.errors import ConfigurationError
from model.settings import OktaSettings, Secret, Section, Settings, SlackSettings, TargetSettings, checked_url, load
from tests.support.canary import Canaries

TENANT = '[okta.acme]\nurl = "https://acme.okta.com"\ntoken_env = "ACME_TOKEN"\n'

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)

    def written(text: str) -> Path:
        path = tmp_path / "portcullis.toml"
        path.write_text(text)
        return path

    return written


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    return str(caught.value)


# --- unknown keys -----------------------------------------------------------------------------------------------------


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """(table header, model) of every section that a file may hold, found in the models themselves."""
    names = {OktaSettings: "okta.acme", TargetSettings: "targets.box"}
    pending: list[tuple[str, type[BaseModel]]] = [("", Settings)]
    while pending:
        header, model = pending.pop()
        yield header, model
        for name, field in model.model_fields.items():
            for kind in [field.annotation, *getattr(field.annotation, "__args__", ())]:
                if isinstance(kind, type) and issubclass(kind, Section):
                    pending.append((names.get(kind, f"{header}.{name}".strip(".")), kind))


SECTIONS = dict(_sections())
KEYS = [(header, key) for header, model in SECTIONS.items() for key in model.model_fields if key != "base"]


def test_the_sections_that_others_rely_on_are_there() -> None:
    assert {"", "kafka", "okta.acme", "targets.box", "slack", "audit", "safety", "safety.brakes", "rules", "health"} <= set(SECTIONS)


@pytest.mark.parametrize(("header", "key"), KEYS)
def test_a_mistyped_key_is_refused_with_the_nearest(write: Write, header: str, key: str) -> None:
    mistyped = key[:1] + "x" + key[1:]
    text = f'[{header}]\n{mistyped} = "x"' if header else f'{mistyped} = "x"'
    message = refusal(write(text))
    place = f"{header}.{mistyped}".strip(".")
    lines = [line for line in message.splitlines() if f"unknown key {place}:" in line]
    assert len(lines) == 1, message
    assert f"did you mean {key}?" in lines[0]


def test_a_key_that_resembles_none_is_refused_with_all(write: Write) -> None:
    message = refusal(write("[rules]\nzzzzzz = 1"))
    assert "unknown key rules.zzzzzz: known here: access, detections" in message


def test_every_mistake_is_named_at_once(write: Write) -> None:
    message = refusal(write('[slak]\nx = 1\n[okta.acme]\nurl = "https://a.okta.com"\ntokn_env = "X"\n[safety.brakes]\nlockdown_count = -1'))
    assert len(message.splitlines()) == 3
    assert "did you mean slack?" in message
    assert "safety.brakes.lockdown_count" in message


def test_the_base_is_not_for_files(write: Write) -> None:
    assert "unknown key base" in refusal(write('base = "/"'))


# --- places -----------------------------------------------------------------------------------------------------------


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(None)
    assert settings.kafka.bootstrap is None
    assert settings.audit.path == tmp_path / "data" / "audit.duckdb"
    assert settings.data == tmp_path / "data"
    assert not settings.dry_run


def test_paths_point_from_the_files_folder(write: Write, tmp_path: Path) -> None:
    settings = load(
        write(
            '[okta.acme]\nurl = "https://a.okta.com"\ntoken_file = "secrets/token"\n'
            '[safety]\nprotected = "protected.toml"\n[audit]\npath = "store/a.duckdb"\n[rules]\ndetections = "/etc/rules"'
        )
    )
    assert settings.okta["acme"].token_file == tmp_path / "secrets" / "token"
    assert settings.safety.protected == tmp_path / "protected.toml"
    assert settings.audit.path == tmp_path / "store" / "a.duckdb"
    assert settings.data == tmp_path / "store"
    assert settings.rules.detections == Path("/etc/rules")
    assert load(write("")).audit.path == tmp_path / "data" / "audit.duckdb"


def test_the_environment_names_the_broker(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write('[kafka]\nbootstrap = "file:9092"\npartitions = 8')
    assert load(path).kafka.bootstrap == "file:9092"
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "env:9092")
    assert load(path).kafka.bootstrap == "env:9092"
    assert load(path).kafka.partitions == 8
    assert load(None).kafka.bootstrap == "env:9092"


def test_a_file_that_cannot_be_read_is_refused_with_the_remedy(write: Write, tmp_path: Path) -> None:
    assert "portcullis simulate --write-config" in refusal(tmp_path / "absent.toml")
    assert "not valid TOML" in refusal(write("a = "))
    assert "not valid TOML" in refusal(write('a = 1\na = 2\n[b]\nc = "'))
    assert refusal(tmp_path).startswith(str(tmp_path))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "not valid TOML" in refusal(binary)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("okta = 3", "okta:"),
        ('kafka = "x"', "kafka:"),
        ("[okta]\nacme = 3", "okta.acme:"),
        ('[targets.box]\nkind = "bax"', "'okta' or 'box'"),
        ('[okta."a b"]\nurl = "https://a.okta.com"\ntoken_env = "X"', "letters, digits"),
        ('[targets."../x"]\nkind = "box"', "letters, digits"),
        ('[targets.""]\nkind = "box"', "letters, digits"),
        (TENANT + "page_size = 1001", "okta.acme.page_size"),
        (TENANT + "poll_interval_s = 0", "okta.acme.poll_interval_s"),
        ('[targets.box]\nkind = "box"\nlockdown_share = 1.0', "targets.box.lockdown_share"),
        ("[safety]\nmax_action_age_s = 0", "safety.max_action_age_s"),
        ('[slack]\ntoken_env = "X"', "slack.channel"),
    ],
)
def test_wrong_values_are_refused_by_place(write: Write, text: str, words: str) -> None:
    assert words in refusal(write(text))


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.okta.com",
        "https://api.box.com/2.0",
        "http://127.0.0.1:9000",
        "http://localhost:1",
        "http://[::1]:8",
        "HTTPS://x.example",
    ],
)
def test_good_addresses(url: str) -> None:
    assert checked_url(url + "/") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.okta.com",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1@evil.example",
        "http://169.254.169.254",
        "http://10.0.0.1",
        "https://user:pass@acme.okta.com",
        "https://acme.okta.com?x=1",
        "https://acme.okta.com#x",
        "https://",
        "https:///path",
        "ftp://acme.okta.com",
        "file:///etc/passwd",
        "acme.okta.com",
        "",
        "https://[::1",
    ],
)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|http|carry"):
        checked_url(url)


@pytest.mark.parametrize("section", ["okta.acme", "targets.box", "slack"])
def test_every_section_checks_its_address(write: Write, section: str) -> None:
    rest = {"okta.acme": 'token_env = "X"', "targets.box": 'kind = "box"', "slack": 'channel = "#x"'}[section]
    message = refusal(write(f'[{section}]\nurl = "http://vendor.example"\n{rest}'))
    assert f"{section}.url" in message
    assert "loopback" in message


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "credential",
    [
        "",
        'token_env = "A"\nclient_id = "c"\nkey_file = "k"',
        'client_id = "c"',
        'key_file = "k"',
    ],
    ids=["none", "both", "id alone", "key alone"],
)
def test_a_tenant_has_exactly_one_credential(write: Write, credential: str) -> None:
    assert "exactly one credential" in refusal(write(f'[okta.acme]\nurl = "https://a.okta.com"\n{credential}'))


@pytest.mark.parametrize("key", ["token", "client_secret", "password", "api_key"])
def test_a_secret_in_the_file_is_refused_and_not_repeated(write: Write, canary: Canaries, key: str) -> None:
    secret = canary("written-into-the-configuration")
    path = canary.file("a configuration with a secret in it")
    path.write_text(f'[okta.acme]\nurl = "https://a.okta.com"\ntoken_env = "X"\n{key} = "{secret}"')
    message = refusal(path)
    assert f"okta.acme.{key}" in message
    assert secret not in message


def test_a_wrong_value_is_not_repeated(write: Write, canary: Canaries) -> None:
    """Whoever pastes a token into the wrong line does not find it in a log."""
    secret = canary("pasted-into-the-wrong-line")
    path = canary.file("a configuration with a token in the wrong line")
    for line in (f'url = "https://x:{secret}@a.okta.com"', f'url = "{secret}"', f'url = "https://a.okta.com"\npage_size = "{secret}"'):
        path.write_text(f'[okta.acme]\n{line}\ntoken_env = "X"')
        assert secret not in refusal(path)


def test_a_secret_is_read_when_needed_and_shows_nowhere(write: Write, canary: Canaries, monkeypatch: pytest.MonkeyPatch) -> None:
    token, key = canary("settings-token"), canary("settings-client-secret")
    monkeypatch.setenv("ACME_TOKEN", f" {token}\n")
    settings = load(
        write(
            TENANT + f'[targets.box]\nkind = "box"\nclient_secret_file = "{canary.file("settings-client-secret")}"\n'
            '[slack]\nchannel = "#sec"\ntoken_env = "ACME_TOKEN"'
        )
    )
    read = settings.okta["acme"].token.read("okta.acme")
    assert read.get_secret_value() == token
    assert settings.targets["box"].secret.read("targets.box").get_secret_value() == key
    assert settings.slack is not None
    assert settings.slack.token.read("slack").get_secret_value() == token
    for shown in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(read),
        str(read),
        f"{read}",
        repr(settings.okta["acme"].token),
    ):
        assert token not in shown
        assert key not in shown
    assert token.encode() not in pickle.dumps(settings)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"env": "PORTCULLIS_NOT_SET"}, "environment variable PORTCULLIS_NOT_SET is not set"),
        ({"file": Path("/nowhere/token")}, "cannot read /nowhere/token"),
        ({"file": Path("/dev/null")}, "/dev/null is empty"),
        ({}, "no secret is referred to"),
    ],
)
def test_a_secret_that_is_not_there_is_named_by_its_reference(reference: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Secret(**reference).read("okta.acme")
    assert str(caught.value).startswith("okta.acme: ")


def test_each_section_reads_its_own_reference() -> None:
    assert SlackSettings(channel="#x", token_file=Path("t")).token == Secret(file=Path("t"))
    assert TargetSettings(kind="box", token_env="T", client_secret_env="S").secret == Secret(env="S")
    assert TargetSettings(kind="box", token_env="T", client_secret_env="S").token == Secret(env="T")


# --- tenants ----------------------------------------------------------------------------------------------------------


def test_a_target_belongs_to_its_tenant_or_the_only_one(write: Write) -> None:
    settings = load(write(TENANT + '[targets.okta]\nkind = "okta"\n[targets.other]\nkind = "okta"\ntenant = "beta"'))
    assert settings.tenant_of(settings.targets["okta"]) == "acme"
    assert settings.tenant_of(settings.targets["other"]) == "beta"


def test_settings_are_frozen(write: Write) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(write(TENANT)).dry_run = True
