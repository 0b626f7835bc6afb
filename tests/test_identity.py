"""Identity tokens: Google's signature, the audience, the hour and the account are looked at, each."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt
from pydantic import ValidationError
from starlette.testclient import TestClient

from nightreel_dispatcher.app import create_app
from nightreel_dispatcher.desk import Desk
from nightreel_dispatcher.google_tokens import verifier
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_worker.settings import Settings

AUDIENCE = "https://dispatcher.example"
ACCOUNT = "push@demo.iam.gserviceaccount.com"


@dataclass(slots=True)
class Keys:
    """A server of certificates such as Google's, and the key that belongs to one of them."""

    url: str
    signer: Any
    asked: int = 0
    status: int = 200

    def token(self, **claims: Any) -> str:
        now = int(time.time())
        usual = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "email": ACCOUNT,
            "email_verified": True,
            "iat": now,
            "exp": now + 300,
        }
        payload = {name: value for name, value in (usual | claims).items() if value is not None}
        token: bytes = jwt.encode(self.signer, payload)  # type: ignore[no-untyped-call]  # google-auth has few types
        return token.decode()


def new_key() -> tuple[rsa.RSAPrivateKey, str]:
    """A key and its certificate (PEM)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    return key, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def signer_of(key: rsa.RSAPrivateKey) -> Any:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return crypt.RSASigner.from_string(pem, "one")  # type: ignore[no-untyped-call]  # google-auth has few types


@pytest.fixture
def keys() -> Iterator[Keys]:
    key, certificate = new_key()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked += 1
            body = json.dumps({"one": certificate}).encode()
            self.send_response(served.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served = Keys(f"http://127.0.0.1:{server.server_port}/certs", signer_of(key))
        yield served
        server.shutdown()


@pytest.fixture
def ask(keys: Keys, tmp_path: Path) -> Iterator[Callable[[str], tuple[int, str]]]:
    """Sends a token; returns the status and what was said."""
    own = DispatcherSettings(audience=AUDIENCE, accounts=f"other@demo.example, {ACCOUNT.upper()}")
    desk = Desk(Settings(store=str(tmp_path / "out")), own)
    client = TestClient(create_app(desk, verifier(AUDIENCE, keys.url)))

    def ask(token: str) -> tuple[int, str]:
        answer = client.post("/tick", headers={b"Authorization": f"Bearer {token}".encode("latin-1")})
        return answer.status_code, answer.text

    yield ask
    client.close()


def test_a_token_that_google_signed_for_us_and_an_account_of_the_list_is_accepted(
    keys: Keys, ask: Callable[[str], tuple[int, str]]
) -> None:
    assert [ask(keys.token())[0] for _ in range(3)] == [204] * 3
    assert keys.asked == 1  # the keys are kept


@pytest.mark.parametrize(
    ("claims", "status", "words"),
    [
        ({"aud": "https://another.example"}, 401, "audience"),
        ({"aud": None}, 401, "audience"),
        ({"exp": 1000}, 401, "expired"),
        ({"iat": 2**33, "exp": 2**33 + 1}, 401, "too early"),
        ({"iss": "https://issuer.example"}, 401, "Google did not issue it"),
        ({"email": None}, 401, "no verified e-mail"),
        ({"email_verified": False}, 401, "no verified e-mail"),
        ({"email_verified": "true"}, 401, "no verified e-mail"),
        ({"email": "push@elsewhere.iam.gserviceaccount.com"}, 403, "does not name it"),
    ],
)
def test_any_other_token_is_not(
    keys: Keys, ask: Callable[[str], tuple[int, str]], claims: dict[str, Any], status: int, words: str
) -> None:
    found, said = ask(keys.token(**claims))

    assert found == status, said
    assert words in said


def test_a_token_of_another_key_or_of_none_is_refused(keys: Keys, ask: Callable[[str], tuple[int, str]]) -> None:
    good = keys.token()
    keys.signer = signer_of(new_key()[0])
    forged = keys.token()
    head, payload, _ = good.split(".")

    for token in (forged, f"{head}.{payload}.", f"{head}.{payload}", "x", "é"):
        assert ask(token)[0] == 401, token


def test_without_googles_keys_nobody_is_let_in_and_may_come_again(
    keys: Keys, ask: Callable[[str], tuple[int, str]]
) -> None:
    keys.status = 500

    status, said = ask(keys.token())

    assert (status, "cannot be checked now" in said) == (503, True)
    keys.status = 200
    assert ask(keys.token())[0] == 204


@pytest.mark.parametrize("half", [{"audience": AUDIENCE}, {"accounts": ACCOUNT}])
def test_an_audience_without_accounts_would_let_everybody_in_and_is_refused(half: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="go together"):
        DispatcherSettings(**half)


def test_a_short_token_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREEL_DISPATCHER_TOKEN", "too-short")

    with pytest.raises(ValidationError, match="at least 16") as caught:
        DispatcherSettings()

    assert "too-short" not in str(caught.value)
