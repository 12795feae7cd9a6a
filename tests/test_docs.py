"""README and docs/ against the program: what they name exists, what they list is all there is, what they show works.

A list that the program knows by itself stands between `<!-- begin NAME -->` and `<!-- end -->` and is written by
`python -m tests.test_docs`; tests fail where one is out of date. Lists whose meaning a human must write (configuration keys, notices) are
compared by their names and defaults. Examples are read by the very code that would read them: TOML by the loader, rules by the rule set,
SQL by DuckDB over the real schema, Python by Python over a real trail.
Rejected: pages that are generated whole (nobody writes them for a reader), and examples that nobody runs.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import click
import duckdb
import pytest
import yaml
from pydantic import BaseModel

from audit.database import apply_schema
from audit.query import check as check_query
from audit.questions import questions
from audit.store import AuditStore
from handlers import registry
from handlers.protected import load_protected
from model.change import ActionStatus
from model.decision import Moment, Response
from model.person import HoldState
from model.records import IncidentChanged, Notice
from model.settings import KafkaSettings, OktaSettings, Section, Settings, TargetSettings, load
from rules.cases import run_cases
from rules.guards import GuardSettings
from rules.lifecycle import Lifecycle
from rules.rule import GuardName
from rules.rule import Section as RuleSection
from rules.ruleset import RuleSet
from rules.tables import read_tables
from simulators import faults
from simulators.okta.acts import Acts
from stream import classify, lockdown, notify, poller, provision, topics
from stream.cli import main
from stream.house import ROLES
from tests.audit import trail

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
WIDTH = 100
ids = {"ids": lambda value: value if isinstance(value, str) else None}


# --- lists that the program knows -------------------------------------------------------------------------------------


def rows(*lines: tuple[str, ...]) -> str:
    """A Markdown table; the first line is its head."""
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, tuple("---" for _ in head), *rest)).replace("| --- ", "|---")


def code(text: object) -> str:
    return f"`{text}`"


def plain(text: str) -> str:
    """Without the numbers by which the code refers to its own decisions."""
    return re.sub(r" \(D\d+\)", "", text)


def list_topics() -> str:
    def kept(one: topics.Topic) -> str:
        if one.compacted:
            return "last value of each key"
        return "for ever" if one.retention_ms == topics.FOREVER else f"{one.retention_ms // 86_400_000} days"

    return rows(("topic", "key", "kept", "holds"), *((code(one.name), one.key, kept(one), plain(one.holds)) for one in topics.ALL))


def list_state() -> str:
    return rows(("topic", "key", "holds"), *((code(one.name), one.key, plain(one.holds)) for one in topics.ALL if one.compacted))


def list_groups() -> str:
    groups = {
        "poller": (poller.GROUP, "the lease on `portcullis.checkpoints`"),
        "classifier": (classify.GROUP, code(topics.SYSTEM_LOG.name)),
        "lockdown": (lockdown.LockdownRole.group, f"{code(topics.THREATS.name)}, {code(topics.COMMANDS.name)}"),
        "provision": (provision.ProvisionRole.group, f"{code(topics.KNOCKS.name)}, {code(topics.COMMANDS.name)}"),
        "notifier": (notify.GROUP, code(topics.OUTCOMES.name)),
    }
    return rows(("role", "group", "reads"), *((role, code(group), reads) for role, (group, reads) in groups.items()))


def commands() -> Iterator[tuple[str, click.Context]]:
    """(words, context) of every command, in the order of their names."""

    def walk(command: click.Command, words: str, parent: click.Context | None) -> Iterator[tuple[str, click.Context]]:
        context = click.Context(command, info_name=words.split()[-1], parent=parent, terminal_width=WIDTH, **command.context_settings)
        yield words, context
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                yield from walk(command.commands[name], f"{words} {name}", context)

    return walk(main, "portcullis", None)


def list_commands() -> str:
    helps = ((words, context.command.get_help(context)) for words, context in commands())
    return "\n\n".join(f"## {words}\n\n```text\n{text}\n```" for words, text in helps)


def target_classes() -> list[Any]:
    modules = [import_module(f"handlers.{path.parent.name}.target") for path in sorted((ROOT / "handlers").glob("*/target.py"))]
    return [one for module in modules for one in vars(module).values() if isinstance(one, type) and hasattr(one, "capabilities")]


def list_targets() -> str:
    lines = [
        (code(one.kind), capability.value, ", ".join(code(part) for part in permission.split(", ")))
        for one in target_classes()
        for capability, permission in one.permissions.items()
    ]
    return rows(("kind", "can", "permission"), *lines)


def schema() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    apply_schema(con, Path(":memory:"))
    return con


#: What questions are asked of; the tables behind the views are not for questions.
SHOWN = ("events", "decisions", "actions", "incidents", "holds", "notices", "quarantine", "records", "chain", "positions", "incarnations")


def list_tables() -> str:
    with schema() as con:
        columns = con.execute("SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY column_index")
        found: dict[str, list[str]] = {}
        for table, column, kind in columns.fetchall():
            short = "TIMESTAMPTZ" if kind == "TIMESTAMP WITH TIME ZONE" else kind
            found.setdefault(table, []).append(code(column) + ("" if short == "VARCHAR" else f" {short}"))
    return rows(("table", "columns (text where no type is named)"), *((code(name), ", ".join(found[name])) for name in SHOWN))


def list_questions() -> str:
    lines = [(f"[{one.name}](../audit/queries/{one.name}.sql)", " ".join(one.about.split()).replace("|", "\\|")) for one in questions()]
    return rows(("question", "what it answers, and for whom"), *lines)


def list_detections() -> str:
    reported = sorted(RuleSet.load().reported, key=lambda rule: rule.id)
    lines = [
        (
            rule.id,
            rule.title,
            rule.severity.value,
            rule.response.value + (f" ({rule.scope.value})" if rule.response is Response.LOCKDOWN else ""),
            "several" if rule.spec is not None else "one",
        )
        for rule in reported
    ]
    return rows(("rule", "title", "severity", "response", "events"), *lines)


def list_lifecycle() -> str:
    table = Lifecycle.load()
    kinds: dict[tuple[str, str], list[str]] = {}
    for event_type in sorted(table.event_types):
        moment, person = table.of(event_type)
        kinds.setdefault((moment.value, person), []).append(code(event_type))
    order = [moment.value for moment in Moment]
    named = sorted(kinds.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    return rows(("moment", "person", "event types"), *((moment, person, ", ".join(types)) for (moment, person), types in named))


LISTS: dict[str, Callable[[], str]] = {
    "topics": list_topics,
    "state": list_state,
    "groups": list_groups,
    "commands": list_commands,
    "targets": list_targets,
    "tables": list_tables,
    "questions": list_questions,
    "detections": list_detections,
    "lifecycle": list_lifecycle,
}
BLOCK = re.compile(r"(<!-- begin ([a-z]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def rewritten(text: str) -> str:
    """The page with every list as the program has it now."""
    return BLOCK.sub(lambda found: f"{found[1]}{LISTS[found[2]]()}\n{found[4]}", text)


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if BLOCK.search(text)])
def test_lists_are_what_the_program_has(page: str) -> None:
    assert TEXTS[page] == rewritten(TEXTS[page]), "run: python -m tests.test_docs"


def test_every_list_stands_somewhere() -> None:
    assert {found[2] for text in TEXTS.values() for found in BLOCK.finditer(text)} == set(LISTS)


# --- tables that a human writes ---------------------------------------------------------------------------------------


def table_rows(text: str, heading: str, level: str = "##") -> dict[str, list[str]]:
    """Backticked names of the first column → the other cells, of the first table below a heading."""
    body = re.split(rf"^{level} ", text.split(f"\n{level} {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return cells(body)


def cells(body: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in body.splitlines():
        first, *rest = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("| `") else ("",)
        names = re.findall(r"`([^`]+)`", first)
        assert not set(names) & set(found), f"{names} stands twice"
        found |= dict.fromkeys(names, rest)
    return found


def default_of(model: type[BaseModel], key: str) -> str:
    """As the pages write it."""
    field = model.model_fields[key]
    return "required" if field.is_required() else shown(field.get_default(call_default_factory=True))


def shown(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, BaseModel):
        return "`{}`"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool | tuple | list | dict):
        return code(json.dumps(list(value) if isinstance(value, tuple) else value))
    return code(f"{value:.10g}" if isinstance(value, float) else value)


def sections() -> dict[str, type[BaseModel]]:
    """Heading → model, of everything that a configuration may hold."""
    names = {OktaSettings: "okta.NAME", TargetSettings: "targets.NAME"}
    found: dict[str, type[BaseModel]] = {}
    pending: list[tuple[str, type[BaseModel]]] = [("", Settings)]
    while pending:
        path, model = pending.pop()
        found[f"[{path}]" if path else "Top level"] = model
        for name, field in model.model_fields.items():
            for kind in (field.annotation, *get_args(field.annotation)):
                if isinstance(kind, type) and issubclass(kind, Section):
                    pending.append((names.get(cast(Any, kind), f"{path}.{name}".strip(".")), kind))
    return found


@pytest.mark.parametrize("heading", sections())
def test_every_configuration_key_stands_with_its_default(heading: str) -> None:
    model, page = sections()[heading], TEXTS["docs/configuration.md"]
    keys = [key for key, field in model.model_fields.items() if key != "base" and not _is_section(field.annotation)]
    told = table_rows(page, heading)
    assert list(told) == keys
    assert {key: told[key][0] for key in keys} == {key: default_of(model, key) for key in keys}
    assert all(len(cell) == 2 and cell[1] for cell in told.values())


def _is_section(annotation: Any) -> bool:
    return any(isinstance(kind, type) and issubclass(kind, Section) for kind in (annotation, *get_args(annotation)))


def test_the_keys_of_a_rules_section_stand_with_their_defaults() -> None:
    told = table_rows(TEXTS["docs/rules.md"], "The `portcullis:` section")
    assert list(told) == list(RuleSection.model_fields)
    assert {key: cell[0] for key, cell in told.items()} == {key: default_of(RuleSection, key) for key in RuleSection.model_fields}


def test_guards_notices_and_words_are_all_there() -> None:
    operations, audit = TEXTS["docs/operations.md"], TEXTS["docs/audit.md"]
    assert set(get_args(GuardName)) <= set(table_rows(TEXTS["docs/rules.md"], "Guards"))
    assert set(table_rows(operations, "Notices")) == set(get_args(Notice.model_fields["topic"].annotation))
    assert set(table_rows(operations, "Roles")) == set(ROLES)
    words = table_rows(audit, "Words in columns", "###")
    assert set(table_rows(audit, "Status of an action", "###")) == {"actions.status", *ActionStatus}
    for column, values in {
        "events.moment": set(Moment),
        "decisions.response": set(Response),
        "incidents.state": set(get_args(IncidentChanged.model_fields["state"].annotation)),
        "holds.state": set(HoldState),
    }.items():
        assert values == set(re.findall(r"`([a-z_]+)`", words[column][0].split(";")[0])), column


def sources(*floors: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for floor in floors for path in sorted((ROOT / floor).rglob("*.py")))


def test_codes_of_parked_work_and_reasons_of_quarantine_are_in_the_program() -> None:
    codes = table_rows(TEXTS["docs/operations.md"], "Parked work")
    written = sources("handlers", "stream")
    assert len(codes) > 10
    assert [one for one in codes if f'"{one}"' not in written] == []
    reasons = re.findall(r"`([a-z_]+)`", table_rows(TEXTS["docs/audit.md"], "Words in columns", "###")["quarantine.reason"][0])
    assert [one for one in reasons if f'"{one}"' not in sources("audit", "model", "stream")] == []


def test_side_doors_are_those_of_the_simulators() -> None:
    page = TEXTS["docs/simulators.md"]
    assert set(table_rows(page, "Faults", "###")) == set(faults.KNOWN)
    assert set(table_rows(page, "Acts", "###")) >= set(Acts(cast(Any, None), cast(Any, None))._known)
    assert set(re.findall(r"/_sim/[a-z]+", page)) == set(re.findall(r"/_sim/[a-z]+", sources("simulators")))


def test_health_is_told_as_it_answers() -> None:
    told = table_rows(TEXTS["docs/operations.md"], "Health")
    assert set(told) == set(re.findall(r'web\.get\("(/[a-z]+)"', (ROOT / "stream" / "health.py").read_text(encoding="utf-8")))


def test_the_readme_leads_into_every_folder() -> None:
    told = {name.rstrip("/") for name in table_rows(TEXTS["README.md"], "Folders")}
    assert {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()} <= told
    assert all((ROOT / name).is_dir() for name in told)


# --- what is said to be missing is missing ----------------------------------------------------------------------------


def names_of_commands() -> set[str]:
    return {words for words, _ in commands()}


#: What a page says is not there → whether that is still so. A feature that comes makes its limit's sentence false.
MISSING: dict[str, tuple[str, Callable[[], bool]]] = {
    "no other target": ("README.md", lambda: set(registry._KINDS) == {"okta", "box"}),
    "no approval": ("README.md", lambda: not names_of_commands() & {"portcullis approve", "portcullis lock"}),
    "no TLS to Kafka": (
        "README.md",
        lambda: not [key for key in KafkaSettings.model_fields if "ssl" in key or "tls" in key or "sasl" in key],
    ),
    "no second reading": ("README.md", lambda: "until=" not in sources("stream")),
    "no DPoP": ("README.md", lambda: "dpop" not in sources("handlers").lower()),
}
SAID = {
    "no other target": "Targets are Okta (lockdown only) and Box.",
    "no approval": "Nobody can approve inside Portcullis yet.",
    "no TLS to Kafka": "The connection to Kafka is plain text without a login.",
    "no second reading": "The log is read once, by following its links.",
    "no DPoP": "must not require DPoP",
}


@pytest.mark.parametrize("limit", MISSING)
def test_limits_are_told_as_long_as_they_are_so(limit: str) -> None:
    page, is_so = MISSING[limit]
    assert (SAID[limit] in TEXTS[page]) == is_so(), f"{page} is out of date: {SAID[limit]}"


def test_notices_that_are_said_to_be_unwritten_are() -> None:
    written = sources("handlers", "stream").replace((ROOT / "handlers" / "messages.py").read_text(encoding="utf-8"), "")
    for topic, told in table_rows(TEXTS["docs/operations.md"], "Notices").items():
        is_written = re.search(rf'(?:topic=|_say\(\s*|_notice\(\s*|tell\(\s*[\w.]+,\s*)"{topic}"', written) is not None
        assert not (is_written and told[0].startswith("not written by this version")), topic


# --- links, paths, commands -------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_relative_links_resolve(page: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        goal = (ROOT / page).parent / path if path else ROOT / page
        if not goal.exists() or (anchor and anchor not in anchors(goal.read_text(encoding="utf-8"))):
            broken.append(target)
    assert not broken


def test_the_readme_leads_to_every_page() -> None:
    told = set(re.findall(r"\]\((docs/[a-z-]+\.md)\)", TEXTS["README.md"]))
    assert told == {name for name in TEXTS if name.startswith("docs/")}, "the table under More has a row for every page"


@pytest.mark.parametrize("page", TEXTS)
def test_pages_are_of_no_machine_and_name_no_package_index(page: str) -> None:
    text = TEXTS[page]
    absolute = set(re.findall(r"(?<![\w.:/<)}~-])/(?!_sim)([a-z]+)/[\w.{}/-]*", text))
    assert absolute <= {"etc", "var", "run", "sql", "verify", "health"}, absolute
    hosts = set(re.findall(r"https?://([\w.-]+)", text))
    allowed = ("sigmahq.io", "semver.org", "slack.com", "127.0.0.1", "developer.okta.com", "github.com")
    assert {host for host in hosts if host not in allowed and not host.endswith("example.okta.com")} == set()


class Block(NamedTuple):
    page: str
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    found = ((page, one) for page, text in TEXTS.items() for one in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    return [Block(page, one[1], one[2]) for page, one in found if one[1] in languages]


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(page, words from `portcullis` on) of every command line in a block of shell, and of every inline one."""
    for block in blocks("sh"):
        for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
            words = shlex.split(line, comments=True)
            start = next((at for at, word in enumerate(words) if word.rpartition("/")[2] == "portcullis"), None)
            if start is not None:
                yield block.page, words[start + 1 :]
    for page, text in TEXTS.items():
        for span in re.findall(r"`portcullis ([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            yield page, shlex.split(span)


def is_known(words: list[str]) -> bool:
    """Follows the words into the command, then every option must be one of it, or of what stands above it."""
    context = next(iter(commands()))[1]
    command, options = context.command, {"--help", "-h"}
    while True:
        options |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        if not isinstance(command, click.Group) or not words or words[0].startswith("-"):
            break
        if words[0] not in command.commands:
            return False
        command, words = command.commands[words[0]], words[1:]
    given = words[: words.index("--")] if "--" in words else words
    return all(word.partition("=")[0] in options for word in given if word.startswith("-"))


def test_commands_and_their_options_exist() -> None:
    lines = list(command_lines())
    assert len(lines) > 30
    assert [(page, " ".join(words)) for page, words in lines if not is_known(words)] == []


def test_a_command_that_is_not_there_would_be_noticed() -> None:
    assert is_known(["audit", "sql", "--json", "--", "--x"])
    assert not is_known(["audit", "sequel"])
    assert not is_known(["run", "--rolle", "poller"])


def test_scripts_and_modules_exist() -> None:
    everything = "\n".join(TEXTS.values())
    scripts = set(re.findall(r"\b(script/[a-z]+)\b", everything))
    assert {"script/demo", "script/test", "script/setup", "script/kafka"} <= scripts
    assert [one for one in scripts if not (ROOT / one).is_file()] == []
    assert [one for one in re.findall(r"python -m ([\w.]+)", everything) if find_spec(one) is None] == []


def test_compose_is_started_as_it_can_be() -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    for service in re.findall(r"docker compose (?:exec|run --rm|--profile simulators up) ([a-z]+)", "\n".join(TEXTS.values())):
        assert service in services


# --- examples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.page)
def test_toml_loads_where_it_belongs(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_text(block.text, encoding="utf-8")
    raw = tomllib.loads(block.text)
    if "person" in raw:
        assert load_protected(path).is_trusted, load_protected(path).problem
    elif "row" in raw:
        assert read_tables(tmp_path)
    elif "networks" in raw:
        GuardSettings.load(path)
    else:
        load(path)


def test_the_readmes_configuration_speaks_of_everything() -> None:
    (text,) = [block.text for block in blocks("toml") if block.page == "README.md" and "[okta." in block.text]
    assert set(tomllib.loads(text)) == {"kafka", "okta", "targets", "slack", "audit", "safety", "rules"}


@pytest.mark.parametrize("block", blocks("sql"), ids=lambda block: block.page)
def test_sql_is_answered_by_the_schema(block: Block) -> None:
    with schema() as con:
        con.execute(check_query(con, block.text)).fetchall()


def test_sql_in_commands_is_answered_by_the_schema() -> None:
    spans = [words[-1] for _, words in command_lines() if words[:2] == ["audit", "sql"] and words[-1].startswith("SELECT")]
    spans += [span for text in TEXTS.values() for span in re.findall(r"`(SELECT [^`…]+)`", text)]
    assert len(spans) > 4
    with schema() as con:
        for query in spans:
            con.execute(check_query(con, query)).fetchall()


@pytest.mark.parametrize("block", blocks("json", "jsonl"), ids=lambda block: block.page)
def test_json_is_json(block: Block) -> None:
    for line in block.text.splitlines() if block.language == "jsonl" else [block.text]:
        json.loads(line)


def test_the_example_rule_holds_its_cases(tmp_path: Path) -> None:
    (rule,) = [block.text for block in blocks("yaml") if "logsource:" in block.text]
    (proof,) = [block.text for block in blocks("jsonl")]
    (tmp_path / "example.yml").write_text(rule, encoding="utf-8")
    (tmp_path / "example.cases.jsonl").write_text(proof, encoding="utf-8")
    results = list(run_cases(RuleSet.load(tmp_path), Lifecycle.load()))
    assert len(results) == 2
    assert [one.problem for one in results if not one.ok] == []


def test_the_override_of_the_compose_file_names_its_services() -> None:
    (text,) = [block.text for block in blocks("yaml") if block.text.startswith("services:")]
    assert set(yaml.safe_load(text)["services"]) == set(ROLES)


def test_the_chains_recipe_comes_to_the_same_heads(tmp_path: Path) -> None:
    (recipe,) = [block.text for block in blocks("python")]
    path = tmp_path / "audit.duckdb"
    with AuditStore(path, "one") as store:
        day = trail.Log()
        for number in range(5):
            day.source(trail.event(f"u{number}"), partition=number % 2)
        store.write(day.records)
        expected = {place: head for place, (_, head) in store.heads().items()}
    names: dict[str, Any] = {"path": str(path)}
    exec(compile(recipe, "docs/audit.md", "exec"), names)
    assert {(topic, partition): head.hex() for (_, topic, partition), head in names["heads"].items()} == expected


def test_the_picture_names_topics() -> None:
    (picture,) = [block.text for block in blocks("mermaid")]
    drawn = set(re.findall(r'\[\["([a-z.-]+)"\]\]', picture))
    assert drawn <= {one.name for one in topics.ALL}
    assert {topics.SYSTEM_LOG.name, topics.THREATS.name, topics.KNOCKS.name, topics.OUTCOMES.name, topics.COMMANDS.name} == drawn


if __name__ == "__main__":
    for one in PAGES:
        one.write_text(rewritten(one.read_text(encoding="utf-8")), encoding="utf-8")
