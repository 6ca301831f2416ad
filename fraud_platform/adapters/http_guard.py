"""Who may ask: the key of a request, its scope and its rate; without keys, this machine itself only.

Belongs here: from headers to a caller, or to 401, 403 or 429. Does not belong here: keys themselves (`keys`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fraud_platform.adapters.http_limits import Bucket
from fraud_platform.adapters.http_problems import Answer, problem
from fraud_platform.adapters.keys import Key, KeyRefusedError, Keyring, KeyScope
from fraud_platform.adapters.metrics import Metrics

REALM = b'Bearer realm="fraud_platform"'
_SAID = {
    "missing": "send a key: Authorization: Bearer fpk_...",
    "unknown": "the key is not one of this service's",
    "expired": "the key has expired: ask for a new one",
    "revoked": "the key was revoked: ask for a new one",
}


@dataclass(frozen=True)
class Caller:
    """name: of the key, empty without keys; bucket: None where the key has no rate."""

    name: str = ""
    bucket: Bucket | None = None


ANYONE = Caller()


class Guard:
    """Admits requests by their key. keyring: None admits this machine itself, whatever it asks."""

    def __init__(self, keyring: Keyring | None, metrics: Metrics) -> None:
        self._keyring, self._metrics = keyring, metrics
        self._callers: dict[bytes, tuple[float | None, Caller]] = {}

    def admit(self, request: Mapping[str, Any], sent: bytes | None, needed: KeyScope) -> Caller | Answer:
        """The caller, or the refusal. request: ASGI's scope; sent: the header Authorization."""
        if self._keyring is None:
            return ANYONE if _is_local(request.get("client")) else self._not_local()
        try:
            key = self._keyring.key(_bearer(sent))
        except KeyRefusedError as error:
            return self._unauthorized(error)
        if needed not in key.scopes:
            return self._forbidden(key, needed)
        caller = self._caller(key)
        wait = caller.bucket.take() if caller.bucket else 0
        return self._too_many(key, wait) if wait else caller

    def _caller(self, key: Key) -> Caller:
        """One bucket a key, kept while its rate stays."""
        known = self._callers.get(key.digest)
        if known is None or known[0] != key.rate:
            caller = Caller(key.name, Bucket(key.rate) if key.rate else None)
            known = self._callers[key.digest] = (key.rate, caller)
        return known[1]

    def _unauthorized(self, error: KeyRefusedError) -> Answer:
        self._metrics.key_refused(error.reason)
        challenge = REALM if error.reason == "missing" else REALM + b', error="invalid_token"'
        return problem(401, _SAID[error.reason], ((b"www-authenticate", challenge),))

    def _forbidden(self, key: Key, needed: KeyScope) -> Answer:
        self._metrics.key_refused("scope")
        challenge = REALM + b', error="insufficient_scope", scope="%s"' % needed.encode()
        detail = f"the key {key.name!r} has no scope {needed!r}; make one that has: keys add --scope {needed}"
        return problem(403, detail, ((b"www-authenticate", challenge),))

    def _too_many(self, key: Key, wait: int) -> Answer:
        self._metrics.rate_limited(key.name)
        detail = f"the key {key.name!r} may ask {key.rate:g} times a second; ask again in {wait} s"
        return problem(429, detail, ((b"retry-after", b"%d" % wait),))

    def _not_local(self) -> Answer:
        self._metrics.key_refused("missing")
        detail = (
            "this service has no keys, so it answers its own machine only; FRAUD_PLATFORM_KEYS names keys"
        )
        return problem(403, detail)


def _bearer(sent: bytes | None) -> str:
    scheme, _, key = (sent or b"").partition(b" ")
    if scheme.lower() != b"bearer" or not key.strip():
        raise KeyRefusedError("missing")
    return key.strip().decode("latin-1")


def _is_local(client: tuple[str, int] | None) -> bool:
    """A client without an address came through a socket file: of this machine too."""
    if client is None or client[0] in ("127.0.0.1", "::1"):
        return True
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
