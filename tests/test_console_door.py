"""Who gets into the console: sessions, their end, and what no other site can make a browser do."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from visitor import HERE, SAME_ORIGIN, TOKEN, Visitor

from nightreel_dispatcher.console.app import create_console
from nightreel_dispatcher.console.door import security_headers
from nightreel_dispatcher.console.sessions import SESSION_S, Sessions
from nightreel_dispatcher.identity import Keeper
from nightreel_storage.holds import Holds


@pytest.fixture
def near(tmp_path: Path) -> Iterator[Visitor]:
    """A dispatcher without a token."""
    visitor = Visitor(tmp_path / "out")
    yield visitor
    visitor.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Visitor]:
    visitor = Visitor(tmp_path / "out", token=TOKEN)
    yield visitor
    visitor.close()


def sign_in(visitor: Visitor, token: str = TOKEN, to: str = "/console/runs") -> int:
    answer = visitor.client.post("/console/sign-in", data={"token": token, "to": to}, headers=SAME_ORIGIN)
    return answer.status_code


# Sessions


def test_a_session_is_known_again_until_it_has_run_out() -> None:
    now = 1000.0
    sessions = Sessions(TOKEN, clock=lambda: now)
    session = sessions.new()

    assert sessions.read(session.cookie) == session
    assert Sessions(TOKEN, clock=lambda: now).read(session.cookie) == session  # another dispatcher of the same token
    now += SESSION_S + 1
    assert sessions.read(session.cookie) is None


def test_a_cookie_tells_nothing_of_the_token_and_no_two_are_alike() -> None:
    sessions = Sessions(TOKEN)
    one, other = sessions.new(), sessions.new()

    assert TOKEN not in one.cookie + one.csrf
    assert one.cookie != other.cookie
    assert one.csrf != other.csrf


@pytest.mark.parametrize("token", ["another-token-of-some-length", None])
def test_another_token_ends_all_sessions(token: str | None) -> None:
    assert Sessions(token).read(Sessions(TOKEN).new().cookie) is None


@pytest.mark.parametrize(
    "forged", ["", ".", "..", "9999999999.x.", "9999999999.x.0", "é", "9999999999.x.é", "x" * 9999]
)
def test_a_cookie_that_we_have_not_signed_is_none(forged: str) -> None:
    assert Sessions(TOKEN).read(forged) is None


def test_the_cookies_of_others_on_this_machine_do_not_hide_ours(near: Visitor) -> None:
    ours = near.get("/console/").headers["set-cookie"].partition(";")[0]
    csrf = near.csrf
    near.client.cookies.clear()

    odd = {"Cookie": f'a={{"b": [1, "c d"]}}; =; {ours}; x', **SAME_ORIGIN}
    assert near.client.post("/console/resume", data={"csrf": csrf}, headers=odd).status_code == 303


def test_a_session_cannot_be_made_longer_by_hand() -> None:
    sessions = Sessions(TOKEN)
    ends, rest = sessions.new().cookie.split(".", 1)

    assert sessions.read(f"{int(ends) + 1}.{rest}") is None


def test_a_session_knows_the_account_that_came_in_and_no_other_can_be_written_into_it() -> None:
    sessions = Sessions(TOKEN)
    session = sessions.new("mary@demo.example")

    known = sessions.read(session.cookie)
    assert known is not None
    assert (known.account, sessions.new().account) == ("mary@demo.example", "")
    ends, nonce, _, signature = session.cookie.split(".")
    forged = base64.urlsafe_b64encode(b"john@demo.example").decode()
    assert sessions.read(f"{ends}.{nonce}.{forged}.{signature}") is None


# With a token


def test_with_a_token_every_page_leads_to_the_sign_in_and_back(guarded: Visitor) -> None:
    away = guarded.get("/console/runs")

    assert (away.status_code, away.headers["location"]) == (303, "/console/sign-in?to=/console/runs")
    assert guarded.get("/console/sign-in").status_code == 200

    # After the token was shown
    back = guarded.client.post("/console/sign-in", data={"token": TOKEN, "to": "/console/runs"}, headers=SAME_ORIGIN)
    assert (back.status_code, back.headers["location"]) == (303, "/console/runs")
    assert guarded.get("/console/runs").status_code == 200

    # And after signing out
    assert guarded.send("/console/sign-out").status_code == 303
    assert guarded.get("/console/runs").status_code == 303


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites_and_is_not_the_token(guarded: Visitor) -> None:
    answer = guarded.client.post(
        "/console/sign-in", data={"token": TOKEN}, headers={**SAME_ORIGIN, "X-Forwarded-Proto": "https"}
    )

    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("nightreel-8080=")
    assert cookie.endswith("; Max-Age=43200; Path=/console; HttpOnly; SameSite=Strict; Secure")
    assert TOKEN not in cookie


def test_a_wrong_token_opens_nothing(guarded: Visitor) -> None:
    answer = guarded.client.post("/console/sign-in", data={"token": "not-" + TOKEN}, headers=SAME_ORIGIN)

    assert answer.status_code == 401
    assert "That is not its token" in answer.text
    assert "set-cookie" not in answer.headers
    assert guarded.get("/console/").status_code == 303


def test_signing_in_leads_to_a_page_of_the_console_and_nowhere_else(guarded: Visitor) -> None:
    for to in (
        "https://elsewhere.example/console/",
        "//elsewhere.example/console/",
        "/jobs",
        "/console/\\@x",
        "javascript:1",
    ):
        answer = guarded.client.post("/console/sign-in", data={"token": TOKEN, "to": to}, headers=SAME_ORIGIN)
        assert (to, answer.headers["location"]) == (to, "/console/")


def test_a_session_opens_the_console_alone(guarded: Visitor) -> None:
    sign_in(guarded)

    assert guarded.get("/openapi.json").status_code == 401
    assert guarded.client.post("/tick").status_code == 401


def test_whoever_sends_the_token_with_each_request_needs_no_signing_in_to_look(guarded: Visitor) -> None:
    assert guarded.get("/console/runs", Authorization=f"Bearer not-{TOKEN}").status_code == 303
    assert guarded.get("/console/runs", Authorization=f"Bearer {TOKEN}").status_code == 200


def test_whatever_token_a_proxy_sends_along_a_browser_may_sign_in(tmp_path: Path) -> None:
    def verify(token: str) -> str:
        return "somebody@elsewhere.example"

    own = {"audience": "https://dispatcher.example", "accounts": "push@demo.example"}
    visitor = Visitor(tmp_path / "out", token=TOKEN, own=own, verify=verify)
    visitor.client.headers["Authorization"] = "Bearer an-identity"

    assert visitor.get("/console/runs").headers["location"] == "/console/sign-in?to=/console/runs"
    assert sign_in(visitor) == 303
    assert visitor.get("/console/runs").status_code == 200
    visitor.close()


def test_a_part_of_a_page_leads_the_whole_page_to_the_sign_in(guarded: Visitor) -> None:
    answer = guarded.get("/console/tonight", **{"HX-Request": "true"})

    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/console/sign-in")


def test_a_browser_that_comes_to_the_front_door_is_led_to_the_console(guarded: Visitor, near: Visitor) -> None:
    assert guarded.get("/").headers["location"] == near.get("/").headers["location"] == "/console/"
    assert guarded.client.get("/", headers={"Accept": "application/json"}).status_code == 401


# Without one


def test_without_a_token_nothing_is_asked_of_this_machine(near: Visitor) -> None:
    assert near.get("/console/").status_code == 200
    assert near.send("/console/hold", {"reason": "a look"}).status_code == 303
    held = Holds(near.desk.store).read()
    assert held is not None
    assert held.reason == "a look"


def test_without_a_token_a_name_that_leads_here_opens_nothing(near: Visitor) -> None:
    for path in ("/console/", "/console/sign-in", "/console/static/console.css"):
        assert near.get(path, Host="rebound.example").status_code == 403


# Other sites


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "cross-site", "Origin": HERE},
    {"Origin": "https://elsewhere.example"},
    {"Origin": "http://localhost:9999"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("whose", ["near", "guarded"])
def test_no_page_of_another_origin_changes_anything(request: pytest.FixtureRequest, whose: str) -> None:
    visitor: Visitor = request.getfixturevalue(whose)
    sign_in(visitor)
    csrf = visitor.csrf

    for headers in FOREIGN:
        answer = visitor.client.post("/console/hold", data={"csrf": csrf, "reason": "x"}, headers=headers)
        assert (headers, answer.status_code) == (headers, 403)
    assert Holds(visitor.desk.store).read() is None


def test_a_form_of_another_session_changes_nothing(near: Visitor, tmp_path: Path) -> None:
    other = Visitor(tmp_path / "other")

    for csrf in (other.csrf, "", "é", near.csrf[:-1]):
        answer = near.client.post("/console/hold", data={"csrf": csrf, "reason": "x"}, headers=SAME_ORIGIN)
        assert answer.status_code == 403
        assert "load it again" in answer.text
    assert Holds(near.desk.store).read() is None
    other.close()


def test_everything_that_changes_something_asks_for_the_sessions_own_token(guarded: Visitor) -> None:
    sign_in(guarded)
    console = create_console(guarded.desk, Keeper(guarded.desk.own))
    changing = [
        re.sub(r"\{\w+\}", "x", path)
        for path, operations in console.openapi()["paths"].items()
        if operations.keys() - {"get"} and path != "/sign-in"
    ]

    assert len(changing) > 8
    for path in changing:
        answer = guarded.client.post(f"/console{path}", data={"csrf": "x"}, headers=SAME_ORIGIN)
        assert (path, answer.status_code) == (path, 403)


def test_without_scripts_headers_a_form_from_our_own_page_is_taken(near: Visitor) -> None:
    """Browsers say nothing of sites over plain http to another machine, and some say no origin."""
    assert near.client.post("/console/resume", data={"csrf": near.csrf}).status_code == 303


# What pages may do


def test_every_answer_says_what_a_browser_may_do_with_it(guarded: Visitor) -> None:
    sign_in(guarded)
    for path in ("/console/", "/console/nothing", "/console/static/console.css", "/console/sign-in"):
        headers = guarded.get(path).headers
        policy = headers["content-security-policy"]

        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert guarded.get("/console/").headers["cache-control"] == "no-store"


def test_only_a_bucket_s_videos_may_come_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    local, bucket = (security_headers(store)["Content-Security-Policy"] for store in ("out", "gs://films/nightly"))

    assert "https:" not in local
    assert bucket.count("https:") == 1
    assert "media-src 'self' https://storage.googleapis.com;" in bucket


def test_pages_have_nothing_inline_and_load_nothing_from_elsewhere() -> None:
    templates = Path(__file__).parent.parent / "dispatcher/nightreel_dispatcher/console/templates"
    for path in templates.iterdir():
        text = path.read_text()
        assert not re.search(
            r"<style|\sstyle=|\son\w+=|javascript:|<script(?! src=)|https?://|\bhx-on|\|\s*safe", text
        ), path


def test_forms_have_a_limit_of_size(near: Visitor) -> None:
    csrf = near.csrf
    near.desk.own = near.desk.own.model_copy(update={"max_manifest_mb": 0.01})
    big = {"csrf": csrf, "text": "x" * 40_000}

    assert near.client.post("/console/submit/check", data=big, headers=SAME_ORIGIN).status_code == 413
    files = {"file": ("a.txt", "x" * 40_000)}
    assert near.client.post("/console/submit", data={"csrf": csrf}, files=files, headers=SAME_ORIGIN).status_code == 413
    assert near.client.post("/console/sign-in", data=big, headers=SAME_ORIGIN).status_code == 413
    assert near.client.post("/console/hold", content=b"{}", headers=SAME_ORIGIN).status_code == 415
