"""docker-compose.yml, the Dockerfile and deploy/ against what the program really has: roles, commands, configuration keys, ports.

No container engine can be counted on where tests run, so the files are read, and what they say is tried on the real command line
parser and the real configuration loader.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import click
import pytest
import yaml

from handlers.protected import load_protected
from model.settings import Settings, load
from stream import topics
from stream.cli import main
from stream.house import ROLES
from tests.support import kafka_docker
from tests.support.kafka import properties

ROOT = Path(__file__).parents[1]
CONFIG = "/etc/portcullis/portcullis.toml"
DATA = "/var/lib/portcullis"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)
    return load(ROOT / "deploy" / "portcullis.toml")


def parse(command: list[str]) -> click.Context:
    """The innermost command's context as the real command line would make it; raises click's errors, runs nothing."""
    context = main.make_context("portcullis", list(command))
    group: click.Command = main
    while isinstance(group, click.Group):
        _, found, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        context = found.make_context(found.name, rest, parent=context)
        group = found
    return context


def hardened(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services.items() if name != "kafka"}


# --- roles and commands -----------------------------------------------------------------------------------------------


def test_one_service_a_role_and_a_profile_with_the_simulators(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"kafka", "simulators", "trial", *ROLES}
    assert {name for name, service in services.items() if service.get("profiles") == ["simulators"]} == {"simulators", "trial"}
    assert all("profiles" not in services[name] for name in ("kafka", *ROLES))


@pytest.mark.parametrize("role", ROLES)
def test_a_service_runs_its_role(services: dict[str, dict[str, Any]], role: str) -> None:
    context = parse(services[role]["command"])
    assert context.info_name == "run"
    assert context.params["role"] == role
    assert str(context.params["config"]) == CONFIG
    assert CONFIG in [entry["target"] for entry in services[role]["configs"]]


def test_the_trial_runs_all_roles_on_what_the_simulators_wrote(services: dict[str, dict[str, Any]]) -> None:
    simulate, run = parse(services["simulators"]["command"]), parse(services["trial"]["command"])
    assert (simulate.info_name, run.info_name) == ("simulate", "run")
    assert simulate.params["scenario"] == "day"
    assert simulate.params["write_config"] == run.params["config"]
    assert run.params["role"] == "all"
    assert services["trial"]["network_mode"] == "service:simulators", "the simulators speak plain http, which is allowed on loopback only"
    assert services["simulators"]["volumes"] == services["trial"]["volumes"]
    assert services["trial"]["environment"] == {"KAFKA_BOOTSTRAP": "kafka:9092"}


def test_a_wrong_command_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        parse(["run", "--config", CONFIG, "--role", "janitor"])
    with pytest.raises(click.UsageError):
        parse(["run", "--rolle", "poller"])
    with pytest.raises(click.UsageError):
        parse(["walk"])


# --- configuration ----------------------------------------------------------------------------------------------------


def test_the_configuration_loads_and_speaks_of_what_is_mounted(
    compose: dict[str, Any], services: dict[str, dict[str, Any]], settings: Settings
) -> None:
    mounted = {f"/run/secrets/{name}" for name in compose["secrets"]}
    used = {str(path) for path in _secret_files(settings)}
    assert used == mounted
    for role in ROLES:
        assert {f"/run/secrets/{name}" for name in services[role]["secrets"]} == mounted
        targets = {entry["source"]: entry["target"] for entry in services[role]["configs"]}
        assert targets == {"portcullis": CONFIG, "protected": str(settings.safety.protected)}
    assert set(compose["configs"]) == {"portcullis", "protected"}
    assert compose["configs"]["portcullis"]["file"] == "./deploy/portcullis.toml"


def _secret_files(settings: Settings) -> list[Path]:
    sections = [*settings.okta.values(), *settings.targets.values(), *([settings.slack] if settings.slack else [])]
    values = [value for section in sections for name, value in section if name.endswith("_file")]
    return [value for value in values if isinstance(value, Path)]


def test_the_configuration_holds_no_secret() -> None:
    text = (ROOT / "deploy" / "portcullis.toml").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(token|client_secret|password)\s*=", text, re.MULTILINE)


def test_the_broker_is_where_the_configuration_says(services: dict[str, dict[str, Any]], settings: Settings) -> None:
    assert settings.kafka.bootstrap is not None
    assert services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{settings.kafka.bootstrap}"
    host, port = settings.kafka.bootstrap.split(":")
    assert host in services
    assert f"PLAINTEXT://:{port}" in services["kafka"]["environment"]["KAFKA_LISTENERS"].split(",")
    assert settings.kafka.replication == 1, "there is one broker"


def test_health_is_asked_where_it_is_served(services: dict[str, dict[str, Any]], settings: Settings) -> None:
    assert settings.health.host == "127.0.0.1"
    for role in ROLES:
        (code,) = services[role]["healthcheck"]["test"][3:]
        assert f"http://127.0.0.1:{settings.health.port}/live" in code
    health = (ROOT / "stream" / "health.py").read_text(encoding="utf-8")
    assert '"/live"' in health
    base = parse(services["simulators"]["command"]).params["port_base"]
    assert f"http://127.0.0.1:{base}/_sim/state" in services["simulators"]["healthcheck"]["test"][3]


def test_health_checks_in_python_are_python(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        kind, *words = service["healthcheck"]["test"]
        if words[0] == "python":
            compile(words[2], "healthcheck", "exec")
        else:
            assert kind == "CMD-SHELL"


def test_what_a_role_writes_has_a_place(services: dict[str, dict[str, Any]], settings: Settings) -> None:
    assert str(settings.audit.path.parent) == DATA
    assert services["recorder"]["volumes"] == [f"audit:{DATA}"], "the audit file outlives its container"
    for role in set(ROLES) - {"recorder"}:
        assert any(entry.startswith(f"{DATA}:uid=10001") for entry in services[role]["tmpfs"])


def test_every_named_volume_network_and_dependency_exists(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    volumes = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    networks = {network for service in services.values() for network in service.get("networks", [])}
    assert volumes == set(compose["volumes"])
    assert networks == set(compose["networks"])
    for name in (*ROLES, "trial"):
        for other, wish in services[name]["depends_on"].items():
            assert wish == {"condition": "service_healthy"}
            assert "healthcheck" in services[other]


# --- Kafka ------------------------------------------------------------------------------------------------------------


def test_the_brokers_settings_are_those_of_the_tests(services: dict[str, dict[str, Any]]) -> None:
    """What the torture runs prove is proven for these values."""
    environment = {name: str(value) for name, value in services["kafka"]["environment"].items() if name != "KAFKA_HEAP_OPTS"}
    tested = {f"KAFKA_{key.replace('.', '_').upper()}": value for key, value in properties(9092, 9093, "/var/lib/kafka/data").items()}
    addresses = {"KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS", "KAFKA_CONTROLLER_QUORUM_VOTERS"}
    assert set(environment) <= set(tested)
    assert {name: value for name, value in environment.items() if name not in addresses} == {
        name: tested[name] for name in environment if name not in addresses
    }


def test_the_broker_takes_the_largest_record(services: dict[str, dict[str, Any]]) -> None:
    environment = services["kafka"]["environment"]
    assert int(environment["KAFKA_MESSAGE_MAX_BYTES"]) >= topics.MAX_REQUEST_BYTES
    assert int(environment["KAFKA_REPLICA_FETCH_MAX_BYTES"]) >= topics.MAX_REQUEST_BYTES
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert environment["KAFKA_UNCLEAN_LEADER_ELECTION_ENABLE"] == "false"


def test_one_version_of_kafka_everywhere(services: dict[str, dict[str, Any]]) -> None:
    jars = (ROOT / "script" / "kafka-jars.xml").read_text(encoding="utf-8")
    version = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)</version>", jars)
    assert version is not None
    assert services["kafka"]["image"] == kafka_docker.IMAGE == f"apache/kafka:{version[1]}"


# --- hardening --------------------------------------------------------------------------------------------------------


def test_containers_may_do_as_little_as_they_need(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert not service.get("privileged"), name
        assert not service.get("ports"), f"{name}: nothing is reached from outside"
    for name, service in hardened(services).items():
        assert service["read_only"] is True, name
        assert "/tmp" in service["tmpfs"], name
        assert service["init"] is True, name
        assert "user" not in service, f"{name}: the image's own user"


def test_a_stop_leaves_time_for_a_graceful_end(services: dict[str, dict[str, Any]]) -> None:
    for name in (*ROLES, "trial"):
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > 30


def test_the_broker_is_not_reached_from_outside(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    assert services["kafka"]["networks"] == ["kafka"]
    assert compose["networks"]["kafka"] == {"internal": True}


def test_an_unedited_list_of_protected_people_protects_everybody(tmp_path: Path) -> None:
    example = ROOT / "deploy" / "protected.example.toml"
    assert load_protected(example).state == "empty"
    filled = tmp_path / "protected.toml"
    filled.write_text(re.sub(r"^# ?(\[\[|\w+ = )", r"\1", example.read_text(), flags=re.MULTILINE).replace("00u…", "00u1"))
    assert load_protected(filled).is_trusted, "the commented entry is a right one"
    ignored = (ROOT / "deploy" / ".gitignore").read_text().split()
    assert {"secrets/", "protected.toml"} <= set(ignored)


# --- the image --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dockerfile() -> list[list[str]]:
    """Instructions as words, continuation lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packages(project: dict[str, Any]) -> set[str]:
    return {name for name in project["tool"]["setuptools"]["packages"]["find"]["include"] if "*" not in name}


def test_the_image_copies_what_it_needs_and_the_ignore_file_lets_it_through(dockerfile: list[list[str]], project: dict[str, Any]) -> None:
    copied = {name for word, *names in dockerfile if word == "COPY" and "--from" not in names[0] for name in names[:-1]}
    lines = (ROOT / ".dockerignore").read_text().split()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert copied == allowed
    assert packages(project) <= copied
    assert {"pyproject.toml", "requirements-runtime.lock", "LICENSE", project["project"]["readme"]} <= copied


def test_the_image_installs_from_hashes_only(dockerfile: list[list[str]]) -> None:
    installs = [" ".join(words) for words in dockerfile if words[0] == "RUN" and "pip install" in " ".join(words)]
    assert len(installs) == 2
    for install in installs:
        assert "--require-hashes -r requirements-runtime.lock" in install or "--no-deps --no-build-isolation ." in install


def test_the_image_runs_as_nobody_special(dockerfile: list[list[str]]) -> None:
    users = [words[1] for words in dockerfile if words[0] == "USER"]
    assert users == ["10001:10001"]
    (entry,) = [words[1:] for words in dockerfile if words[0] == "ENTRYPOINT"]
    assert entry == ['["portcullis"]']
    (folder,) = {words[1] for words in dockerfile if words[0] == "WORKDIR"} - {"/src"}
    assert PurePosixPath(folder) == PurePosixPath(DATA)


def test_the_images_tag_is_the_version(services: dict[str, dict[str, Any]], project: dict[str, Any], dockerfile: list[list[str]]) -> None:
    assert {service["image"] for service in hardened(services).values()} == {f"portcullis:{project['project']['version']}"}
    assert {service["build"] for service in hardened(services).values()} == {"."}
    bases = {words[1] for words in dockerfile if words[0] == "FROM"}
    assert bases == {"python:3.12-slim"}


def test_everything_the_packages_hold_is_in_the_wheel(tmp_path: Path, project: dict[str, Any]) -> None:
    """The image installs a wheel: a rule, a table or a query that stays behind would be missed only there."""
    source, out = tmp_path / "source", tmp_path / "out"
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in packages(project):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    (source / "README.md").write_text("# Portcullis\n")
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    expected = {str(path.relative_to(source)) for name in packages(project) for path in (source / name).rglob("*") if path.is_file()}
    assert expected <= inside, sorted(expected - inside)
    assert any(name.endswith("LICENSE") for name in inside)
