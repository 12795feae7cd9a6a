"""Secrets that must be seen nowhere (X1): each canary is a random word; at the end everything the suite wrote is searched for it.

A test gives a canary wherever a secret goes (a token, a client secret, a key) and uses the system. It need assert nothing: what
was written below pytest's temporary folder, what tests printed and logged, and what failures showed is searched when the session
ends, and one hit fails the session, naming the canary and the place, never the value.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

_CHUNK = 1 << 20
_OVERLAP = 256


class Canaries:
    """All canaries of one session. `vault` is the one folder that may hold them."""

    def __init__(self, vault: Path) -> None:
        self._vault = vault
        self._values: dict[str, str] = {}
        self._forms: dict[str, tuple[bytes, ...]] = {}
        self._heard: dict[str, None] = {}

    def __call__(self, name: str) -> str:
        """The canary of that name; letters and digits only, so that quoting in a URL or a form changes nothing."""
        if name not in self._values:
            self._values[name] = "canary" + secrets.token_hex(12)
            self._forms[name] = tuple(_forms(self._values[name]))
        return self._values[name]

    def file(self, name: str) -> Path:
        """A file (0600) that holds the canary, for `*_file` settings."""
        path = self._vault / name
        path.touch(mode=0o600)
        path.write_text(self(name) + "\n")
        return path

    def listen(self, place: str, text: str) -> None:
        """Searches a text that goes to no file: a test's output, a failure's explanation."""
        self._heard |= {f"{name}: {place}": None for name in self._found(text.encode("utf-8", "replace"))}

    def search(self, *roots: Path) -> list[str]:
        """`name: place` of each hit in the files below `roots` (the vault left out), and of each text that was listened to."""
        hits = list(self._heard)
        if self._values:
            for path in _files(roots, self._vault):
                hits += [f"{name}: {path}" for name in sorted(self._found_in_file(path))]
        return hits

    def _found_in_file(self, path: Path) -> set[str]:
        found: set[str] = set()
        tail = b""
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    found |= self._found(tail + chunk)
                    tail = chunk[-_OVERLAP:]
        except OSError:
            return found  # it went away meanwhile, or cannot be read
        return found

    def _found(self, data: bytes) -> set[str]:
        return {name for name, forms in self._forms.items() if any(form in data for form in forms)}


def _files(roots: Iterable[Path], without: Path) -> Iterator[Path]:
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink() and without not in path.parents:
                yield path


def _forms(value: str) -> Iterator[bytes]:
    """The word itself and the three ways it can stand inside base64 (a Basic header, a BLOB shown as text)."""
    raw = value.encode()
    yield raw
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        yield encoded[4 if shift else 0 : len(encoded) - 4]
