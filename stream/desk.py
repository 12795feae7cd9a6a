"""What a human's command needs of a running system: a look at its state topics, and a record on `portcullis.commands` (D30).

Commands are records with actor and reason, so they are kept and audited like everything else; the lane that owns the subject carries
them out. Only a real broker can be reached from another process.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any, Literal

from model.errors import ConfigurationError
from model.records import Command
from model.settings import Settings
from stream import topics
from stream.books import Latch
from stream.broker import Broker, Publisher
from stream.clock import SystemClock
from stream.schedule import Due
from stream.state import Follower
from stream.topics import Topic

CommandKind = Literal["release", "redrive", "drop", "reset_brake", "link"]


class Desk:
    def __init__(self, broker: Broker, publisher: Publisher) -> None:
        self.broker, self._publisher = broker, publisher

    async def snapshot(self, topic: Topic) -> dict[str, bytes]:
        """A state topic as it stands now."""
        follower = Follower(self.broker, topic)
        await follower.start()
        await follower.stop()
        return follower.values

    async def parked(self) -> list[Due]:
        found = [Due.from_bytes(value) for value in (await self.snapshot(topics.DUE)).values()]
        return sorted((due for due in found if due.kind == "parked"), key=lambda due: due.due)

    async def latches(self) -> dict[str, Latch]:
        return {key: Latch.from_bytes(value) for key, value in (await self.snapshot(topics.HOLDS)).items()}

    async def order(
        self, kind: CommandKind, tenant: str, person: str, actor: str, reason: str, key: bytes | None = None, **args: Any
    ) -> Command:
        """Writes a command. `key` where its subject is no person (a brake)."""
        if not actor.strip() or not reason.strip():
            raise ConfigurationError("--actor and --reason say who orders this and why: both are kept in the audit trail")
        command = Command(
            id=uuid.uuid4().hex, kind=kind, tenant=tenant, person=person, actor=actor, reason=reason, args=args, at=SystemClock().now()
        )
        await self._publisher.send(topics.COMMANDS, key or topics.person_key(tenant, person), command.to_bytes())
        return command


@contextlib.asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    if settings.kafka.bootstrap is None:
        raise ConfigurationError("the embedded broker cannot be reached from another process: set [kafka] bootstrap to a real one")
    broker = Broker(settings.kafka)
    await broker.start()
    publisher = Publisher(broker)
    await publisher.start()
    try:
        yield Desk(broker, publisher)
    finally:
        await publisher.stop()
        await broker.stop()
