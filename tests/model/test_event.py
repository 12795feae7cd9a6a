"""What makes bytes an event (D1), whom an event names (D2), and that no bytes whatever raise anything but MalformedEvent."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.errors import MalformedEvent
from model.event import OktaEvent, PersonRule, decode, digest, is_safe_id, parse_time, people, split_page

NAMED = '"uuid": "u-1", "eventType": "user.session.start"'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def event(**fields: Any) -> bytes:
    return json.dumps({"uuid": "u-1", "eventType": "user.session.start"} | fields).encode()


def user(user_id: object = "00u1", kind: object = "User") -> dict[str, Any]:
    return {"id": user_id, "type": kind, "alternateId": "ada@example.com"}


# --- a page and its elements ------------------------------------------------------------------------------------------


@given(st.lists(json_values, max_size=8), st.sampled_from([None, 1, "\t"]), st.booleans())
@example(['a"]},[', {"[": "]", "\\": '\\"'}, [[], {}]], None, True)
def test_split_page_gives_the_elements(values: list[Any], indent: int | str | None, ascii_only: bool) -> None:
    body = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert [json.loads(element) for element in split_page(body)] == values


@given(st.lists(json_values, min_size=1, max_size=8))
def test_one_element_that_is_hard_to_read_changes_nothing_for_the_others(values: list[Any]) -> None:
    """Lone surrogates, depth and numbers beyond any float make a fast parser refuse the page; the others' bytes stay exact."""
    elements = [json.dumps(value, ensure_ascii=False).encode() for value in values]
    for hard in (b'{"name":"\\ud800"}', b"[" * 5000 + b"]" * 5000, b"1e999", b"NaN", b"9" * 5000, b'"\xff"'):
        page = [*elements, hard, *elements]
        assert split_page(b"[" + b" ,\n".join(page) + b"]") == page


@pytest.mark.parametrize("body", [b"[]", b" [ \n ] "])
def test_an_empty_page(body: bytes) -> None:
    assert split_page(body) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b'"[]"',
        b"[1",
        b"1]",
        b"[1,]",
        b"[,1]",
        b"[1][2]",
        b"[1]]",
        b"[[1]",
        b'["]',
        b"<html></html>",
        b"\xef\xbb\xbf[]",
    ],
)
def test_what_is_no_page(body: bytes) -> None:
    with pytest.raises(MalformedEvent, match="not_an_array"):
        split_page(body)


@pytest.mark.fault(12)
@given(st.lists(json_values, min_size=1, max_size=5), st.data())
def test_a_page_that_was_cut_is_never_taken_for_a_shorter_one(values: list[Any], data: st.DataObject) -> None:
    body = json.dumps(values).encode()
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(MalformedEvent):
        split_page(body[:cut])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_page_or_malformed(body: bytes) -> None:
    try:
        elements = split_page(body)
    except MalformedEvent:
        return
    assert all(element in body for element in elements)


# --- an event ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "unreadable"),
        (b"{", "unreadable"),
        (b"\xff\xfe\xfd", "unreadable"),
        (b"null", "not_an_object"),
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"{}", "no_uuid"),
        (b'{"uuid": null, "eventType": "t"}', "no_uuid"),
        (b'{"uuid": 7, "eventType": "t"}', "no_uuid"),
        (b'{"uuid": "", "eventType": "t"}', "no_uuid"),
        (b'{"uuid": "\\ud800", "eventType": "t"}', "no_uuid"),
        (b'{"uuid": "u"}', "no_event_type"),
        (b'{"uuid": "u", "eventType": ["t"]}', "no_event_type"),
        (b'{"uuid": "u", "eventType": "\\udfff"}', "no_event_type"),
    ],
)
def test_malformed(raw: bytes, reason: str) -> None:
    with pytest.raises(MalformedEvent) as caught:
        OktaEvent.from_raw(raw)
    assert caught.value.reason == reason


@pytest.mark.fault(19)
@pytest.mark.fault(20)
@pytest.mark.parametrize("value", ["[" * 100_000 + "]" * 100_000, "9" * 5000, "NaN", "Infinity", "1e999", "-1e999"], ids=lambda v: v[:9])
def test_values_that_nothing_can_hold_are_unreadable(value: str) -> None:
    with pytest.raises(MalformedEvent, match="unreadable"):
        decode(f'{{{NAMED}, "debugContext": {value}}}'.encode())


@pytest.mark.fault(17)
def test_a_lone_surrogate_is_an_event() -> None:
    one = OktaEvent.from_raw(f'{{{NAMED}, "displayMessage": "a\\ud800b", "outcome": {{"result": "\\udfff"}}}}'.encode())
    assert one.display_message == "a\ud800b"
    assert one.outcome == "\udfff"


@pytest.mark.fault(18)
def test_nul_characters_are_an_event() -> None:
    assert OktaEvent.from_raw(f'{{{NAMED}, "displayMessage": "a\\u0000b"}}'.encode()).display_message == "a\0b"


def test_all_fields() -> None:
    raw = event(
        published="2026-01-05T10:00:00.500+01:00",
        severity="WARN",
        outcome={"result": "FAILURE", "reason": "INVALID_CREDENTIALS"},
        displayMessage="Sign in",
        actor=user("00uActor"),
        target=[user("00uTarget")],
    )
    one = OktaEvent.from_raw(raw)
    assert one.raw == raw
    assert (one.uuid, one.event_type, one.severity) == ("u-1", "user.session.start", "WARN")
    assert one.published == datetime(2026, 1, 5, 9, 0, 0, 500_000, tzinfo=UTC)
    assert (one.outcome, one.reason, one.display_message) == ("FAILURE", "INVALID_CREDENTIALS", "Sign in")
    assert (one.actor_id, one.actor_type) == ("00uActor", "User")
    assert one.people("target") == ("00uTarget",)


@pytest.mark.parametrize("junk", [None, [], {}, 7, "text", [None], [[]], {"id": None}])
@pytest.mark.parametrize("key", ["actor", "outcome", "target", "severity", "published", "displayMessage", "client"])
def test_any_other_field_may_be_anything(key: str, junk: object) -> None:
    one = OktaEvent.from_raw(event(**{key: junk}))
    assert one.people("target-or-actor") == ()
    assert one.published is None


@pytest.mark.fault(28)
def test_an_unknown_type_and_severity_are_an_event() -> None:
    one = OktaEvent.from_raw(event(eventType="brand.new.type", severity="APOCALYPTIC"))
    assert (one.event_type, one.severity) == ("brand.new.type", "APOCALYPTIC")


def test_an_event_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        OktaEvent.from_raw(event()).uuid = "other"


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_malformed(raw: bytes) -> None:
    with contextlib.suppress(MalformedEvent):
        OktaEvent.from_raw(raw)


@given(st.dictionaries(st.sampled_from(["actor", "target", "outcome", "severity", "published", "displayMessage", "reason"]), json_values))
def test_any_object_with_its_two_names_is_an_event(fields: dict[str, Any]) -> None:
    raw = event(**fields)
    one = OktaEvent.from_raw(raw)
    assert one.raw == raw
    for how in ("target", "target-or-actor", "actor", "none"):
        assert all(is_safe_id(person) for person in one.people(how))


# --- whom it names ----------------------------------------------------------------------------------------------------

A, B = user("00uA"), user("00uB")
GROUP, APP_USER = user("00g1", "UserGroup"), user("0ua1", "AppUser")


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("how", "actor", "target", "expected"),
    [
        ("target", B, [A], ("00uA",)),
        ("target", B, [GROUP, A], ("00uA",)),
        ("target", B, [A, B], ("00uA", "00uB")),
        ("target", B, [A, A], ("00uA",)),
        ("target", B, [GROUP], ()),
        ("target", B, [APP_USER], ()),
        ("target", B, None, ()),
        ("target", B, [], ()),
        ("target", B, A, ()),
        ("target", B, "00uA", ()),
        ("target-or-actor", B, [A], ("00uA",)),
        ("target-or-actor", B, [APP_USER], ("00uB",)),
        ("target-or-actor", B, None, ("00uB",)),
        ("target-or-actor", user("pd1", "PublicClientApp"), [], ()),
        ("actor", B, [A], ("00uB",)),
        ("actor", user("spr1", "SystemPrincipal"), [A], ()),
        ("actor", None, [A], ()),
        ("none", B, [A], ()),
    ],
)
def test_people(how: PersonRule, actor: object, target: object, expected: tuple[str, ...]) -> None:
    assert people({"actor": actor, "target": target}, how) == expected


@pytest.mark.fault(21)
@pytest.mark.parametrize("kind", [None, "user", "USER", "User ", 1, ["User"]])
def test_only_the_type_user_names_a_person(kind: object) -> None:
    assert people({"target": [user("00uA", kind)]}, "target") == ()


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    "bad", ["", "../00u1", "00u1?x=1", "00u%2f1", "00u1/", "me", "ME", "00u 1", "00u1\n", "00ü1", "٠", "0" * 129, None, 5, ["00u1"]]
)
def test_crafted_ids_name_nobody(bad: object) -> None:
    assert not is_safe_id(bad)
    assert people({"target": [user(bad)]}, "target") == ()


@pytest.mark.parametrize("good", ["00u4j7xcb5N6zfiRP5d8", "isv-wave-user-id", "1", "a_b", "0" * 128, "meme"])
def test_ids_that_may_stand_in_a_url(good: str) -> None:
    assert is_safe_id(good)


# --- times and digests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-05T09:00:00.000Z", datetime(2026, 1, 5, 9, tzinfo=UTC)),
        ("2026-01-05T09:00:00Z", datetime(2026, 1, 5, 9, tzinfo=UTC)),
        ("2026-01-05T09:00:00.809348Z", datetime(2026, 1, 5, 9, 0, 0, 809348, tzinfo=UTC)),
        ("2026-01-05T04:00:00-05:00", datetime(2026, 1, 5, 9, tzinfo=UTC)),
        ("2022-03-22 14:21:53.225", datetime(2022, 3, 22, 14, 21, 53, 225000, tzinfo=UTC)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    parsed = parse_time(text)
    assert parsed == expected
    assert parsed is not None
    assert parsed.utcoffset() == expected.utcoffset()


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    "value",
    [
        "2017-09-31T22:23:07.777Z",
        "2016-12-31T23:59:60Z",
        "",
        "yesterday",
        "null",
        None,
        1767603600,
        "9999-12-31T23:59:59-14:00",
        [],
        "٢٠٢٦-01-05",
    ],
)
def test_what_is_no_time_is_none_and_still_an_event(value: object) -> None:
    assert parse_time(value) is None
    assert OktaEvent.from_raw(event(published=value)).published is None


@given(st.text())
def test_any_text_is_a_time_or_none(text: str) -> None:
    parsed = parse_time(text)
    assert parsed is None or parsed.utcoffset() is not None


@given(
    st.lists(st.text(st.characters(exclude_characters="\0")), max_size=3),
    st.lists(st.text(st.characters(exclude_characters="\0")), max_size=3),
)
def test_digests_differ_where_parts_differ(one: list[str], other: list[str]) -> None:
    assert len(digest(*one)) == 32
    assert (digest(*one) == digest(*other)) == ((one or [""]) == (other or [""]))


def test_digest_takes_what_an_event_may_carry() -> None:
    assert digest("\ud800") != digest("\ud801")
