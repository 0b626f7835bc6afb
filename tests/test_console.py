"""The console's pages: what they tell, and what their forms do to a real store and queue."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from exhibition import FILM, fill, new_run, visit
from fake_gcs import FakeGcs
from finished import end
from house import House, job, until
from PIL import Image
from visitor import HTMX, TOKEN, Visitor, words

from nightreel_dispatcher.console import census
from nightreel_dispatcher.console.pages import asset
from nightreel_dispatcher.console.runbook import Runbook, month_of, noon_before, spent_since
from nightreel_dispatcher.looked import Looked
from nightreel_dispatcher.starts import Ledger as StartsLedger
from nightreel_dispatcher.starts import Starts
from nightreel_storage.base import ABSENT
from nightreel_storage.holds import Holds
from nightreel_storage.receipts import Receipts, utc_now
from nightreel_worker.ledger import Ledger, Share

CONSOLE = Path(__file__).parent.parent / "dispatcher/nightreel_dispatcher/console"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """A store with something in it, for all who only look."""
    with contextlib.closing(House(tmp_path_factory.mktemp("shown"))) as house:
        fill(house)
        visitor = visit(house, price="cloudrun-l4")
        yield visitor
        visitor.close()


@pytest.fixture
def own(house: House) -> Iterator[Visitor]:
    """The same, for those who change it."""
    fill(house)
    visitor = visit(house)
    yield visitor
    visitor.close()


# Tonight


def test_tonight_says_what_waits_who_works_what_came_of_it_and_what_it_cost(shown: Visitor) -> None:
    said = shown.page("/console/")

    assert "8 videos wait, 1 worker renders." in said
    assert "ready 8" in said
    assert "At b/under-way" in said
    assert "2 done 3 failed 1 cancelled 1 being rendered 1 waiting" in said
    assert "this month since" in said
    assert "$0.0800 $0.0400" in said  # two runs of $0.04 that made two videos
    assert "A run has no limit of its own" in said
    assert "A month has no limit" in said


def test_tonight_shows_the_newest_posters_in_small(shown: Visitor) -> None:
    found = re.findall(r'<img src="(/console/files/b/[\w-]+\.webp\?v=\w{64})"', shown.get("/console/").text)

    assert len(found) == 2
    answer = shown.get(found[0])
    assert answer.headers["content-type"] == "image/webp"
    assert "immutable" in answer.headers["cache-control"]
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (480, 270)


def test_a_part_that_is_as_it_was_is_not_sent_again(shown: Visitor) -> None:
    address = re.findall(r'hx-get="(/console/tonight\?was=[\w-]+)"', shown.get("/console/").text)[0]
    old = address.replace("was=", "was=0")

    assert (shown.get(address, **HTMX).status_code, shown.get(address, **HTMX).content) == (204, b"")
    again = shown.get(old, **HTMX)
    assert again.status_code == 200
    assert address in again.text.replace("&amp;", "&")  # from then on it asks with what it has
    assert "hx-swap-oob" not in again.text  # the sentence is as it was: nobody hears it twice


def test_a_sentence_that_has_changed_is_told_to_screen_readers(own: Visitor) -> None:
    address = re.findall(r'hx-get="(/console/tonight\?was=[\w-]+)"', own.get("/console/").text)[0]
    for _ in range(8):
        delivery = own.desk.queue.pull()
        assert delivery is not None
        delivery.ack()

    told = own.get(address, **HTMX).text

    assert '<p id="said" hx-swap-oob="innerHTML">Nothing waits, 1 worker renders.</p>' in told


def test_a_batch_asks_again_until_all_of_it_has_ended(own: Visitor) -> None:
    address = re.findall(r'hx-get="(/console/batches/b/sheet[^"]+)"', own.get("/console/batches/b").text)[0]
    assert "every 10s" in own.get("/console/batches/b").text

    own.send("/console/batches/b/cancel")

    told = own.get(address.replace("&amp;", "&"), **HTMX)
    assert told.status_code == 200
    assert "every 10s" not in told.text + own.get("/console/batches/b").text


def test_a_run_that_has_said_nothing_for_long_counts_as_killed(house: House) -> None:
    new_run(house, "running", age_s=400.0)
    visitor = visit(house)

    said = visitor.page("/console/")

    assert "no worker is up." in said
    assert re.search(r"silent for \d min \d+ s and was probably killed", said)
    visitor.close()


def test_tonight_tells_why_workers_are_up_or_not(house: House) -> None:
    reason = "for 3 s of work a start would be 95% of the bill"
    looked = Looked(at=utc_now(), why="a tick", words=reason, jobs=1)
    Starts(house.store).write(StartsLedger(looked=looked), ABSENT)
    visitor = visit(house)

    assert f"F{reason[1:]} (looked" in visitor.page("/console/")
    visitor.close()


def test_runs_that_were_killed_before_this_night_are_not_told_any_more(house: House) -> None:
    new_run(house, "running", age_s=3 * 86400.0)
    visitor = visit(house)

    assert "None is up." in visitor.page("/console/")
    visitor.close()


def test_tonight_is_there_when_the_store_is_empty(house: House) -> None:
    visitor = visit(house)

    said = visitor.page("/console/")

    assert "Nothing waits, no worker is up." in said
    assert "None yet. Submit one." in said
    visitor.close()


def test_an_outage_is_a_page_that_says_so(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path / "out", queue="sqlite:////proc/no/queue.db")

    answer = visitor.get("/console/")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "Out of reach" in answer.text
    assert "the queue&#39;s file needs a folder that you may write to" in answer.text
    visitor.close()


def test_a_night_begins_at_noon_and_a_month_at_its_first_midnight() -> None:
    def at(day: int, hour: int) -> dt.datetime:
        return dt.datetime(2026, 3, day, hour, tzinfo=dt.UTC)

    assert noon_before(at(5, 11)) == at(4, 12)
    assert noon_before(at(5, 12)) == noon_before(at(5, 23)) == at(5, 12)
    assert month_of(at(1, 0)) == month_of(at(31, 23)) == at(1, 0)


def test_a_months_budget_is_told_as_the_ledger_has_it(house: House) -> None:
    now = utc_now()
    share = Share(run="r", micro_usd=9_500_000, since=now, until=now + dt.timedelta(hours=1))
    Ledger(house.store).reserve(share, 20_000_000)
    as_told, by_setting = visit(house), visit(house, monthly_usd=10.0)

    assert "$9.50 of $20.00 of this month are spent or reserved." in as_told.page("/console/")
    assert "$9.50 of $10.00 of this month are spent or reserved." in by_setting.page("/console/")
    as_told.close()
    by_setting.close()


def test_what_was_spent_is_of_the_runs_that_began_then_or_later(house: House) -> None:
    new_run(house, "ended", age_s=5000.0, done=1)
    new_run(house, "ended", age_s=50.0, done=3)
    runs, now = Runbook(house.store), utc_now()

    reports = runs.since(now - dt.timedelta(seconds=6000))
    both, one = (spent_since(reports, now - dt.timedelta(seconds=ago_s)) for ago_s in (6000, 1000))

    assert (both.runs, both.videos, round(both.usd, 6)) == (2, 4, 0.08)
    assert (one.runs, one.videos, round(one.usd_per_video, 6)) == (1, 3, round(0.04 / 3, 6))
    assert len(runs.since(now - dt.timedelta(seconds=1000))) == 1


# Batches and jobs


def test_a_batch_is_a_contact_sheet_with_each_job_in_its_state(shown: Visitor) -> None:
    said = shown.page("/console/batches/b")

    assert re.search(r"made 0\.5 s · 64.64 · \$0\.0012", said)
    assert "cancelled off cancelled by hand" in said
    assert "being rendered under-way" in said
    assert "all 8 done 2 failed 3 cancelled 1 being rendered 1 waiting 1" in said


def test_failures_are_grouped_by_what_their_reasons_have_in_common(shown: Visitor) -> None:
    said = shown.page("/console/batches/b")

    assert "2 jobs b/dear: would take 12.5 s; 10 s are allowed dear , dearer Retry these 2" in said
    assert "1 job there is no <script>" in said


def test_a_batch_shows_one_state_alone_when_asked(shown: Visitor) -> None:
    html = shown.get("/console/batches/b?state=failed").text

    assert re.findall(r'<span class="name">([\w-]+)<', html) == ["dear", "dearer", "lost"]
    assert shown.get("/console/batches/b?state=nonsense").status_code == 422


def test_a_large_batch_is_told_in_pages(house: House) -> None:
    house.enqueue(*(job(f"v{number}", "a boat") for number in range(130)))
    visitor = visit(house)

    pages = [visitor.get(f"/console/batches/b?at={at}").text for at in (1, 2, 3)]

    names = [name for html in pages for name in re.findall(r'<span class="name">(v\d+)<', html)]
    assert names == [f"v{number}" for number in range(130)]
    assert ['rel="next"' in html for html in pages] == [True, True, False]
    visitor.close()


@pytest.mark.parametrize("query", ["", "?state=waiting"])
def test_a_large_batch_answers_at_once_and_says_that_it_is_being_counted(
    house: House, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    may_count = threading.Event()
    counted = census.Census._counted
    monkeypatch.setattr(census, "QUICK_JOBS", 1)
    monkeypatch.setattr(census.Census, "_counted", lambda *given: may_count.wait(20) and counted(*given))
    house.enqueue(job("one", "a boat"), job("two", "a boat"))
    visitor = visit(house)

    said = visitor.page(f"/console/batches/b{query}")
    assert "The jobs of this batch are being counted." in said
    assert "No jobs here." not in said
    assert 'hx-trigger="every 1s' in visitor.get(f"/console/batches/b{query}").text

    may_count.set()
    until(lambda: "all 2 waiting 2" in visitor.page(f"/console/batches/b{query}"), "a count")
    visitor.close()


def test_what_strangers_have_written_is_shown_as_text(shown: Visitor) -> None:
    for path in ("/console/batches/b", "/console/batches/b/made", "/console/batches/b/lost"):
        html = shown.get(path).text
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert" in html


def test_a_job_tells_its_film_its_cost_and_its_attempts(shown: Visitor) -> None:
    said = shown.page("/console/batches/b/made")

    assert re.search("film 0.5 s, 64 . 64, 8 frames/s", said)
    assert "$0.0012, 3.0 s of the run at cloudrun-l4" in said
    assert "under way" in shown.page("/console/batches/b/under-way")
    assert "Retry" in shown.page("/console/batches/b/dear")
    assert "Cancel this job" in shown.page("/console/batches/b/waits")


def test_for_htmx_a_job_is_only_the_part_that_plays(shown: Visitor) -> None:
    html = shown.get("/console/batches/b/made", **HTMX).text

    assert html.startswith("<article")
    assert "<video controls" in html
    assert "autoplay" in html


@pytest.mark.parametrize(
    "path", ["/console/batches/no", "/console/batches/b/no", "/console/runs/no", "/console/nothing"]
)
def test_what_is_not_there_is_a_page_that_says_so(shown: Visitor, path: str) -> None:
    answer = shown.get(path)

    assert answer.status_code == 404
    assert "<h1>Not there</h1>" in answer.text


def test_batches_are_listed_latest_first_with_their_posters(shown: Visitor) -> None:
    said = shown.page("/console/batches")

    assert "b 8 videos, 4.0 s of film from test," in said


def test_a_record_that_cannot_be_read_is_named(own: Visitor) -> None:
    own.desk.store.put("b/waits.json", b"{}", content_type="application/json")

    answer = own.get("/console/batches/b/waits")

    assert answer.status_code == 500
    assert "b/waits.json cannot be read by this version" in answer.text


# Files


def video_of(shown: Visitor) -> str:
    return f"/console/files/b/made.mp4?v={hashlib.sha256(FILM).hexdigest()}"


def test_a_player_gets_the_part_of_a_video_that_it_asks_for(shown: Visitor) -> None:
    whole, part = shown.get(video_of(shown)), shown.get(video_of(shown), Range="bytes=10-14")

    assert (whole.status_code, whole.content) == (200, FILM)
    assert (part.status_code, part.content) == (206, b"01234")
    assert part.headers["content-range"] == "bytes 10-14/1000"
    assert part.headers["content-type"] == "video/mp4"


@pytest.mark.parametrize(
    "path",
    [
        "/console/files/b/made.mp4",
        f"/console/files/b/made.mp4?v={'0' * 64}",
        f"/console/files/b/no.mp4?v={'0' * 64}",
        f"/console/files/b/no.webp?v={'0' * 64}",
        "/console/files/b/..%2f..%2fsecret.json",
        "/console/files/.nightreel/hold.json",
        "/console/static/..%2fapp.py",
    ],
)
def test_nothing_else_of_the_store_or_the_machine_is_given_out(shown: Visitor, path: str) -> None:
    assert shown.get(path).status_code in (404, 422)


def test_a_bucket_s_videos_are_played_from_the_bucket(
    gcs_server: FakeGcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    gcs_server.make_bucket("console")
    visitor = Visitor("gs://console/out", queue=f"sqlite:///{tmp_path / 'queue.db'}")
    entry = visitor.desk.store.put("b/one.mp4", FILM, content_type="video/mp4")
    path = f"/console/files/b/one.mp4?v={entry.sha256}"

    # Without a key to sign with, it goes through the dispatcher
    assert visitor.get(path).content == FILM

    # With one, the browser is led to it
    signed = "https://storage.googleapis.com/films/one.mp4?signature=x"
    monkeypatch.setattr(type(visitor.desk.store), "signed_url", lambda *_: signed)
    led = visitor.get(path)
    assert (led.status_code, led.headers["location"]) == (307, signed)
    visitor.close()


# Doing something about it


def test_a_hold_stands_until_it_is_lifted(own: Visitor) -> None:
    assert (
        own.send("/console/hold", {"reason": "prices <have> changed"}).headers["location"] == "/console/?did=held-0-0"
    )
    assert "On hold since" in own.page("/console/")
    assert "prices &lt;have&gt; changed" in own.get("/console/").text

    own.send("/console/resume")
    assert Holds(own.desk.store).read() is None


def test_one_reason_is_retried_and_nothing_else(own: Visitor) -> None:
    html = own.get("/console/batches/b").text
    key = re.findall(r'name="reason" value="([^"]*would take[^"]*)"', html)[0]
    waiting = own.desk.queue.backlog().total

    answer = own.send("/console/batches/b/retry", {"reason": key})

    assert answer.headers["location"] == "/console/batches/b?did=retried-2-0"
    assert "2 jobs enqueued again." in own.page(answer.headers["location"])
    receipts = {each.job: each for each in Receipts(own.desk.store).list("b")}
    assert [receipts[name].state for name in ("dear", "dearer", "lost")] == ["queued", "queued", "failed"]
    assert own.desk.queue.backlog().total == waiting + 2


def test_without_a_reason_everything_that_failed_or_was_cancelled_is_retried(own: Visitor) -> None:
    assert own.send("/console/batches/b/retry").headers["location"].endswith("did=retried-4-0")


def test_a_retry_can_lift_the_jobs_own_limits(house: House) -> None:
    limited = job("limited", "a boat", limits={"max_seconds": 1.0})
    house.enqueue(limited)
    delivery = house.queue.pull()
    assert delivery is not None
    delivery.ack()
    end(house.store, limited, "failed", "too dear")
    visitor = visit(house)

    visitor.send("/console/batches/b/limited/retry", {"without_limits": "1"})

    again = house.queue.pull()
    assert again is not None
    assert b"limits" not in again.body
    visitor.close()


def test_what_is_open_is_cancelled_and_what_is_done_stays(own: Visitor) -> None:
    one = own.send("/console/batches/b/waits/cancel")
    rest = own.send("/console/batches/b/cancel")
    again = own.send("/console/batches/b/cancel")

    assert one.headers["location"] == "/console/batches/b/waits?did=cancelled-1-0"
    assert rest.headers["location"] == "/console/batches/b?did=cancelled-1-0"
    assert "Nothing was left to cancel." in own.page(again.headers["location"])
    states = {name: at.state for name, at in Receipts(own.desk.store).standings("b").items()}
    assert (states["made"], states["waits"], states["under-way"]) == ("done", "cancelled", "cancelled")


def test_a_job_that_is_done_is_not_retried(own: Visitor) -> None:
    answer = own.send("/console/batches/b/made/retry")

    assert answer.status_code == 409
    assert "is done already" in answer.text


@pytest.mark.parametrize("did", ["<b>hi</b>", "retried-x-0", "retried-1-0-0", "won-1-0", "retried-99999999-0"])
def test_an_address_cannot_put_words_into_the_console_s_mouth(shown: Visitor, did: str) -> None:
    assert 'class="note"' not in shown.client.get("/console/", params={"did": did}).text


# Runs


def test_a_run_says_where_each_second_went_in_a_picture_and_in_words(shown: Visitor) -> None:
    listed = shown.get("/console/runs").text
    run = next(name for name in re.findall(r'href="/console/runs/([\w-]+)"', listed) if name.endswith("ended"))

    html = shown.get(f"/console/runs/{run}").text

    assert 'aria-label="start 2.0 s, load 18 s, render 70 s, idle 10 s"' in html
    assert re.search(r'class="stage-render" x="20.000" width="70.000"', html)
    said = words(html)
    assert "render 70 s 70.0 %" in said
    assert "a video, all shared out $0.0200" in said
    assert "ended because the queue is empty" in said
    assert "3 failures not told here" in said


# What is served


def test_htmx_is_the_file_that_its_note_names() -> None:
    note = (CONSOLE / "static/htmx.txt").read_text()
    content = (CONSOLE / "static/htmx.min.js").read_bytes()

    assert re.search(r"^htmx 2\.\d+\.\d+$", note, re.MULTILINE)
    version = re.findall(r"^htmx (\S+)$", note, re.MULTILINE)[0]
    assert f'version:"{version}"' in content.decode()
    assert re.findall(r"^sha256 (\w{64})$", note, re.MULTILINE) == [hashlib.sha256(content).hexdigest()]
    assert "Zero-Clause BSD" in (CONSOLE / "static/htmx.LICENSE.txt").read_text()


def test_files_of_ours_may_be_kept_for_their_address_changes_with_them(shown: Visitor) -> None:
    html = shown.get("/console/").text
    for address in re.findall(r'"(/console/static/[^"]+)"', html):
        answer = shown.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        name, digest = re.findall(r"static/([\w.]+)\?v=(\w+)$", address)[0]
        assert hashlib.sha256((CONSOLE / "static" / name).read_bytes()).hexdigest().startswith(digest)
    assert asset("app.py").status_code == 404


def test_the_console_is_no_part_of_what_programs_are_promised(shown: Visitor) -> None:
    described = shown.client.get("/openapi.json").json()

    assert [path for path in described["paths"] if path.startswith("/console")] == []
    assert TOKEN not in str(described)
