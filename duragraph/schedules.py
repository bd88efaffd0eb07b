"""Cron schedules: reads expressions and time zones, bounded, and says when the next tick is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, CroniterError, croniter  # type: ignore[import-untyped]  # has no types

from duragraph.errors import Invalid

_LENGTH = 200
_FIELDS = (5, 6)
_YEARS = 30
# No number of more than two digits: ranges and steps stay small before they are spread out.
_FIELD = re.compile(r"(?!.*\d{3})[0-9a-z*,/#?-]+")
_ALIAS = re.compile(r"@(?:yearly|annually|monthly|weekly|daily|midnight|hourly)")
# croniter's own words for a hashed or random moment: not the same in every process.
_CHANCE = re.compile(r"(?:^|,)[hr]")
# Not the machine's own zone, nor the copies of the database that some systems keep beside it.
_ZONE = re.compile(r"(?!localtime|posix|right|Factory)[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,3}")
_HINT = 'use "minute hour day month weekday", for example "*/5 * * * *" for every 5 minutes'
_A_WHILE = timedelta(hours=3)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a cron fires, in the wall clock of its time zone.

    A schedule that names its hours fires once for each time it names: where clocks are set forward and that time is
    skipped, so much later; where they are set back and it comes twice, the first time. One with an hour field that
    begins with "*" goes by elapsed time: through the repeated hour, and not at all in the skipped one.
    """

    expression: str
    zone: ZoneInfo
    every_hour: bool

    def next_after(self, moment: datetime) -> datetime:
        """The first tick after `moment`, in UTC; `Invalid` when there is none in 30 years."""
        best: datetime | None = None
        ticks = croniter(self.expression, self._begin(moment), max_years_between_matches=_YEARS)
        try:
            while True:
                wall = ticks.get_next(datetime)
                first = wall.replace(tzinfo=self.zone).astimezone(UTC)
                if best is not None and first >= best:
                    return best
                for tick in self._ticks(wall, first):
                    if tick > moment and (best is None or tick < best):
                        best = tick
        except (CroniterBadDateError, OverflowError):
            raise Invalid(
                f"schedule: {self.expression!r} never comes", code="invalid_schedule", field="schedule", hint=_HINT
            ) from None

    def _begin(self, moment: datetime) -> datetime:
        """The wall clock at `moment`, or a while before where the clock was set in between, or is set twice."""
        now, before = moment.astimezone(self.zone), (moment - _A_WHILE).astimezone(self.zone)
        changed = (
            now.utcoffset() != before.utcoffset() or now.replace(fold=0).utcoffset() != now.replace(fold=1).utcoffset()
        )
        return (before if changed else now).replace(tzinfo=None, fold=0)

    def _ticks(self, wall: datetime, first: datetime) -> list[datetime]:
        second = wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC)
        if first == second:
            return [first]
        if first.astimezone(self.zone).replace(tzinfo=None) != wall:
            return [] if self.every_hour else [first]
        return [first, second] if self.every_hour else [first]


def parse(expression: str, timezone: str | None) -> Schedule:
    """Read a schedule and its zone (none: UTC); `Invalid` names the field. Fires by the minute: a field of seconds is
    checked and left out."""
    fields = expression.lower().split()
    text = " ".join(fields[:5])
    spelt = len(fields) in _FIELDS and all(map(_FIELD.fullmatch, fields)) and not any(map(_CHANCE.search, fields))
    if len(expression) > _LENGTH or not (spelt or _ALIAS.fullmatch(text)):
        raise _wrong_schedule(expression)
    try:
        expanded, _ = croniter.expand(" ".join(fields))
    except (CroniterError, ValueError, KeyError, IndexError):
        raise _wrong_schedule(expression) from None
    every_hour = expanded[1] == ["*"] or (spelt and fields[1].startswith("*"))
    return Schedule(text, _zone(timezone), every_hour)


def _wrong_schedule(expression: str) -> Invalid:
    shown = expression if len(expression) <= _LENGTH else f"{expression[:_LENGTH]}..."
    return Invalid(f"schedule: {shown!r} is no cron expression", code="invalid_schedule", field="schedule", hint=_HINT)


def _zone(name: str | None) -> ZoneInfo:
    try:
        if name is not None and not (len(name) <= 64 and _ZONE.fullmatch(name)):
            raise ValueError(name)
        return ZoneInfo("UTC" if name is None else name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise Invalid(
            "timezone: no such time zone",
            code="invalid_timezone",
            field="timezone",
            hint='use an IANA name, for example "Europe/Berlin"',
        ) from None
