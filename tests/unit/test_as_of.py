"""as_of: a moment that the data can know of, or an error that names it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fraud_platform.defs.as_of import AsOf, parse_as_of
from fraud_platform.defs.features import _require_known
from fraud_platform.defs.platform import Platform
from fraud_platform.errors import SettingsError
from fraud_platform.settings import Settings

NOON = parse_as_of("2025-03-01T12:00:00")


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    found = Platform(Settings(tmp_path))
    found.warehouse.write_table("ingest.transactions", pd.DataFrame({"event_time": [NOON]}))
    found.warehouse.write_table("ingest.labels", pd.DataFrame({"known_at": [0]}))
    return found


@pytest.mark.parametrize("as_of", ["", "2025-02-01", "2025-03-01T12:00:00", "2025-03-02"])
def test_up_to_the_end_of_the_last_day_labels_can_be_looked_at(platform: Platform, as_of: str) -> None:
    _require_known(platform, AsOf(as_of=as_of))


@pytest.mark.parametrize("as_of", ["2025-03-02T00:00:01", "2099-01-01"])
def test_later_would_make_every_silence_legitimate(platform: Platform, as_of: str) -> None:
    """A far as_of once gave a training set without one immature row."""
    with pytest.raises(
        SettingsError, match=f"{as_of} lies after the last day of the data, which ends 2025-03-02"
    ):
        _require_known(platform, AsOf(as_of=as_of))


def test_what_is_no_date_is_named() -> None:
    with pytest.raises(SettingsError, match="'soon' is neither a date nor a moment"):
        parse_as_of("soon")
