"""Whose is an account that appears? Ours, if our own durable wish to create it came first (D21).

Before a creation goes out, a link without an account is made durable: the wish. A look that later finds the account under the exact
key turns the wish into a link, whether the answer was lost, came as a 503 after the write, or the process died. Where the call
certainly had no effect, the wish is withdrawn, so that somebody else's account is not taken for ours.
Rejected: reading the journal for open intents (it is a log, not a state), and adopting whatever carries the login.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from handlers.contract import Clock, LinkBook
from handlers.perform import Attempt, new_intent
from model.change import Change
from model.errors import Ambiguous, BreakerOpen, PermanentError, RateLimited
from model.person import Link, Person

_WITHDRAWN = "withdrawn:"
#: Errors after which it is certain that nothing was created.
_NO_EFFECT = (PermanentError, RateLimited, BreakerOpen)


def is_made(link: Link | None) -> bool:
    return link is not None and link.account != ""


def is_pending(link: Link | None) -> bool:
    """A wish: we meant to create the account and do not know what came of it."""
    return link is not None and not link.account and not link.made_by.startswith(_WITHDRAWN)


class Creations:
    def __init__(self, links: LinkBook, clock: Clock) -> None:
        self.links = links
        self.clock = clock

    async def create(self, person: Person, change: Change, call: Callable[[Change, str], Awaitable[Attempt]]) -> Attempt:
        """Wish, call with the wish's intent, link. An account that was there although no wish of ours stood is a case (`unlinked`).

        `args["adopt"]` tells the target that an older wish of ours stands: a login that is taken is then ours, not a case.
        """
        known = await self.links.find(person.tenant, person.id, change.target)
        intent, at = new_intent(), self.clock.now()
        wish = Link(tenant=person.tenant, person=person.id, target=change.target, account="", login=person.login, made_by=intent, at=at)
        await self.links.make(wish)
        if is_pending(known):
            change = change.model_copy(update={"args": change.args | {"adopt": True}})
        attempt = await call(change, intent)
        if isinstance(attempt.error, _NO_EFFECT):
            if not is_pending(known):  # an older wish whose outcome is unknown stays
                await self._withdraw(wish)
        elif attempt.applied is not None and attempt.applied.already and not is_pending(known):
            await self._withdraw(wish)
            error = Ambiguous(f"the account {attempt.applied.account} was there before: run `portcullis link`", "unlinked")
            return Attempt(attempt.change, attempt.action, attempt.applied, error)
        elif attempt.applied is not None:
            await self.adopt(wish, attempt.applied.account)
        return attempt

    async def adopt(self, wish: Link, account: str) -> None:
        await self.links.make(wish.model_copy(update={"account": account, "at": self.clock.now()}))

    async def _withdraw(self, wish: Link) -> None:
        await self.links.make(wish.model_copy(update={"made_by": f"{_WITHDRAWN}{wish.made_by}", "at": self.clock.now()}))
