"""A rule as the classifier holds it, and the `portcullis:` section that says what Sigma has no words for.

The section is strict: an unknown key or a wrong word refuses the rule. Without it a rule only alerts (D20).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.decision import Response, Scope, Severity
from model.event import PersonRule
from rules.sigma.expression import Expression
from rules.sigma.source import Document

#: The guards of default-rules.md that a rule may name; what each means stands in `rules/guards.py`.
GuardName = Literal["BG", "SVC", "ADM", "HD", "NEWU", "NET", "ACT", "CB", "LOOP", "ORD", "SYNC", "CASE", "RATE", "SIM"]


class Section(BaseModel):
    """The `portcullis:` section of a rule file.

    `person` says who is meant where it is not the target User, else the actor User. `downstream` leaves Okta out (D15). `after_approval`
    is text for the runbook that nothing executes. `outcome: any` says that the rule means every outcome (lint asks). `shadow` counts and reports, and asks for nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")
    response: Response = Response.ALERT
    scope: Scope = Scope.SESSIONS
    person: PersonRule = "target-or-actor"
    downstream: bool = False
    shadow: bool = False
    outcome: Literal["tested", "any"] = "tested"
    guards: tuple[GuardName, ...] = ()
    runbook: str = ""
    after_approval: str = ""
    basis: str = ""

    @model_validator(mode="after")
    def _lockdown_has_somebody(self) -> Section:
        if self.response is not Response.ALERT and self.person == "none":
            raise ValueError(f"response {self.response.value} needs somebody: person is none")
        return self


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, ready to be asked. `id` is the section's, else Sigma's id, else its name; `version` changes with its content."""

    id: str
    version: str
    title: str
    severity: Severity
    path: Path
    line: int
    section: Section
    expression: Expression = field(compare=False)
    name: str | None = None
    sigma_id: str | None = None
    description: str = ""
    status: str = ""
    tags: tuple[str, ...] = ()
    falsepositives: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()

    @property
    def response(self) -> Response:
        return self.section.response

    @property
    def scope(self) -> Scope:
        return self.section.scope

    @property
    def person(self) -> PersonRule:
        return self.section.person

    @property
    def downstream(self) -> bool:
        return self.section.downstream

    @property
    def runbook(self) -> str:
        return self.section.runbook

    @property
    def names(self) -> tuple[str, ...]:
        """All names under which another rule may refer to this one."""
        return tuple(dict.fromkeys(name for name in (self.id, self.sigma_id, self.name) if name))


def section_of(document: Document) -> Section:
    """The document's section, checked. Raises ConfigurationError with path, line, what is wrong and the nearest known key."""
    raw = document.data.get("portcullis")
    if raw is None:
        return Section()
    if not isinstance(raw, dict):
        raise document.refuse("portcullis: must be a mapping", "portcullis")
    try:
        return Section.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        keys = ("portcullis", *first["loc"])
        what = ".".join(str(key) for key in keys)
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(keys[-1]), Section.model_fields, n=1)
            raise document.refuse(f"{what}: no such key" + (f": did you mean {near[0]}?" if near else ""), *keys) from None
        raise document.refuse(f"{what}: {first['msg']}", *keys) from None
