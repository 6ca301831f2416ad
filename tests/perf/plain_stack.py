"""What is usually put together for a fraud service: FastAPI, pydantic, Feast on Redis, `Booster.predict`.

A program of its own, in an environment that holds these and nothing of this project: plain.py makes the one
and starts the other. It reads 60 features of five entities and scores; it updates no feature, asks no rule,
prices nothing, keeps no record.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path

import lightgbm
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field

THRESHOLD = 0.5


class Transaction(BaseModel):
    transaction_id: str = Field(min_length=1, max_length=200)
    event_time: int = Field(ge=0)
    card_id: str = Field(min_length=1, max_length=200)
    merchant_id: str = Field(min_length=1, max_length=200)
    amount_minor: int = Field(ge=0)
    currency: str = Field(min_length=3, max_length=3)
    customer_id: str | None = None
    device_id: str | None = None
    ip_id: str | None = None
    channel: str | None = None
    category: str | None = None
    card_country: str | None = None
    merchant_country: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    home_latitude: float | None = None
    home_longitude: float | None = None


class Decision(BaseModel):
    transaction_id: str
    action: str
    score: float


def application(folder: Path, port: int, ids: dict[str, list[str]], model: Path, is_tuned: bool) -> FastAPI:
    """is_tuned: on the event loop and with one thread, not in the pool and with all threads of LightGBM."""
    sys.path.append(str(Path(__file__).parent))
    from feast_reader import ENTITIES, prepare, wanted

    store, features = prepare(folder, port, ids), wanted()
    names = [feature.partition(":")[2] for feature in features]
    booster = lightgbm.Booster(model_file=str(model))
    width, threads = booster.num_feature(), {"num_threads": 1} if is_tuned else {}

    def decide(transaction: Transaction) -> Decision:
        keys = {f"{name}_id": getattr(transaction, f"{name}_id") or "" for name in ENTITIES}
        found = store.get_online_features(features=features, entity_rows=[keys]).to_dict()
        row = np.full((1, width), np.nan)
        row[0, : len(names)] = [np.nan if found[name][0] is None else found[name][0] for name in names]
        score = float(booster.predict(row, **threads)[0])
        action = "decline" if score >= THRESHOLD else "approve"
        return Decision(transaction_id=transaction.transaction_id, action=action, score=score)

    async def decide_on_the_loop(transaction: Transaction) -> Decision:
        return decide(transaction)

    app = FastAPI()
    app.post("/v1/decisions", response_model=Decision)(decide_on_the_loop if is_tuned else decide)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", type=int, required=True, help="port of the Redis")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--ids", type=Path, required=True, help="JSON: an entity's name to its ids")
    parser.add_argument("--model", type=Path, required=True, help="a LightGBM model file")
    parser.add_argument("--tuned", action="store_true", help="as far as it can be without other parts")
    options = parser.parse_args()
    ids = json.loads(options.ids.read_text())
    app = application(options.folder, options.redis, ids, options.model, options.tuned)
    if options.tuned:
        gc.collect()
        gc.freeze()
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
