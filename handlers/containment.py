"""What came of a containment, a release or a read-back: values that the stream shows, stores and retries by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from model.change import Action, ActionStatus, ChangeKind
from model.person import Hold

#: closed: all calls answered. nothing: no account, so nothing to close. restored: what was there before stands again.
#: failed: worth another try. refused: never as it is (a human is paged). planned: dry run. left: deliberately not touched.
TargetState = Literal["closed", "nothing", "restored", "failed", "refused", "planned", "left"]


@dataclass(frozen=True, slots=True)
class TargetResult:
    """One target's share. Times are aware UTC; `answered` is when the last call was answered (the end of containment there),
    `observed` when an independent read showed it. `retry`: this target must be tried again, no sooner than `delay` seconds."""

    target: str
    state: TargetState
    account: str = ""
    code: str = ""
    reason: str = ""
    started: datetime | None = None
    looked: datetime | None = None
    answered: datetime | None = None
    observed: datetime | None = None
    retry: bool = False
    delay: float | None = None
    page: bool = False
    actions: tuple[Action, ...] = ()

    @property
    def is_good(self) -> bool:
        return self.state in ("closed", "nothing", "restored", "planned", "left")

    @property
    def is_suspended(self) -> bool:
        """The suspension was acknowledged, whatever became of the rest."""
        done = (ActionStatus.DONE, ActionStatus.ALREADY)
        return any(one.status in done and one.change.startswith(ChangeKind.DEACTIVATE.value) for one in self.actions)


@dataclass(frozen=True, slots=True)
class ContainmentResult:
    """contained: every target closed or without an account. partial: some are not (never "done"). failed: none is closed.
    refused: the guard said no (`code`), nothing was called. superseded: the Hold was released, or the leaver is back.
    released / still_held belong to `release`. `hold` is the Hold as it was last written (with what release restores)."""

    state: Literal["contained", "partial", "failed", "refused", "superseded", "released", "still_held"]
    targets: tuple[TargetResult, ...] = ()
    hold: Hold | None = None
    code: str = ""
    reason: str = ""
    page: bool = False

    @property
    def retry(self) -> frozenset[str]:
        return frozenset(one.target for one in self.targets if one.retry)

    @property
    def suspended(self) -> frozenset[str]:
        """Targets to be tried again that have acknowledged the suspension: only the rest is left."""
        return frozenset(one.target for one in self.targets if one.retry and one.is_suspended)

    @property
    def delay(self) -> float | None:
        """The longest wait that a vendor asked for among the targets to try again; None: the retry policy decides."""
        asked = [one.delay for one in self.targets if one.retry and one.delay is not None]
        return max(asked, default=None)


def summed(targets: Iterable[TargetResult], hold: Hold | None = None) -> ContainmentResult:
    results = tuple(targets)
    bad = [one for one in results if not one.is_good]
    closed = any(one.state in ("closed", "planned") for one in results)
    state: Literal["contained", "partial", "failed"] = (
        "contained" if not bad else "partial" if closed or len(bad) < len(results) else "failed"
    )
    reason = "; ".join(f"{one.target}: {one.reason}" for one in bad)
    return ContainmentResult(state, results, hold, code=bad[0].code if bad else "", reason=reason, page=any(one.page for one in results))


@dataclass(frozen=True, slots=True)
class Drift:
    """One target under a Hold, read again. shut: as it should be. closed_again: it was open and is shut now. open: it was open and
    still is (closing failed, or it had been closed again before, which is a human's matter now). `is_unfinished`: shut, but the
    sessions that were open meanwhile could not be ended yet."""

    target: str
    state: Literal["shut", "closed_again", "open", "unread"]
    account: str = ""
    reason: str = ""
    result: TargetResult | None = None
    is_unfinished: bool = False


@dataclass(frozen=True, slots=True)
class DriftResult:
    """`page` when anybody was open again (N12); `retry` names targets that could not be read or closed, `unfinished` those that are
    shut and whose sessions are still to be ended."""

    targets: tuple[Drift, ...] = ()
    hold: Hold | None = None

    @property
    def page(self) -> bool:
        return any(one.state in ("closed_again", "open") for one in self.targets)

    @property
    def closed_again(self) -> frozenset[str]:
        return frozenset(one.target for one in self.targets if one.state == "closed_again")

    @property
    def retry(self) -> frozenset[str]:
        return frozenset(one.target for one in self.targets if one.state == "unread" or (one.result is not None and one.result.retry))

    @property
    def unfinished(self) -> frozenset[str]:
        return frozenset(one.target for one in self.targets if one.is_unfinished)

    @property
    def delay(self) -> float | None:
        asked = [one.result.delay for one in self.targets if one.result is not None and one.result.delay is not None]
        return max(asked, default=None)


class HoldWriter(Protocol):
    """The lockdown lane's own pen (D11). Returns when Kafka has acknowledged (acks=all); the last call of a Hold is its state."""

    async def write(self, hold: Hold) -> None: ...
