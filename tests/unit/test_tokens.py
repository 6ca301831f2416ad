"""Raw ids become keyed tokens at the edge and in files, the same ones, and are seen nowhere after."""

from __future__ import annotations

import doctest
import hashlib
import hmac
from base64 import b32encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from fraud_platform.adapters import tokens
from fraud_platform.adapters.http import Api
from fraud_platform.adapters.http_settings import HttpSettings
from fraud_platform.adapters.journal import read_decisions
from fraud_platform.adapters.metrics import Metrics
from fraud_platform.adapters.online import OnlineService
from fraud_platform.adapters.token_files import tokenise_file
from fraud_platform.adapters.tokens import Tokeniser, canonical_id
from fraud_platform.cli import app
from fraud_platform.errors import RequestError, SettingsError, SourceError
from fraud_platform.package import BundleParts
from tests.asgi import Answered, ask, online_service

NOW_MS = 1_790_000_000_000
KEY = bytes(range(100, 140))
CARD = "4111111111111111"
RAW = {"card_number": "4111 1111-1111 1111", "customer": "Ada.Lovelace@Example.org ", "ip": "203.0.113.77"}
SECRETS = (CARD, "4111 1111", "lovelace", "Lovelace", "203.0.113.77")
Build = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def service(tiny_parts: BundleParts, state: Path) -> Iterator[OnlineService]:
    with online_service(tiny_parts, state, NOW_MS) as service:
        yield service


@pytest.fixture(scope="module")
def api(service: OnlineService, tmp_path_factory: pytest.TempPathFactory) -> Api:
    key = tmp_path_factory.mktemp("key") / "token.key"
    key.write_bytes(KEY)
    api = Api()
    api.start(service, Metrics(), HttpSettings(token_key=key))
    return api


@pytest.fixture
def raw_request(transaction_request: Build) -> Build:
    """A valid request without the fields that raw ids become."""

    def build(raw: object, **fields: Any) -> dict[str, Any]:
        request = transaction_request(**fields)
        kept = {k: v for k, v in request.items() if k not in ("card_id", "customer_id", "device_id", "ip_id")}
        return {**kept, **{k: v for k, v in fields.items() if k in request}, "raw": raw}

    return build


def post(api: Api, content: object, path: str = "/v1/decisions") -> Answered:
    return ask(api, "POST", path, content)


def test_a_token_is_an_hmac_of_kind_and_canonical_form() -> None:
    message = b"fraud_platform token v1\0card_number\0" + CARD.encode()
    expected = b32encode(hmac.new(KEY, message, hashlib.sha256).digest()[:20]).decode().lower()
    assert Tokeniser(KEY).token("card_number", RAW["card_number"]) == f"tok_{expected}"


def test_kinds_and_keys_give_different_tokens() -> None:
    one, other = Tokeniser(KEY), Tokeniser(KEY[::-1])
    made = {t.token(kind, "x") for t in (one, other) for kind in ("customer", "device")}
    assert len(made) == 4
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("kind", "forms"),
    [
        (
            "card_number",
            [CARD, "4111-1111-1111-1111", " 4111.1111.1111.1111", "\uff14\uff11\uff11\uff11111111111111"],
        ),
        ("ip", ["203.0.113.7", " 203.0.113.7 ", "::ffff:203.0.113.7", "::FFFF:cb00:7107"]),
        ("ip", ["2001:db8::1", "2001:DB8:0:0::0001"]),
        ("customer", ["Ada@x.org", "ada@X.org ", "\uff21\uff24\uff21@x.org"]),
    ],
)
def test_forms_of_one_id_are_one(kind: str, forms: list[str]) -> None:
    assert len({canonical_id(kind, form) for form in forms}) == 1


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("card_number", "41111111111"),
        ("card_number", "4" * 20),
        ("card_number", "4111x1111111111111"),
        ("ip", "203.0.113.777"),
        ("ip", "fe80::1%eth0"),
        ("ip", "203.0.113.007"),
        ("customer", "   "),
        ("device", "a\x00b"),
        ("device", "d" * 1025),
    ],
)
def test_what_is_no_such_id_is_refused_without_being_repeated(kind: str, value: str) -> None:
    with pytest.raises(RequestError) as caught:
        canonical_id(kind, value)
    assert caught.value.field == f"raw.{kind}"
    assert value.strip() == "" or value not in str(caught.value)


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 32, b"ab" * 32])
def test_a_weak_key_is_refused(key: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(key)
    with pytest.raises(SettingsError, match="key"):
        Tokeniser.from_file(tmp_path / "key")


def test_raw_ids_are_seen_nowhere_after_the_edge(
    api: Api, state: Path, raw_request: Build, capfd: Any, caplog: Any
) -> None:
    answers = [
        post(api, raw_request(RAW, transaction_id="t-raw")),
        post(
            api,
            {"transactions": [raw_request(RAW, transaction_id="t-raw2"), {"raw": RAW}]},
            "/v1/decisions/batch",
        ),
        post(api, raw_request(RAW, transaction_id="t-raw3", currency="euro")),
        post(api, raw_request({**RAW, "card_number": CARD + CARD}, transaction_id="t-raw4")),
        post(api, raw_request({**RAW, CARD: "x"}, transaction_id="t-raw5")),
        post(api, raw_request({**RAW, "customer": 4111111111111111}, transaction_id="t-raw6")),
        post(api, raw_request(CARD, transaction_id="t-raw7")),
        post(api, raw_request(RAW, transaction_id="t-raw8", card_id="also")),
        post(api, {**raw_request(RAW, transaction_id="t-raw9"), "card_number": CARD}),
        ask(api, "GET", "/v1/decisions/t-raw"),
        ask(api, "GET", "/metrics"),
    ]
    assert [answer.status for answer in answers] == [200, 200, *[422] * 7, 200, 200]
    assert [list(one) for one in answers[1].json["results"]] == [["decision"], ["problem"]]
    recorded = {one.record.transaction_id: one.record.request for one in read_decisions(state)}
    assert recorded.keys() == {"t-raw", "t-raw2"}
    token = Tokeniser(KEY).token
    request = recorded["t-raw"]
    assert request.card_id == recorded["t-raw2"].card_id == token("card_number", CARD)
    assert (request.customer_id, request.device_id) == (token("customer", "ada.lovelace@example.org"), None)
    assert b"fraud_requests_tokenised_total" in answers[-1].body
    printed = capfd.readouterr()
    kept = [file.read_bytes() for file in state.rglob("*") if file.is_file()]
    assert len(kept) >= 3
    seen = b"".join(
        [*kept, *(answer.body for answer in answers), (printed.out + printed.err + caplog.text).encode()]
    )
    assert not [secret for secret in SECRETS if secret.encode() in seen]


def test_the_same_raw_request_again_is_a_repeat(api: Api, raw_request: Build) -> None:
    first = post(api, raw_request({"card_number": CARD}, transaction_id="t-again"))
    again = post(api, raw_request({"card_number": "4111-1111-1111-1111"}, transaction_id="t-again"))
    assert again.json == {**first.json, "is_repeat": True}


def test_without_a_token_key_raw_ids_are_refused(service: OnlineService, raw_request: Build) -> None:
    api = Api()
    api.start(service, Metrics())
    answer = post(api, raw_request(RAW, transaction_id="t-no-key"))
    assert (answer.status, answer.json["field"]) == (422, "raw")
    assert "FRAUD_PLATFORM_TOKEN_KEY_FILE" in answer.json["rule"]
    assert (
        "raw"
        not in ask(api, "GET", "/openapi.json").json["components"]["schemas"]["Transaction"]["properties"]
    )
    hidden = b'{"\\u0072aw":{"card_number":"4111111111111111"}}'
    assert (post(api, hidden).status, CARD.encode() in post(api, hidden).body) == (422, False)


def test_a_value_that_is_only_named_raw_is_text_like_any(api: Api, transaction_request: Build) -> None:
    assert post(api, transaction_request(transaction_id="raw-1", channel="raw")).status == 200


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_gets_the_tokens_of_the_service(tmp_path: Path, kind: str) -> None:
    source, target = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    rows = "(1, '4111 1111 1111 1111', 'A@x.org'), (2, NULL, ''), (3, 'no card', 'a@X.ORG')"
    duckdb.connect().execute(f"COPY (SELECT * FROM (VALUES {rows}) AS t(n, pan, mail)) TO '{source}'")
    report = tokenise_file(source, target, {"pan": "card_number", "mail": "customer"}, Tokeniser(KEY))
    found = duckdb.connect().execute(f"SELECT pan, mail FROM '{target}' ORDER BY n").fetchall()
    token = Tokeniser(KEY).token
    mail = token("customer", "a@x.org")
    assert found == [(token("card_number", CARD), mail), (None, None), (None, mail)]
    assert (report.rows, report.tokens, report.refused) == (3, {"pan": 1, "mail": 2}, {"pan": 1, "mail": 0})
    assert b"4111" not in target.read_bytes()


def test_card_numbers_that_a_file_keeps_as_integers_get_the_same_tokens(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.csv"
    duckdb.connect().execute(f"COPY (SELECT {CARD}::BIGINT AS pan) TO '{source}'")
    tokenise_file(source, target, {"pan": "card_number"}, Tokeniser(KEY))
    assert target.read_text().split() == ["pan", Tokeniser(KEY).token("card_number", CARD)]


def test_a_file_that_cannot_be_tokenised_leaves_no_other(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("pan\n4111111111111111\n")
    for source, columns in (("in.csv", {"card": "card_number"}), ("no.csv", {"pan": "card_number"})):
        with pytest.raises(SourceError):
            tokenise_file(tmp_path / source, tmp_path / "out.csv", columns, Tokeniser(KEY))
    with pytest.raises(SourceError, match="shoe"):
        tokenise_file(tmp_path / "in.csv", tmp_path / "out.csv", {"pan": "shoe"}, Tokeniser(KEY))
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_the_command_line_tokenises_a_file(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"pan,shop\n{CARD},s\n")
    (tmp_path / "key").write_bytes(KEY)
    files = [str(tmp_path / "in.csv"), str(tmp_path / "out.csv")]
    done = CliRunner().invoke(
        app, ["tokenize", *files, "--column", "pan=card_number", "--key-file", str(tmp_path / "key")]
    )
    assert done.exit_code == 0, done.output
    assert CARD not in done.output
    token = Tokeniser(KEY).token("card_number", CARD)
    assert (tmp_path / "out.csv").read_text().split() == ["pan,shop", f"{token},s"]


def test_the_examples_of_the_docstrings_run() -> None:
    assert doctest.testmod(tokens).failed == 0
