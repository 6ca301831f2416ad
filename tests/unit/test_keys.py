"""Bearer keys: the file, the command line, who is admitted, how often, and where no keys are."""

from __future__ import annotations

import logging
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fraud_platform.adapters import keys as keys_module
from fraud_platform.adapters.http import Api
from fraud_platform.adapters.http_limits import Bucket
from fraud_platform.adapters.http_settings import KEYS_VARIABLE, HttpSettings
from fraud_platform.adapters.keys import KeyRefusedError, Keyring, read_keys
from fraud_platform.adapters.keys_file import add_key, revoke_key
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.cli import app
from fraud_platform.errors import RequestError, SettingsError
from tests.asgi import JSON, ask

TODAY = date(2026, 6, 1)
NOW_S = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


class Hands:
    """A clock that moves when it is told to."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    def __call__(self) -> float:
        return self.moment


class Nothing:
    """A service that knows no transaction, and has nothing to do."""

    waiting: dict[str, int] = {}

    class bundle:
        id = "b"

    async def decide_all(self, requests: list[bytes]) -> list[RequestError]:
        return [RequestError("body", None, "is not decided here") for _ in requests]

    async def decision(self, transaction_id: str) -> None:
        return None

    def decide(self, request: bytes) -> None:
        raise RequestError("transaction_id", None, "is required")


def reason(keyring: Keyring, key: str) -> str:
    with pytest.raises(KeyRefusedError) as caught:
        keyring.key(key)
    return caught.value.reason


def served(**settings: Any) -> Api:
    api = Api()
    api.start(Nothing(), Metrics(), HttpSettings(**settings))  # type: ignore[arg-type]
    return api


def bearer(key: str) -> dict[str, str]:
    return {**JSON, "authorization": f"Bearer {key}"}


def test_a_key_is_known_by_its_hash_and_kept_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    key = add_key(path, "checkout", ["label", "decide"], TODAY, 500.0, date(2027, 1, 1))
    found = Keyring(path, lambda: NOW_S).key(key)
    assert (found.name, found.scopes, found.rate) == ("checkout", {"decide", "label"}, 500.0)
    assert key.split("_")[2] not in path.read_text()
    assert len(key.split("_")[2]) * 5 >= 256
    assert path.stat().st_mode & 0o077 == 0


def test_a_key_that_differs_in_any_sign_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    key = add_key(path, "a", ["read"], TODAY, None, None)
    keyring = Keyring(path, lambda: NOW_S)
    swapped = [key[:n] + ("b" if key[n] != "b" else "c") + key[n + 1 :] for n in range(len(key))]
    wrong = [*swapped, key[:-1], key + "a", key.upper(), "", "fpk", "fpk__", "\udcff", "fpk_" + "x" * 5000]
    assert {reason(keyring, one) for one in wrong} == {"unknown"}


def test_digests_are_compared_in_constant_time_for_unknown_ids_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.yaml"
    key = add_key(path, "a", ["read"], TODAY, None, None)
    keyring = Keyring(path, lambda: NOW_S)
    compared = []
    compare = keys_module.hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(keys_module.hmac, "compare_digest", noted)
    keyring.key(key)
    for wrong in (key[:-1] + "=", "fpk_nothing_at_all", "short"):
        reason(keyring, wrong)
    assert compared == [(32, 32)] * 4


def test_a_key_ends_on_its_day_and_when_it_is_revoked(tmp_path: Path) -> None:
    path, clock, monotonic = tmp_path / "keys.yaml", Hands(NOW_S), Hands(0.0)
    short = add_key(path, "short", ["read"], TODAY, None, date(2026, 6, 2))
    long = add_key(path, "long", ["read"], TODAY, None, None)
    keyring = Keyring(path, clock, monotonic)
    clock.moment = datetime(2026, 6, 1, 23, 59, 59, tzinfo=UTC).timestamp()
    assert keyring.key(short).name == "short"
    clock.moment += 1
    assert reason(keyring, short) == "expired"
    revoke_key(path, "long", TODAY)
    assert keyring.key(long).name == "long"  # the file is looked at once a second
    monotonic.moment = 1.0
    assert reason(keyring, long) == "revoked"
    assert add_key(path, "long", ["read"], TODAY, None, None) != long


def test_a_file_that_is_broken_while_it_is_served_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, monotonic = tmp_path / "keys.yaml", Hands(0.0)
    key = add_key(path, "a", ["read"], TODAY, None, None)
    whole = path.read_text()
    keyring = Keyring(path, lambda: NOW_S, monotonic)
    for second, text in enumerate(("keys: [", "keys: 7", None), start=1):
        path.write_text(text) if text else path.unlink()
        monotonic.moment = float(second)
        with caplog.at_level(logging.ERROR):
            assert keyring.key(key).name == "a"
        assert "the keys stay as they were" in caplog.text
        caplog.clear()
    path.write_text(whole.replace("name: a", "name: b"))
    monotonic.moment = 4.0
    assert keyring.key(key).name == "b"


def test_a_file_behind_a_link_is_followed_when_the_link_moves(tmp_path: Path) -> None:
    """As Kubernetes changes a mounted secret: the link moves, and the folder that it led to is deleted."""
    first, second, link, monotonic = tmp_path / "1", tmp_path / "2", tmp_path / "now", Hands(0.0)
    keys = [add_key(folder / "keys.yaml", "a", ["read"], TODAY, None, None) for folder in (first, second)]
    link.symlink_to(first)
    settings = HttpSettings.from_env({KEYS_VARIABLE: str(link / "keys.yaml")})
    assert settings.keys is not None
    keyring = Keyring(settings.keys, lambda: NOW_S, monotonic)
    assert keyring.key(keys[0]).name == "a"
    link.unlink()
    link.symlink_to(second)
    (first / "keys.yaml").unlink()
    monotonic.moment = 1.0
    assert reason(keyring, keys[0]) == "unknown"
    assert keyring.key(keys[1]).name == "a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keys: [{name: a, id: i, digest: x, scopes: [read]}]", "no SHA-256"),
        ('keys: [{name: a, id: i, digest: "%s", scopes: [fly]}]' % ("0" * 64), "fly"),
        ('keys: [{name: a, id: i, digest: "%s", scopes: [read], rate: 0}]' % ("0" * 64), "above 0"),
        ('keys: [{name: a, id: i, digest: "%s", scopes: [], more: 1}]' % ("0" * 64), "more"),
        ("keys:\n" + '- {name: a, id: i, digest: "%s", scopes: []}\n' % ("0" * 64) * 2, "one id"),
        ("keys: [", "keys.yaml"),
        (None, "No such file"),
    ],
)
def test_a_service_with_a_wrong_keys_file_does_not_start(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "keys.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        served(keys=path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "a b"}, "letters"),
        ({"name": "taken"}, "is there already"),
        ({"scopes": []}, "one or more of decide"),
        ({"scopes": ["fly"]}, "fly"),
        ({"rate": 0.0}, "above 0"),
        ({"expires": TODAY}, "after today"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_added(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    path = tmp_path / "keys.yaml"
    add_key(path, "taken", ["read"], TODAY, None, None)
    before = path.read_bytes()
    asked = {"name": "a", "scopes": ["read"], "today": TODAY, "rate": None, "expires": None, **arguments}
    with pytest.raises(SettingsError, match=said):
        add_key(path, **asked)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["keys.yaml"]


def test_a_key_opens_what_its_scope_names_and_says_which_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    reader, decider = (add_key(path, scope, [scope], TODAY, None, None) for scope in ("read", "decide"))
    api = served(keys=path)
    assert ask(api, "GET", "/v1/decisions/t", headers=bearer(reader)).status == 404
    assert ask(api, "GET", "/metrics", headers=bearer(reader)).status == 200
    refused = ask(api, "GET", "/v1/decisions/t", headers=bearer(decider))
    assert refused.status == 403
    assert "'read'" in refused.json["detail"]
    assert refused.headers["www-authenticate"].endswith('error="insufficient_scope", scope="read"')
    assert ask(api, "POST", "/v1/labels", b"{}", bearer(decider)).status == 403
    assert [ask(api, "GET", probe, headers={}).status for probe in ("/livez", "/readyz")] == [200, 200]
    counted = ask(api, "GET", "/metrics", headers=bearer(reader)).body
    assert b'fraud_keys_refused_total{reason="scope"} 2.0' in counted
    assert b'fraud_requests_refused_total{status="403"} 2.0' in counted


def test_metrics_are_open_where_the_settings_say_so(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    add_key(path, "a", ["decide"], TODAY, None, None)
    assert ask(served(keys=path), "GET", "/metrics", headers={}).status == 401
    assert ask(served(keys=path, is_metrics_open=True), "GET", "/metrics", headers={}).status == 200


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (("127.0.0.1", 1), 404),
        (("::1", 1), 404),
        (("127.9.9.9", 1), 404),
        (None, 404),
        (("192.0.2.1", 1), 403),
        (("10.0.0.1", 1), 403),
        (("somewhere", 1), 403),
    ],
)
def test_without_keys_only_this_machine_is_answered(client: tuple[str, int] | None, status: int) -> None:
    api = served()
    assert ask(api, "GET", "/v1/decisions/t", client=client).status == status
    assert ask(api, "GET", "/readyz", client=client).status == 200


def test_more_than_the_rate_is_told_when_to_come_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    slow = add_key(path, "slow", ["read"], TODAY, 0.1, None)
    other = add_key(path, "other", ["read"], TODAY, None, None)
    api = served(keys=path)
    answers = [ask(api, "GET", "/v1/decisions/t", headers=bearer(slow)) for _ in range(2)]
    assert [answer.status for answer in answers] == [404, 429]
    assert 9 <= int(answers[1].headers["retry-after"]) <= 10
    counted = ask(api, "GET", "/metrics", headers=bearer(other)).body
    assert b'fraud_rate_limited_total{key="slow"} 1.0' in counted


def test_a_batch_counts_as_many_times_as_it_has_transactions(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    key = add_key(path, "shop", ["decide"], TODAY, 2.0, None)
    api, batch = served(keys=path), {"transactions": [{}] * 10}
    answers = [ask(api, "POST", "/v1/decisions/batch", batch, bearer(key)) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert 4 <= int(answers[1].headers["retry-after"]) <= 5


def test_a_bucket_allows_its_rate_and_a_second_of_it_at_once() -> None:
    clock = Hands(0.0)
    bucket = Bucket(10.0, clock)
    assert [bucket.take() for _ in range(11)] == [0] * 10 + [1]
    clock.moment = 0.25
    assert [bucket.take() for _ in range(3)] == [0, 0, 1]
    clock.moment = 60.0
    assert bucket.take() == 0
    bucket.charge(99)  # a batch of a hundred waits for all of its items
    assert bucket.take() == 9 + 1
    clock.moment = 70.0
    assert bucket.take() == 0


def test_settings_need_a_word_on_keys() -> None:
    with pytest.raises(SettingsError, match=f"{KEYS_VARIABLE} is not set"):
        HttpSettings.from_env({})
    assert HttpSettings.from_env({KEYS_VARIABLE: "none"}).keys is None
    chosen = {
        KEYS_VARIABLE: "k.yaml",
        "FRAUD_PLATFORM_BODY_SECONDS": "1.5",
        "FRAUD_PLATFORM_OPEN_METRICS": "1",
    }
    found = HttpSettings.from_env(chosen)
    assert (found.keys, found.body_seconds, found.is_metrics_open) == (Path("k.yaml").absolute(), 1.5, True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"FRAUD_PLATFORM_BODY_SECONDS": "0"},
        {"FRAUD_PLATFORM_BODY_SECONDS": "nan"},
        {"FRAUD_PLATFORM_CONCURRENT_MAX": "1.5"},
        {"FRAUD_PLATFORM_OPEN_METRICS": "yes"},
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        HttpSettings.from_env({KEYS_VARIABLE: "none", **wrong})


def test_the_command_line_adds_lists_and_revokes(tmp_path: Path) -> None:
    path, run = str(tmp_path / "keys.yaml"), CliRunner().invoke
    scopes = ["--scope", "decide", "--scope", "label"]
    added = run(app, ["keys", "add", "shop", *scopes, "--expires", "2199-01-01", "--file", path])
    key = added.stdout.strip()
    assert key.startswith("fpk_")
    assert Keyring(Path(path)).key(key).scopes == {"decide", "label"}
    listed = run(app, ["keys", "list", "--file", path]).stdout
    assert "decide, label" in listed
    assert key not in listed
    assert "revoked shop" in run(app, ["keys", "revoke", "shop", "--file", path]).stdout
    assert read_keys(Path(path)).keys[0].revoked is not None
    assert isinstance(run(app, ["keys", "revoke", "shop", "--file", path]).exception, SettingsError)
