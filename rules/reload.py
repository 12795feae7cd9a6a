"""Hot reload: the folder is watched by its content, and what does not load changes nothing.

By content and not by time stamps, because a checkout, a mounted ConfigMap or a restored backup keeps those; and a change is taken up only
when two looks in a row see the same, because an editor and `git pull` write a set file by file. Rejected: inotify (no events on network file
systems and mounted volumes), a signal (nobody sends it), reloading rule by rule (correlations refer to one another).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from model.errors import ConfigurationError
from rules.ruleset import RuleSet
from rules.sigma.source import rule_files

log = logging.getLogger(__name__)

_PLACE = re.compile(r"(?P<path>.+?):(?P<line>\d+): (?P<reason>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A set that was taken over: ids of the rules that are new, gone, or other than before. All empty: the guards changed, or what was
    refused has gone back to what is in use."""

    ruleset: RuleSet
    before: str
    version: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A set that does not load; `version` is that of the one that stays. `path` and `line` are empty and 0 where the reason names none."""

    path: str
    line: int
    reason: str
    version: str

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


def version_of(ruleset: RuleSet) -> str:
    """16 hex digits over the ids and versions of all rules."""
    text = "\0".join(f"{rule.id}\0{rule.version}" for rule in sorted(ruleset, key=lambda rule: rule.id))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def content_of(paths: Iterable[Path]) -> str:
    """A hash over the names and bytes of all rule files below some folders, and of files. Raises OSError where one vanishes meanwhile."""
    digest = hashlib.sha256()
    for root in paths:
        try:
            files = rule_files(root)
        except ConfigurationError:
            digest.update(b"absent\0")
            continue
        for path in files:
            name = str(path.relative_to(root)).encode("utf-8", "surrogateescape")
            digest.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        digest.update(b"end\0")
    return digest.hexdigest()


class Reloader:
    """`load` reads the set anew, `watched` are the folder and files that it reads, `current` is the set in use. Not thread-safe; a look
    takes as long as loading does (a second for hundreds of rules), so it belongs off the event loop."""

    def __init__(self, current: RuleSet, load: Callable[[], RuleSet], watched: Iterable[Path]) -> None:
        self.current = current
        self._load, self._watched = load, tuple(watched)
        #: The content of the set in use; unknown until the first looks: what was changed while we started is found as well.
        self._known: str | None = None
        self._seen: str | None = None
        self._refused: str | None = None

    def look(self) -> Reloaded | Refused | None:
        """What has become of a change since the last look; None: nothing new. Never raises."""
        try:
            content = content_of(self._watched)
        except OSError:
            self._seen = None
            return None
        settled, self._seen = content == self._seen, content
        if not settled or content == self._refused:
            return None
        if content == self._known:
            was_refused, self._refused = self._refused is not None, None
            return self._outcome(self.current) if was_refused else None
        return self._take(content)

    def _take(self, content: str) -> Reloaded | Refused | None:
        try:
            ruleset = self._load()
            if content_of(self._watched) != content:
                return None  # changed while it was read: the next looks see it
        except ConfigurationError as error:
            self._refused = content
            return self._refusal(str(error))
        except OSError:
            return None
        except Exception as error:
            log.exception("the rules cannot be loaded")
            self._refused = content
            return self._refusal(f"a defect in loading them: {type(error).__name__}: {error}")
        is_first, was_refused = self._known is None, self._refused is not None
        self._known, self._refused = content, None
        outcome = self._outcome(ruleset)
        self.current = ruleset
        return None if is_first and not was_refused and outcome.before == outcome.version else outcome

    def _outcome(self, ruleset: RuleSet) -> Reloaded:
        before = {rule.id: rule.version for rule in self.current}
        after = {rule.id: rule.version for rule in ruleset}
        return Reloaded(
            ruleset,
            version_of(self.current),
            version_of(ruleset),
            tuple(sorted(after.keys() - before.keys())),
            tuple(sorted(before.keys() - after.keys())),
            tuple(sorted(one for one in before.keys() & after.keys() if before[one] != after[one])),
        )

    def _refusal(self, text: str) -> Refused:
        found = _PLACE.fullmatch(text)
        version = version_of(self.current)
        if found is None:
            path, _, reason = text.partition(": ")
            return Refused(path, 0, reason, version) if reason else Refused("", 0, text, version)
        return Refused(found["path"], int(found["line"]), found["reason"], version)
