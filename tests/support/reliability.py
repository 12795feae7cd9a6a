"""`docs/reliability.md`, written from the tests: `python -m tests.support.reliability`.

A test says which bad input or fault it shows by `@pytest.mark.fault(number)`; what the fault is and what must happen stands here, and so
do the promises, each with the code that keeps it and the tests that fail when that code is taken out. Names are read from the source, so
the page lists what is there; tests/test_reliability.py fails where it is out of date, or a number has no test.
Rejected: asking pytest to collect (it imports everything), and a table kept by hand (it is wrong after a month).
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
#: Issue by issue: these have tests, or the page is not done.
REQUIRED = range(1, 46)


class Fault(NamedTuple):
    """`torture`: what brings it about in `script/torture`, as `module:name`."""

    what: str
    must: str
    torture: str = ""


class Promise(NamedTuple):
    name: str
    what: str
    code: tuple[str, ...]
    tests: tuple[str, ...]


PLAN, NOISE, WEATHER = "tests.torture.plan", "tests.torture.noise", "tests.torture.weather"

FAULTS: dict[int, Fault] = {
    1: Fault("The log answers with an empty page whose `next` is the page itself", "the poller sleeps its interval and writes nothing"),
    2: Fault("An event comes two hours late", "it is handled once, like any other; no time of an event moves the cursor"),
    3: Fault(
        "The same uuid on two pages; with the same bytes, with other bytes",
        "one effect; other bytes go to quarantine as a conflict and the first stay",
        f"{PLAN}:Company._conflict",
    ),
    4: Fault(
        "`published` is no time: a 31st of September, a leap second",
        "the event has its row, its age counts from its receipt, the stream goes on",
        f"{NOISE}:Noise",
    ),
    5: Fault("Our clock is wrong by an hour", "no gap; one warning"),
    6: Fault("429 whose reset has passed", "tried again now, with jitter"),
    7: Fault("429 with limit and remaining both 0 (too many calls at a time)", "a short, bounded back-off"),
    8: Fault("No rate headers", "a conservative pace"),
    9: Fault("400: the cursor is refused", "read again from before the last good page, by the vendor's clock; audited"),
    10: Fault("401: the credential is refused", "told at once; the cursor is untouched; the breaker opens"),
    11: Fault("200 with a page of HTML", "an error; the cursor is untouched; asked again", f"{WEATHER}:Weather"),
    12: Fault("A body that is cut in the middle", "the page is asked for again whole", f"{WEATHER}:Weather"),
    13: Fault("One malformed event in a page of a thousand", "999 flow, one is quarantined with its bytes", f"{NOISE}:Noise.malformed"),
    14: Fault("The stored checkpoint is cut or empty", "refuses to start from now, with the remedy"),
    15: Fault("The disk is full at a write, or a publish fails", "nothing more is published past it, nothing is lost"),
    16: Fault("kill -9 between an acknowledged publish and the checkpoint", "repeats, and nothing else", f"{PLAN}:Strike"),
    17: Fault("A lone surrogate in a name", "an event like any other, its bytes exact in the trail", f"{NOISE}:Noise._surrogate"),
    18: Fault("NUL characters", "an event like any other, its bytes exact in the trail", f"{NOISE}:Noise"),
    19: Fault("Nesting a hundred thousand deep", "quarantined as unreadable, the stream goes on", f"{NOISE}:Noise.malformed"),
    20: Fault("Integers of 5,000 digits, NaN, 1e999", "quarantined as unreadable, the stream goes on"),
    21: Fault(
        "`target` is null, empty, two people, of a wrong type",
        "the rule says who is meant; nobody or several: recorded, no action, never everybody",
        f"{NOISE}:Noise",
    ),
    22: Fault("An empty or crafted id (`../`, `?`, `%2f`)", "refused before a URL is built", f"{NOISE}:Noise"),
    23: Fault("Mentions and links in a name", "inert in Slack"),
    24: Fault("`=HYPERLINK(…)` in an export", "text, and no formula"),
    25: Fault("Line breaks and terminal escapes in a user agent", "one line, and nothing that a terminal acts on"),
    26: Fault("An event of 2 MB; one of more than 8 MB", "the first flows; the second is quarantined with size and hash"),
    27: Fault("A mail address that only looks like an administrator's", "another person: people are told apart by id alone"),
    28: Fault("An unknown event type or severity", "recorded and counted, no action", f"{NOISE}:Noise"),
    29: Fault("A handler raises, once or always", "nothing is acknowledged past it; it is told; the next event is judged"),
    30: Fault("One message hangs, those behind it end, kill -9", "the one that hung is worked on again", f"{PLAN}:Strike"),
    31: Fault("A rebalance while a handler works", "its work is cancelled and awaited before the next owner begins", f"{PLAN}:Strike"),
    32: Fault("The broker is away, the coordinator moves, a commit fails", "nothing is lost, and it goes on by itself", f"{PLAN}:Strike"),
    33: Fault("SIGTERM with work in hand", "finished, or delivered again; the process ends within 30 s", f"{PLAN}:Strike"),
    34: Fault("SIGSTOP past the session, then CONT", "fenced: no second effect; a batch that nobody took is read again", f"{PLAN}:Strike"),
    35: Fault("A call took effect and its answer was lost", "read back: exactly one effect", f"{WEATHER}:Weather"),
    36: Fault("503, then 200; 409 because it is so already; 404 because it is gone", "tried again; success; success", f"{WEATHER}:Weather"),
    37: Fault("`Retry-After` of a day, negative, no number, a date", "read as what it is, capped, with jitter; the past means now"),
    38: Fault("One vendor hangs for a minute a call", "nobody else waits; one probe finds out when it is back", f"{WEATHER}:Weather"),
    39: Fault("A lockdown, then a provisioning that was delayed", "refused; what came too late is closed again"),
    40: Fault(
        "Deactivated and activated within a second, delivered in the wrong order", "ends in Okta's present state", f"{PLAN}:Company._act"
    ),
    41: Fault("One target is closed, another fails", "told as partial, tried again, never called done", f"{WEATHER}:Weather"),
    42: Fault("5,000 reasons to lock within a minute", "the brake trips; one alert"),
    43: Fault("The target is break-glass, ourselves, or an administrator", "refused, and somebody is paged"),
    44: Fault("The protected list is missing, empty, or names somebody twice", "lockdowns wait for approval, removals hold"),
    45: Fault("Our own action comes back as an event", "recorded, and no loop"),
    49: Fault("Slack is away", "what is to be said waits and is said later; nobody's containment waits for it"),
    50: Fault("A row edited, deleted, swapped; the tail cut; an old copy put back", "found and named"),
    51: Fault("The recorder's disk is full", "it ends with a fault and loses nothing"),
    52: Fault("A reader holds the audit file when the recorder starts", "waited for at most a second, then named"),
    53: Fault("SQL that writes, reads files, attaches, or never ends", "refused or stopped"),
    54: Fault("Rules are loaded anew and one of them is invalid", "the old set stays, and somebody is told"),
}

_POLLER, _LOCK, _PROV = "tests/stream/test_poller.py", "tests/stream/test_lockdown.py", "tests/stream/test_provision.py"
_CONVERGE, _CLIENT, _WORKER = "tests/handlers/test_converge.py", "tests/handlers/test_client.py", "tests/stream/test_worker.py"
_TORTURE = "script/torture"

PROMISES = (
    Promise(
        "S1",
        "The cursor is durable only after Kafka has acknowledged every event of its page.",
        ("stream.poller:Tail._take",),
        (f"{_POLLER}::test_pages_follow_one_another_and_each_cursor_is_kept_after_its_events", f"{_POLLER}::test_a_publish_that_fails_leaves_the_cursor_where_it_was"),
    ),
    Promise(
        "S2",
        "Wherever it is killed, what is published holds everything that the tenant logged.",
        ("stream.poller:Tail.load", "stream.poller:Tail._save"),
        (f"{_POLLER}::test_killed_between_publish_and_checkpoint_gives_repeats_and_loses_nothing", "tests/stream/test_poller_machine.py::TestPolling", _TORTURE),
    ),
    Promise(
        "S3",
        "One uuid has at most one effect, however old or often delivered.",
        ("stream.books:Latch.has_handled", "stream.lockdown:LockdownRole._order"),
        (f"{_LOCK}::test_the_same_event_never_acts_twice_also_after_a_release", "tests/stream/test_way_in.py::test_the_same_event_on_two_pages_is_one_effect"),
    ),
    Promise(
        "S4",
        "A threat older than `max_action_age_s` is recorded and alerted, never locked on by itself; a knock has no age.",
        ("stream.judge:Judge._decide",),
        ("tests/stream/test_judge.py::test_a_threat_older_than_the_limit_is_alerted_never_locked", "tests/stream/test_judge.py::test_knocks_have_no_age"),
    ),
    Promise(
        "S5",
        "An outage longer than the vendor keeps its log leaves a gap record and an exit code of 70.",
        ("stream.poller:Tail._fall_back",),
        (f"{_POLLER}::test_an_outage_longer_than_the_vendors_memory_leaves_a_gap_record_and_ends_and_the_next_start_reads_what_is_left",),
    ),
    Promise(
        "S6",
        "A `next` link to another origin is refused; the token never leaves the configured origin.",
        ("handlers.client:Client.same_origin",),
        (f"{_POLLER}::test_a_next_link_to_another_origin_is_refused_told_and_nothing_of_the_page_is_taken", "tests/handlers/test_okta_log.py::test_the_token_never_leaves_its_origin"),
    ),
    Promise(
        "S7",
        "Of two pollers one owns the tenant; repeats of the other cause nothing.",
        ("stream.poller:Poller._own",),
        ("tests/stream/test_lease.py::test_one_tails_and_the_other_takes_over_from_its_cursor",),
    ),
    Promise(
        "P1",
        "No accepted event is lost, however often poller, workers, recorder and broker are killed.",
        ("stream.transport:Ledger", "stream.transport:BatchConsumer"),
        (f"{_WORKER}::test_two_workers_and_rebalances_mid_flight_lose_nothing_and_never_meet_at_a_key", "tests/stream/test_ledger.py::test_whatever_is_acknowledged_in_whatever_order_the_commit_never_passes_unfinished_work", _TORTURE),
    ),
    Promise(
        "P2",
        "The effects of one person happen in order.",
        ("stream.worker:Chains",),
        ("tests/stream/test_chains.py::test_whatever_fails_or_is_cancelled_the_order_of_a_key_stands", f"{_WORKER}::test_everything_is_handled_in_each_keys_order_and_a_restart_goes_on_exactly", _TORTURE),
    ),
    Promise(
        "P3",
        "What cannot be done is parked with its bytes, reason and attempts; redriving it needs who and why, looks at the present, and skips what was superseded.",
        ("stream.lane:LaneRole.park", "stream.lane:LaneRole.redrive_or_drop", "stream.desk:Desk.order"),
        (f"{_LOCK}::test_bytes_that_are_no_order_are_parked_whole_told_and_can_be_redriven_or_dropped", f"{_LOCK}::test_a_redrive_that_comes_late_leaves_what_superseded_it_alone", f"{_PROV}::test_what_never_succeeds_is_parked_with_its_knock_told_once_and_redriven", "tests/stream/test_desk.py::test_nothing_is_ordered_without_who_and_why"),
    ),
    Promise(
        "P4",
        "A consumer that stops progressing ends its process.",
        ("stream.worker:Watchdog",),
        ("tests/stream/test_chains.py::test_a_busy_partition_does_not_hide_one_that_stands_still", f"{_WORKER}::test_a_partition_that_stands_still_ends_the_worker", f"{_WORKER}::test_a_group_that_does_not_answer_any_more_ends_the_worker_that_has_nothing_to_do"),
    ),
    Promise(
        "E1",
        "An intent is durable before its call, the result after it; a restart reads back before it repeats or closes.",
        ("handlers.perform:Performer", "stream.books:KafkaJournal", "handlers.evidence:RowCloser"),
        (f"{_LOCK}::test_an_intent_left_open_is_closed_by_reading_back_before_anything_else", f"{_LOCK}::test_killed_at_any_write_the_next_owner_brings_it_to_the_same_end", f"{_CONVERGE}::test_a_lost_answer_never_causes_a_second_effect", _TORTURE),
    ),
    Promise(
        "E2",
        "Targets are immutable ids. Several matches park; none parks an opening, and is success for a lockdown.",
        ("handlers.look:observe", "handlers.guard:whose"),
        (f"{_CONVERGE}::test_of_several_matches_none_is_touched", "tests/handlers/test_lockdown.py::test_of_several_matches_none_is_closed_and_a_human_is_paged", "tests/handlers/test_lockdown.py::test_no_account_is_nothing_to_close", f"{_CONVERGE}::test_an_account_that_was_there_before_is_not_opened_without_a_link"),
    ),
    Promise(
        "E3",
        "A 4xx is not repeated blindly. 401 and a missing scope open the connector's breaker; another 403 parks its object.",
        ("handlers.answers:check_connector", "handlers.answers:check_object"),
        (f"{_CLIENT}::test_each_answer_means_one_thing", f"{_CLIENT}::test_a_4xx_about_an_object_does_not_open_the_breaker", f"{_CONVERGE}::test_refused_credentials_wait_for_the_breaker_and_park_nobody", f"{_CONVERGE}::test_a_refused_object_is_parked_and_the_rest_goes_on"),
    ),
    Promise(
        "E4",
        "`Retry-After` in seconds or as a date, capped and with jitter; the past means now.",
        ("handlers.answers:delay_of", "handlers.client:Client._heed"),
        (f"{_CLIENT}::test_retry_after", f"{_CLIENT}::test_the_delay_is_jittered", f"{_LOCK}::test_a_retry_waits_as_long_as_the_vendor_asked"),
    ),
    Promise(
        "E5",
        "Each connector has, for each lane, a queue, a rate budget and a breaker of its own. Breakers are seen.",
        ("handlers.limits:Limits", "handlers.registry:Workshop.client", "stream.breakers:BreakerNews"),
        ("tests/handlers/test_limits.py::test_the_lanes_break_apart", "tests/handlers/test_limits.py::test_no_more_calls_at_a_time_than_allowed_and_long_ones_apart", "tests/handlers/test_registry.py::test_a_breaker_that_moves_is_told_and_the_other_lane_goes_on", "tests/stream/test_retries.py::test_one_probe_finds_out_for_everybody_that_a_target_is_back", "tests/stream/test_breakers.py::test_that_it_opened_and_that_it_closed_stand_in_the_trail_and_failed_probes_do_not"),
    ),
    Promise(
        "E6",
        "Provisioning's retries stay below a tenth of a connector's requests a minute; ten a minute are always free. Lockdown is exempt.",
        ("stream.retries:Retries", "handlers.limits:RetryBudget"),
        ("tests/stream/test_retries.py::test_with_a_failing_target_ten_retries_a_minute_go_out_and_no_more", "tests/stream/test_retries.py::test_retries_stay_below_a_tenth_of_the_requests_of_a_busy_minute", f"{_CLIENT}::test_that_repeat_is_a_retry_like_any_other"),
    ),
    Promise(
        "E7",
        "A provisioning or an unlock that is older than the last lock is refused.",
        ("handlers.guard:Guard.nothing_held", "handlers.converge:Converger._last_word", "handlers.release:Releaser"),
        (f"{_CONVERGE}::test_a_delayed_provision_after_a_lock_opens_nothing", f"{_CONVERGE}::test_a_hold_that_appears_during_a_look_ends_in_containment_or_opens_nothing_more", "tests/handlers/test_release.py::test_a_release_that_is_repeated_after_a_new_lockdown_opens_nothing"),
    ),
    Promise(
        "E8",
        "A dry run makes no call that changes anything.",
        ("handlers.client:Client.mutate", "handlers.perform:Performer"),
        ("tests/acceptance/test_dry_run.py::test_a_dry_run_of_the_day_plans_it_and_calls_nothing", "tests/handlers/test_registry.py::test_a_dry_run_can_not_mutate_at_all"),
    ),
    Promise(
        "E9",
        "Brakes trip, and stay tripped over a restart.",
        ("stream.judge:LockdownBrake", "stream.books:Removals"),
        ("tests/stream/test_classify.py::test_a_trip_stays_over_a_restart_until_it_is_reset", f"{_PROV}::test_the_removal_brake_holds_what_is_over_the_limit_over_restarts_until_a_human_resets_it"),
    ),
)  # fmt: skip

_HEAD = """# Reliability

<!-- Written by `python -m tests.support.reliability` from the tests' own marks: change those, not this page. -->

What is promised, where the code keeps it, and which test fails when that code is taken out. Then every bad input and fault, what must
happen, and the tests that show it. The tests that need a broker run on a real Apache Kafka (`script/kafka`); where a fault is also brought
about by `script/torture`, which kills everything in turn and compares what was logged, recorded and called, the table says so.
`pytest -m kafka` runs those with a broker; one test is run by its name: `pytest tests/stream/test_lease.py`.
"""


def collect() -> dict[int, list[str]]:
    """Number → `path::test`, in the order of paths and lines."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in _modules():
        for name, node in _tests(ast.parse(path.read_text(encoding="utf-8"))):
            for number in _marks(node):
                found[number].append(f"{path.relative_to(ROOT).as_posix()}::{name}")
    return dict(found)


def _modules() -> list[Path]:
    return sorted(path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))


def _tests(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}::{inner.name}", inner


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[int]:
    """Of the test, or of some of its parameters."""
    calls = (one for decorator in node.decorator_list for one in ast.walk(decorator) if isinstance(one, ast.Call))
    marks = (one for one in calls if isinstance(one.func, ast.Attribute) and one.func.attr == "fault")
    numbers = [arg.value for mark in marks for arg in mark.args if isinstance(arg, ast.Constant) and isinstance(arg.value, int)]
    return list(dict.fromkeys(numbers))


def names(path: Path) -> set[str]:
    """Everything that a test module has a name for, tests of classes too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)}
    return assigned | {name for name, _ in _tests(tree)}


def resolve(reference: str) -> object:
    """`module:name.of.it`, imported. Raises ImportError or AttributeError where it is not there."""
    module, _, path = reference.partition(":")
    found: object = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


# --- the page ---------------------------------------------------------------------------------------------------------


def page() -> str:
    return "\n".join([_HEAD, "## Promises", "", *_promises(), "", "## Bad inputs and faults", "", *_faults(collect())]) + "\n"


def _promises() -> Iterator[str]:
    yield from ("| | promise | code | shown by |", "|---|---|---|---|")
    for one in PROMISES:
        yield f"| {one.name} | {one.what} | {_stacked(f'`{code}`' for code in one.code)} | {_stacked(map(_shown, one.tests))} |"


def _faults(found: dict[int, list[str]]) -> Iterator[str]:
    yield from ("| | fault | what must happen | shown by |", "|---|---|---|---|")
    for number, one in sorted(FAULTS.items()):
        shown = [*map(_shown, found.get(number, ())), *(["`script/torture`"] if one.torture else [])]
        yield f"| {number} | {one.what} | {one.must} | {_stacked(shown)} |"


def _shown(test: str) -> str:
    path, _, name = test.partition("::")
    words = name.rpartition("::")[2].replace("_", " ").removeprefix("test ")
    return f"[{words}](../{path})" if name else f"`{path}`"


def _stacked(lines: Iterator[str] | list[str] | map[str]) -> str:
    return "<br>".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
