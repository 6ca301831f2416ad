"""How the HTTP interface is configured: keys, token key, limits; from the environment, once, at the edge.

FRAUD_PLATFORM_KEYS             the keys file; `none`: no keys, and then only this machine itself is answered
FRAUD_PLATFORM_TOKEN_KEY_FILE   32 or more random bytes: raw ids are taken and made tokens
FRAUD_PLATFORM_OPEN_METRICS     1: /metrics asks for no key
FRAUD_PLATFORM_BODY_SECONDS     how long a body may take to arrive
FRAUD_PLATFORM_CONCURRENT_MAX   requests at work at once, in one worker

Belongs here: reading and refusing settings. Does not belong here: what they do (`http_guard`, `tokens`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fraud_platform.errors import SettingsError

KEYS_VARIABLE = "FRAUD_PLATFORM_KEYS"
TOKEN_KEY_VARIABLE = "FRAUD_PLATFORM_TOKEN_KEY_FILE"
OPEN_METRICS_VARIABLE = "FRAUD_PLATFORM_OPEN_METRICS"
BODY_SECONDS_VARIABLE = "FRAUD_PLATFORM_BODY_SECONDS"
CONCURRENT_VARIABLE = "FRAUD_PLATFORM_CONCURRENT_MAX"
NO_KEYS = "none"


@dataclass(frozen=True)
class HttpSettings:
    """keys: None answers this machine itself only; token_key: None refuses requests with raw ids."""

    keys: Path | None = None
    token_key: Path | None = None
    is_metrics_open: bool = False
    body_seconds: float = 5.0
    concurrent_max: int = 256

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> HttpSettings:
        """SettingsError where FRAUD_PLATFORM_KEYS is not set: a service is never open by accident."""
        keys, token_key = env.get(KEYS_VARIABLE), env.get(TOKEN_KEY_VARIABLE)
        if not keys:
            raise SettingsError(
                f"{KEYS_VARIABLE} is not set: give a keys file (`fraud-platform keys add` makes one), or "
                f"`{NO_KEYS}` for a service that asks for no key and answers its own machine only"
            )
        return cls(
            keys=None if keys == NO_KEYS else Path(keys).absolute(),
            token_key=Path(token_key).absolute() if token_key else None,
            is_metrics_open=_flag(env, OPEN_METRICS_VARIABLE),
            body_seconds=_positive(env, BODY_SECONDS_VARIABLE, cls.body_seconds),
            concurrent_max=int(_positive(env, CONCURRENT_VARIABLE, cls.concurrent_max, is_whole=True)),
        )


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name) or "0"
    if value not in ("0", "1"):
        raise SettingsError(f"{name}={value!r}: give 1 or 0")
    return value == "1"


def _positive(env: Mapping[str, str], name: str, default: float, is_whole: bool = False) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(int(text) if is_whole else text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise SettingsError(f"{name}={text!r}: give a {'whole ' if is_whole else ''}number above 0")
    return value
