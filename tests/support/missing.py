"""Something that a test needs is not on this machine: one clear line on a laptop, a failure in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def missing(what: str) -> NoReturn:
    if in_ci():
        pytest.fail(f"{what} (under CI it must be there)", pytrace=False)
    pytest.skip(what)
