"""A rule as the classifier holds it, and the `portcullis:` section that says what Sigma has no words for.

The section is strict: an unknown key or a wrong word refuses the rule. Without it a rule only alerts (D20).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from model.decision import Response, Scope, Severity
from model.event import PersonRule
from rules.correlation.spec import Spec, seconds_of
from rules.sigma.expression import Check, Expression
from rules.sigma.source import Document

#: The guards of default-rules.md that a rule may name; what each means stands in `rules/guards.py`.
GuardName = Literal["BG", "SVC", "ADM", "HD", "NEWU", "NET", "ACT", "CB", "LOOP", "ORD", "SYNC", "CASE", "RATE", "SIM"]


def _span(value: Any) -> Any:
    return seconds_of(value) if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


#: `10m` in a file, seconds in the model.
Span = Annotated[float, BeforeValidator(_span), Field(ge=0)]
#: One name or a list of names.
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WindowSection(_Part):
    """How a correlation keeps its windows: events of a group that come up to `grace` late still count; of more than `max_groups` groups the
    one idle longest is forgotten, of more than `max_events` events of a group the oldest. `min_gap` parts the steps of temporal_ordered."""

    grace: Span = 120.0
    max_groups: int = Field(default=20_000, ge=1, le=1_000_000)
    max_events: int | None = Field(default=None, ge=2, le=100_000)
    min_gap: Span = 0.0


class AlsoSection(_Part):
    """A further count of distinct values over the window of a value_count: it must hold as well."""

    field: Names
    gte: int = Field(ge=1, le=1024)


class FirstSeenSection(_Part):
    """The rule holds only where the values of `field` are new for the group `by` within `within`. Values are learnt from the events that
    the rule itself matches, or from those of the rules in `learn`. `gate: false`: it holds anyway, only `severity.first_seen` asks."""

    field: Names
    by: Names = ()
    within: Span
    learn: Names = ()
    gate: bool = True
    max_groups: int = Field(default=50_000, ge=1, le=1_000_000)
    max_values: int = Field(default=64, ge=1, le=10_000)


class AbsenceSection(_Part):
    """The rule holds where its event is not followed by an event of the rule `expect` for the same group within `within`."""

    expect: str
    within: Span = Field(gt=0)
    by: Names
    grace: Span = 120.0
    max_groups: int = Field(default=20_000, ge=1, le=1_000_000)


class Section(_Part):
    """The `portcullis:` section of a rule file.

    `person` says who is meant where it is not the target User, else the actor User; `person_from` names the member rule of a correlation
    whose event says it. `downstream` leaves Okta out (D15). `after_approval` is text for the runbook that nothing executes. `outcome: any`
    says that the rule means every outcome (lint asks). `severity` gives another severity where a search identifier holds (the first that
    does; `first_seen` where the values were new). `unless` names rules whose event ends what a temporal_ordered has begun. `also` are
    further counts of a value_count. `shadow` counts and reports, and asks for nothing.
    """

    id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")
    response: Response = Response.ALERT
    scope: Scope = Scope.SESSIONS
    person: PersonRule = "target-or-actor"
    person_from: str | None = None
    downstream: bool = False
    shadow: bool = False
    outcome: Literal["tested", "any"] = "tested"
    guards: tuple[GuardName, ...] = ()
    severity: dict[str, Severity] = {}
    first_seen: FirstSeenSection | None = None
    absence: AbsenceSection | None = None
    unless: Names = ()
    also: tuple[AlsoSection, ...] = ()
    window: WindowSection = WindowSection()
    runbook: str = ""
    after_approval: str = ""
    basis: str = ""

    @model_validator(mode="after")
    def _response_has_somebody(self) -> Section:
        if self.response is not Response.ALERT and self.person == "none":
            raise ValueError(f"response {self.response.value} needs somebody: person is none")
        return self


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, ready to be asked. `id` is the section's, else Sigma's id, else its name; `version` changes with its content and with that
    of the rules it refers to. `expression` is asked of events, `spec` is a correlation; a rule with `absence` has both.

    `emits` is False for a rule that only serves correlations. `severities` are the section's conditional severities, compiled.
    `unused` are search identifiers that the condition does not name, `undefined` the placeholders left empty under a `not`.
    """

    id: str
    version: str
    title: str
    severity: Severity
    path: Path
    line: int
    section: Section
    expression: Expression | None = field(default=None, compare=False)
    spec: Spec | None = None
    emits: bool = True
    severities: tuple[tuple[Check | None, Severity], ...] = field(default=(), compare=False)
    name: str | None = None
    sigma_id: str | None = None
    description: str = ""
    status: str = ""
    tags: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    falsepositives: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    #: Names as written → ids of the rules referred to.
    refers: Mapping[str, str] = field(default_factory=dict)

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
    def match_id(self) -> str:
        """Under what the rule's matching events go to correlations: an absence is reported under the rule's id, its beginning is not."""
        return f"{self.id}#begun" if self.section.absence is not None else self.id

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
