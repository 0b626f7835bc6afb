"""The console's page of backends: what it tells of each, and what its forms do."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exhibition import name_backends, visit
from house import House, job, until
from visitor import HTMX, Visitor

from nightreel_dispatcher.backend_lines import lines
from nightreel_dispatcher.board import BackendState, Boards, Health
from nightreel_dispatcher.breaker import Breaker
from nightreel_dispatcher.console.backends import bars, headline
from nightreel_dispatcher.fleet import Fleet
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.starts import Starts
from nightreel_storage.holds import Holds
from nightreel_storage.receipts import utc_now

PAGE = "/console/backends"
NIGHT = dt.datetime(2026, 3, 1, 3, tzinfo=dt.UTC)
TWO = '[local]\nlauncher = "process"\nmodel = "testcard"\n[cloud]\nlauncher = "process"\nmodel = "testcard"\n'


@pytest.fixture
def three(house: House) -> Iterator[Visitor]:
    visitor = visit(house, policy=PolicySettings(backends=name_backends(house)))
    yield visitor
    visitor.close()


def card(visitor: Visitor, name: str) -> str:
    """What a card says, without tags."""
    found = re.findall(r'<li class="card.*?</li>', visitor.get(PAGE).text, re.DOTALL)
    said = [" ".join(re.sub(r"<[^>]*>", " ", html).split()) for html in found]
    return next(words for words in said if re.match(rf"(\d )?{name} ", words))


def test_each_backend_is_a_card_in_the_order_of_fallback_with_its_state_in_words(three: Visitor) -> None:
    said = three.page(PAGE)

    assert "The next worker starts at cloud." in said
    assert said.index("1 cloud") < said.index("2 studio") < said.index("3 spare")
    cloud, studio, spare = (card(three, name) for name in ("cloud", "studio", "spare"))
    assert cloud.startswith("1 cloud green Well. Gets the next worker : preferred.")
    assert "workers 1 of 3 answers in 82 ms launcher process model faulty price cloudrun-l4" in cloud
    assert "a video $0.1200, " in cloud
    assert cloud.endswith("by mary. Start a worker at cloud No preference")
    assert re.search(r"studio red studio did not answer since .*: Connection refused", studio)
    assert re.search(r"Its breaker: it failed 3 times in a row: no answer; left alone until [\d:]+ UTC", studio)
    assert studio.endswith("Nothing is started here while it is red. Prefer studio")
    assert "spare yellow It failed once: its worker failed: no weights." in spare
    assert "Its breaker" not in spare
    assert "Does not get the next worker : nothing starts its workers." in spare
    assert "Start a worker" not in spare


def test_costs_are_bars_beside_figures_measured_and_guessed_told_apart(three: Visitor) -> None:
    html = three.get(PAGE).text

    assert "cloud $0.1200 measured studio $0.00 guessed spare $" in three.page(PAGE)
    assert re.findall(r'<rect class="(measured|guessed)"', html) == ["measured", "guessed"], "nothing has no bar"
    assert re.findall(r'class="guessed" x="0" y="1" width="([\d.]+)"', html) == ["100.00"]
    assert bars([]) == []


def test_the_headline_tells_who_takes_the_next_worker_or_who_is_at_work(three: Visitor) -> None:
    assert three.waker is not None
    fleet = three.waker.launcher
    assert isinstance(fleet, Fleet)
    found = lines(fleet, fleet.board())
    nobody = [line.model_copy(update={"next": False}) for line in found]

    assert headline(found) == "The next worker starts at cloud."
    assert headline(nobody) == "At work: cloud. No backend may start another worker now."
    assert headline([]) == "No backend may start a worker now."


def test_a_breaker_does_not_say_again_why_a_backend_is_away(three: Visitor) -> None:
    why = "studio did not answer since 03:00:00 UTC (nobody there)"
    health = Health(ok=False, words="nobody there", at=NIGHT, since=NIGHT, missed=1)
    state = BackendState(health=health, breaker=Breaker().tripped(why, time.time(), 60))
    Boards(lambda: three.desk.store).change(lambda board: board.with_state("studio", state), utc_now())

    said = card(three, "studio")

    assert said.count(why) == 1
    assert re.search(r"Its breaker: it failed once: as above; left alone until [\d:]+ UTC", said)


def test_the_page_asks_again_every_30_s_and_is_not_sent_again_while_it_is_as_it_was(three: Visitor) -> None:
    html = three.get(PAGE).text
    address = re.findall(rf'hx-get="({PAGE}/now\?was=[\w-]+)"', html)[0]

    assert "every 30s" in html
    assert three.get(address, **HTMX).status_code == 204
    three.send(f"{PAGE}/prefer", {"name": "spare"})
    told = three.get(address, **HTMX)
    assert (told.status_code, "every 30s" in told.text) == (200, True)


def test_a_preference_is_kept_with_who_said_so_until_it_is_taken_back(three: Visitor) -> None:
    boards = Boards(lambda: three.desk.store)

    answer = three.send(f"{PAGE}/prefer", {"name": "studio"})
    said = boards.read().prefer
    assert said is not None
    assert (said.name, said.by) == ("studio", "the console")
    assert "Preferred, for all dispatchers" in three.page(answer.headers["location"])
    assert card(three, "studio").startswith("1 studio")

    three.send(f"{PAGE}/prefer")
    assert boards.read().prefer is None
    assert "No preference" not in three.page(PAGE)

    wrong = three.send(f"{PAGE}/prefer", {"name": "<b>clod"})
    assert wrong.status_code == 422
    assert "no backend &lt;b&gt;clod; there are studio, cloud, spare" in wrong.text


def test_a_preference_names_the_account_of_who_came_in_with_one(house: House) -> None:
    own = {"audience": "https://dispatcher.example", "accounts": "mary@demo.example"}
    policy = PolicySettings(backends=name_backends(house))
    visitor = visit(house, policy=policy, own=own, verify=lambda token: "mary@demo.example")
    visitor.client.headers["Authorization"] = "Bearer an-identity"

    assert visitor.get(PAGE).status_code == 200
    assert visitor.send(f"{PAGE}/prefer", {"name": "spare"}).status_code == 303
    assert "by mary@demo.example." in card(visitor, "spare")
    visitor.close()


@pytest.mark.parametrize("what", ["prefer", "start", "ask"])
def test_no_other_site_and_no_other_session_changes_anything(three: Visitor, what: str) -> None:
    before = Boards(lambda: three.desk.store).read()

    assert three.send(f"{PAGE}/{what}", {"csrf": "0", "name": "cloud"}).status_code == 403

    assert Boards(lambda: three.desk.store).read() == before
    assert not Starts(three.desk.store).read()[0].starts


def test_all_are_asked_when_one_does_not_want_to_wait(three: Visitor) -> None:
    """The board of the last look says that a worker of the cloud is up, and none is."""
    answer = three.send(f"{PAGE}/ask")

    assert "All were asked just now." in three.page(answer.headers["location"])
    assert "workers 0 of 3" in card(three, "cloud")


def test_a_worker_is_started_at_the_backend_that_was_clicked_and_refused_with_the_reason(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SCRATCH", "X264_PRESET"):
        monkeypatch.setenv(f"NIGHTREEL_{name}", house.environment[f"NIGHTREEL_{name}"])
    (house.folder / "backends.toml").write_text(TWO)
    policy = PolicySettings(backends=house.folder / "backends.toml", max_wait_s=9000)
    with contextlib.closing(visit(house, policy=policy, model="testcard", models=None)) as visitor:
        # Refused while nothing waits, or on hold: with the reason, and nothing is started
        house_is_empty = visitor.send(f"{PAGE}/start", {"name": "cloud"})
        house.enqueue(job("film", "a boat", render={"model": "testcard"}))
        Holds(house.store).put("the bill", utc_now())
        held = visitor.send(f"{PAGE}/start", {"name": "cloud"})
        Holds(house.store).lift(utc_now())
        assert (house_is_empty.status_code, held.status_code) == (409, 409)
        assert "nothing waits" in house_is_empty.text
        assert "on hold: the bill" in held.text
        assert not Starts(house.store).read()[0].starts

        # Else a real worker is, there and not at the first in the order
        answer = visitor.send(f"{PAGE}/start", {"name": "cloud"})
        assert answer.headers["location"] == f"{PAGE}?did=begun-0-0"
        until(lambda: house.has_ended("film"), "the film")
        assert house.receipt("film").route == "cloud (testcard) asked for by hand"
        [start] = Starts(house.store).read()[0].starts
        assert start.ids[0].startswith("cloud:")
        assert start.why == "a worker was asked for by hand at cloud"
        assert visitor.waker is not None
        assert isinstance(visitor.waker.launcher, Fleet)
        for worker in start.ids:
            visitor.waker.launcher.cancel(worker)
        launcher = visitor.waker.launcher
        until(lambda: not any(each.is_up for each in launcher.executions()), "the worker's end")


@pytest.mark.parametrize(
    ("launcher", "says"), [("process", "Start a worker at local"), ("none", "nothing starts its workers")]
)
def test_without_a_file_there_is_one_card_and_the_way_to_more(house: House, launcher: str, says: str) -> None:
    policy = PolicySettings.model_validate({"launcher": launcher})
    with contextlib.closing(visit(house, policy=policy)) as visitor:
        said = visitor.page(PAGE)

        assert "NIGHTREEL_DISPATCHER_BACKENDS=backends.toml" in said
        assert says in card(visitor, "local")
        assert "Prefer" not in said
        assert visitor.send(f"{PAGE}/prefer", {"name": "local"}).status_code == 409
        assert not (Path(house.places.store_url) / ".nightreel/backends.json").exists(), "looking changes nothing"
        refused = visitor.send(f"{PAGE}/start", {"name": "local"})
        assert refused.status_code == 409
        assert ("nothing waits" if launcher == "process" else "NIGHTREEL_DISPATCHER_LAUNCHER") in refused.text


def test_a_model_that_is_not_there_is_said_so(house: House) -> None:
    with contextlib.closing(visit(house, model="flux-schnel")) as visitor:
        answer = visitor.get(PAGE)

    assert answer.status_code == 503
    assert "did you mean flux-schnell?" in answer.text
