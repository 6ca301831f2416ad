"""The moment from which labels are looked at, as run configuration."""

from datetime import UTC, datetime

import dagster as dg

from fraud_platform.errors import SettingsError

TRAINING_STEP = "training_dbt"
"""The step that looks at labels: it takes this configuration."""


class AsOf(dg.Config):
    """as_of: a date or a moment in UTC (2018-08-01, 2018-08-01T06:00:00); empty takes the end of the data."""

    as_of: str = ""

    @property
    def ms(self) -> int | None:
        return parse_as_of(self.as_of)


def parse_as_of(text: str) -> int | None:
    """A date or moment as ms UTC, None for empty text. Raises SettingsError for anything else.

    >>> parse_as_of("1970-01-02")
    86400000
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"as_of {text!r} is neither a date nor a moment; write 2018-08-01 or 2018-08-01T06:00:00"
        ) from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(moment.timestamp() * 1000)
