"""The store on Redis over loopback, one server and a cluster, beside LMDB: the same payments in one run.

Belongs here: what a decision waits for. Does not belong here: Feast (beside_feast.py), correctness (tests).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.perf.clock import Took, frozen_heap, timed
from tests.perf.events import Payments
from tests.perf.measured import Measured, Sizes, microseconds, told
from tests.servers import missing_redis, redis_cluster, redis_server

if TYPE_CHECKING:
    from fraud_platform.defs.platform import Platform
    from fraud_platform.features.engine import FeatureStore

PAYMENTS, TIMED, ROUNDS = 60_000, 9_000, 3
TARGETS_US = {"p99": 2_000.0}


def redis(platform: Platform, _: Sizes) -> Measured:
    """One decision after the other from one client; the stores take turns."""
    missing = missing_redis()
    if missing is not None:
        return Measured.skipped(missing)
    payments = Payments(PAYMENTS)
    took: dict[str, Took] = {}
    with _stores(platform) as stores, frozen_heap():
        for store in stores.values():
            for _answer in store.observe_all(payments.block(0, PAYMENTS - TIMED)):
                pass
        for start in range(PAYMENTS - TIMED, PAYMENTS, TIMED // ROUNDS):
            for name, store in stores.items():
                block = timed(store, payments.block(start, start + TIMED // ROUNDS))
                took[name] = took.get(name, Took.empty()) + block
    lines = [_line(name, one) for name, one in took.items()]
    one = took["Redis"]
    note = f"Redis: {told(microseconds(one.transactions), TARGETS_US)}; below"
    return Measured(one.events, (one.seconds,), note, tuple(lines))


def _line(name: str, took: Took) -> str:
    return f"{name}: {told(microseconds(took.transactions))}; {took.events / took.seconds:,.0f} events/s"


@contextmanager
def _stores(platform: Platform) -> Iterator[dict[str, FeatureStore]]:
    from fraud_platform.adapters.lmdb import LmdbStore
    from fraud_platform.adapters.redis import RedisStore
    from fraud_platform.adapters.redis_link import PATIENT

    home, contract = platform.settings.home, platform.contract
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        one = stack.enter_context(redis_server(home / "one"))
        three = stack.enter_context(redis_cluster(home / "three"))
        urls = {"Redis": f"redis://127.0.0.1:{one}", "cluster": f"redis+cluster://127.0.0.1:{three[0]}"}
        stores: dict[str, FeatureStore] = {
            name: stack.enter_context(RedisStore.open(url, contract, limits=PATIENT))
            for name, url in urls.items()
        }
        yield {"LMDB": stack.enter_context(LmdbStore.open(home / "beside-redis", contract)), **stores}
