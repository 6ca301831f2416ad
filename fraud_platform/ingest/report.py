"""What an ingest did, as frozen values that add up.

Belongs here: counts and the law that they obey. Does not belong here: how they are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fraud_platform.errors import FraudPlatformError


@dataclass(frozen=True)
class StreamReport:
    """Counts of one stream; always rows_in = canonical + duplicates + quarantined.

    rows_in: source rows that this run took (after the mapping's filter and the days asked for).
    canonical: rows newly added. duplicates: rows whose content is there already.
    quarantined: rows refused, of which already_quarantined were stored by an earlier run.
    released: quarantine rows removed since they are good now, of which `readmitted` became canonical without
    being read again (a label whose transaction has arrived).
    """

    stream: str
    rows_in: int
    canonical: int
    duplicates: int
    quarantined: int
    already_quarantined: int
    released: int
    readmitted: int
    quarantined_by_rule: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.rows_in != self.canonical + self.duplicates + self.quarantined:
            raise FraudPlatformError(
                f"{self.stream}: {self.rows_in} rows in, but {self.canonical} canonical + {self.duplicates} "
                f"duplicates + {self.quarantined} quarantined; every row counts once; nothing was written"
            )

    @property
    def is_unchanged(self) -> bool:
        new = self.canonical + self.released + self.readmitted
        return new == 0 and self.quarantined == self.already_quarantined


@dataclass(frozen=True)
class IngestReport:
    """Both streams of one ingest."""

    transactions: StreamReport
    labels: StreamReport

    @property
    def is_unchanged(self) -> bool:
        """The run added, quarantined and released nothing: all of it had been read before."""
        return self.transactions.is_unchanged and self.labels.is_unchanged

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values by stream, for metadata and JSON."""
        return {stream.stream: asdict(stream) for stream in (self.transactions, self.labels)}
