"""All questions that an event type leaves open, written as one Python function: objects that several rules look into are fetched once, plain
comparisons stand inline, and so do the texts that correlations group by. This is what makes fifty rules cost about what reading the JSON does
(closures alone take twice as long).

The function knows the shapes that Okta writes. Where it meets another one it hands the event to the closures, which know all of them; a
test holds both against each other. The source is built from our own words and `repr` of field names; values of rules are constants that it is
given, never text in it. Rejected: closures only (slower), and a bytecode of our own (slower still).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rules.sigma.expression import And, Check, Const, Leaf, Node, Not, compiled, leaves_of
from rules.sigma.field import MISSING, Event, Only, path_of, reader
from rules.sigma.text import structure_of

Hit = TypeVar("Hit")
#: Texts to be read: each part is a list of fields. One part gives a tuple of its texts, several give a tuple of such tuples, none the empty one.
Read = tuple[tuple[str, ...], ...]
#: What was read: False where a field is missing or null, None where it is neither that nor one text (ask `reader`).
Got = tuple[Any, ...] | bool | None
#: Paths deeper than this are left to closures.
_DEEPEST_PATH = 6

#: Values of one field remembered by one question, and fields whose values are too many for that.
_MOST_VERDICTS = 256
_MANY_VALUED = frozenset({"id", "alternateId", "displayName", "ipAddress", "uuid", "externalSessionId", "requestUri", "url"})

_NOTHING: dict[str, Any] = {}


def program(asked: Sequence[tuple[Node, Hit]], reads: Sequence[Read] = ()) -> Callable[[Event], tuple[list[Hit], tuple[Got, ...]]]:
    """A function that gives, in order, the hits of the nodes that hold for an event, and what was read (nothing where nothing hit).

    It never raises. For an event of an odd shape the closures answer, and everything read is None.
    """
    checks: list[tuple[Check, Hit]] = [(compiled(node), hit) for node, hit in asked]
    unread: tuple[Got, ...] = tuple(None if read else () for read in reads)

    def slow(event: Event) -> tuple[list[Hit], tuple[Got, ...]]:
        return [hit for check, hit in checks if check(event)], unread

    return _Writer().write(asked, reads, slow) if asked else slow


def _opened(value: Any) -> dict[str, Any] | None:
    """A value that is no dict, as the object that a path goes on in: empty for what holds nothing; None for lists, which ask for the closures."""
    found = structure_of(value) if value.__class__ is str else value
    if found.__class__ is dict:
        return found
    return None if found.__class__ is list else _NOTHING


class _Verdicts(dict[str, bool]):
    """Text → whether it is one of some texts, remembered: fields such as `outcome.result` have few values, and each event asks again."""

    def __init__(self, folded: frozenset[str]) -> None:
        super().__init__()
        self._folded = folded

    def __missing__(self, text: str) -> bool:
        found = text.casefold() in self._folded
        if len(self) >= _MOST_VERDICTS:
            self.clear()
        self[text] = found
        return found


class _Writer:
    def __init__(self) -> None:
        self._constants: dict[str, Any] = {"opened": _opened, "nothing": _NOTHING}
        self._uses: Counter[Leaf] = Counter()
        self._answers: dict[Leaf, str] = {}
        self._lines: list[str] = []
        self._reads: list[str] = []
        self._read_names: dict[Read, str] = {}
        self._field_names: dict[str, str] = {}
        self._objects: dict[tuple[str, ...], str] = {(): "event"}

    def write(self, asked: Sequence[tuple[Node, Any]], reads: Sequence[Read], slow: Callable[[Event], Any]) -> Callable[[Event], Any]:
        self._constants["slow"] = slow
        self._uses.update(leaf for node, _ in asked for leaf, _ in leaves_of(node))
        body = [f"    if {self._node(node)}:\n        hits.append({self._constant('H', hit)})" for node, hit in asked]
        texts = [self._read(read) for read in reads]
        answer = [
            "    if not hits:",
            "        return hits, ()",
            *self._reads,
            f"    return hits, ({''.join(f'{name}, ' for name in texts)})",
        ]
        source = "\n".join(["def run(event):", *self._lines, "    hits = []", *body, *answer, ""])
        exec(compile(source, "<rules>", "exec"), self._constants)  # noqa: S102 - the source is our own, see above
        run: Callable[[Event], Any] = self._constants["run"]
        return run

    def _read(self, read: Read) -> str:
        """The name under which the texts of a read stand, once they are read."""
        if not read:
            return "()"
        if read not in self._read_names:
            parts = [self._read((part,)) for part in read] if len(read) > 1 else [self._field(field) for field in read[0]]
            kind = "tuple" if len(read) > 1 else "str"
            nothing = "False" if len(read) > 1 else "None"
            name = self._read_names[read] = f"k{len(self._read_names)}"
            whole = " and ".join(f"{part}.__class__ is {kind}" for part in parts) or "True"
            empty = " or ".join(f"{part} is {nothing}" for part in parts) or "False"
            self._reads.append(f"    {name} = ({''.join(f'{part}, ' for part in parts)}) if {whole} else False if {empty} else None")
        return self._read_names[read]

    def _field(self, field: str) -> str:
        """The name under which one field's value stands: None where it is missing."""
        if field not in self._field_names:
            name = self._field_names[field] = f"f{len(self._field_names)}"
            names = _names_of(field)
            if names is None:
                self._reads.append(f"    {name} = {self._constant('R', reader(field))}(event)")
                self._reads.append(f"    if {name} is {self._constant('M', MISSING)}: {name} = None")
            else:
                self._reads.append(f"    {name} = {self._object(names[:-1])}.get({names[-1]!r})")
        return self._field_names[field]

    def _constant(self, kind: str, value: Any) -> str:
        name = f"{kind}{len(self._constants)}"
        self._constants[name] = value
        return name

    def _node(self, node: Node) -> str:
        if isinstance(node, Leaf):
            return self._leaf(node)
        if isinstance(node, Const):
            return str(node.value)
        if isinstance(node, Not):
            return f"not {self._node(node.child)}"
        word = " and " if isinstance(node, And) else " or "
        return f"({word.join(self._node(child) for child in sorted(node.children, key=_weight))})"

    def _leaf(self, leaf: Leaf) -> str:
        """The leaf as an expression; one that several rules ask, and that costs little, is answered once, before all of them."""
        path = _plain_path(leaf)
        if path is None:
            return f"{self._constant('L', leaf.check)}(event)"
        if leaf in self._answers:
            return self._answers[leaf]
        answer = self._comparison(leaf, path)
        if self._uses[leaf] == 1:
            return answer
        name = self._answers[leaf] = f"b{len(self._answers)}"
        self._lines.append(f"    {name} = {answer}")
        return name

    def _comparison(self, leaf: Leaf, path: tuple[str, ...]) -> str:
        assert leaf.values is not None
        value = f"v{len(self._constants)}"
        if path[-1] in _MANY_VALUED:
            wanted = leaf.values | {upper for text in leaf.values if (upper := text.upper()).casefold() == text}
            test = f"({value} in {self._constant('W', wanted)} or {value}.casefold() in {self._constant('T', leaf.values)})"
        else:
            test = f"{self._constant('V', _Verdicts(leaf.values))}[{value}]"
        read = f"({value} := {self._object(path[:-1])}.get({path[-1]!r})).__class__ is str"
        other = f"{value} is not None and {self._constant('L', leaf.check)}(event)"
        if flags := tuple(flag for flag in (True, False) if str(flag).casefold() in leaf.values):
            other = f"{value} in {flags!r} if {value}.__class__ is bool else {other}"
        return f"({test} if {read} else ({other}))"

    def _object(self, path: tuple[str, ...]) -> str:
        """The name of the object at a path, fetched at the function's beginning."""
        name = self._objects.get(path)
        if name is None:
            parent = self._object(path[:-1])
            name = self._objects[path] = f"o{len(self._objects)}"
            self._lines += [
                f"    {name} = {parent}.get({path[-1]!r})",
                f"    if {name}.__class__ is not dict:",
                f"        {name} = nothing if {name} is None else opened({name})",
                f"        if {name} is None:",
                "            return slow(event)",
            ]
        return name


def _plain_path(leaf: Leaf) -> tuple[str, ...] | None:
    """The path of a leaf that compares whole texts below an object; everything else is left to its closure."""
    return None if leaf.values is None or leaf.name is None or leaf.fields else _names_of(leaf.name)


def _names_of(field: str) -> tuple[str, ...] | None:
    """The steps of a path through objects only; None for lists and what else needs `walk`."""
    path = path_of(field)
    names = tuple(key for key in path if not isinstance(key, Only))
    plain = len(names) == len(path) <= _DEEPEST_PATH and names[0] != "target" and not any(name.isdecimal() for name in names)
    return names if plain else None


def _weight(node: Node) -> int:
    if isinstance(node, Leaf):
        return node.cost if _plain_path(node) is not None else node.cost + 3
    if isinstance(node, Not):
        return _weight(node.child)
    return 0 if isinstance(node, Const) else sum(_weight(child) for child in node.children)
