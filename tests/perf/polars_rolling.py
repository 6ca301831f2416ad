"""Counts, sums and means over four windows of card and merchant by Polars: run by tests/perf/offline.py.

It runs in an environment of its own, which has Polars and nothing of the platform.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import polars as pl


def rolling(frame: pl.DataFrame, key: str, window_ms: int) -> pl.DataFrame:
    """Over [t - window_ms, t) of each key; a row for each of the frame, by key and moment."""
    windows = frame.rolling("event_time", period=f"{window_ms}i", closed="left", group_by=key)
    amount = pl.col("amount_minor")
    return windows.agg(pl.len().alias("count"), amount.sum().alias("sum"), amount.mean().alias("mean"))


def main() -> None:
    """Arguments: a parquet file, a folder for answers, {window: ms}, keys; prints seconds and CPU seconds."""
    source, folder, windows, keys = sys.argv[1:]
    frame = pl.read_parquet(source)
    started, used = time.perf_counter(), time.process_time()
    answers = {
        (key, window): rolling(ordered, key, window_ms)
        for key in json.loads(keys)
        for ordered in [frame.sort(key, "event_time")]
        for window, window_ms in json.loads(windows).items()
    }
    print(time.perf_counter() - started, time.process_time() - used)
    for (key, window), answer in answers.items():
        answer.write_parquet(Path(folder) / f"{key}_{window}.parquet")


if __name__ == "__main__":
    main()
