"""The decision service as a Bento: load the bundle once, hand requests to `fraud_platform.adapters.http`.

The interface answers every HTTP request itself, before BentoML's own probes and pages. BentoML's access log,
request metrics, timers and tracing are off for it: they cost more than a decision.
After start-up the garbage collector is told to leave the import heap alone, which otherwise stalls requests.
"""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path
from typing import Any

import bentoml

import fraud_platform
from fraud_platform.adapters.http import Api
from fraud_platform.adapters.http_settings import HttpSettings
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.adapters.online import OnlineService
from fraud_platform.adapters.service import Service, ServiceSettings
from fraud_platform.serve.clock import SteadyClock

HERE = Path(__file__).resolve().parent
api = Api()
logger = logging.getLogger("bentoml.fraud_platform")


class Front:
    """Hands HTTP to the interface, and the start and end of the process to BentoML.

    Once the process has started it takes the place of the whole stack of middleware, which would start a task
    and a timer of ten seconds for each request; the interface has limits and deadlines of its own.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await api(scope, receive, send)
        if scope["type"] == "lifespan":
            scope["app"].middleware_stack = self
        return await self._app(scope, receive, send)


@bentoml.service(
    name="fraud_platform",
    workers=1,
    traffic={"timeout": 10},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ["/.*"]},
)
class FraudPlatform:
    """GET /docs tells what is served. Without FRAUD_PLATFORM_KEYS it refuses to start."""

    @bentoml.on_deployment
    @staticmethod
    def check_settings() -> None:
        """Once, before any worker: what is not configured ends the start with a sentence."""
        HttpSettings.from_env(os.environ)

    def __init__(self) -> None:
        settings = ServiceSettings.from_env(os.environ, HERE / "bundle")
        metrics = Metrics(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
        self.service = OnlineService(Service(settings, SteadyClock(), metrics.explored))
        api.start(self.service, metrics, HttpSettings.from_env(os.environ))
        gc.collect()
        gc.freeze()
        code = Path(fraud_platform.__file__).parent
        logger.info("bundle %s, code %s, state %s", self.service.bundle.id, code, settings.state)

    def __is_ready__(self) -> bool:
        return api.is_ready

    @bentoml.on_shutdown
    async def close(self) -> None:
        api.stop()
        await self.service.close()


FraudPlatform.add_asgi_middleware(Front)  # type: ignore[attr-defined]
