"""The page of a run and what it is made of: bounded whatever the run's length, and nothing in it asks anybody."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from nightreel_queue.connect import open_queue
from nightreel_storage.connect import open_store
from nightreel_storage.receipts import Cost, Made, OutputFile, Receipt, State, Video
from nightreel_worker.chronicle import Chronicle
from nightreel_worker.events import Ended
from nightreel_worker.highlights import JOBS_A_GROUP, MAX_BATCHES, MAX_GROUPS, SHOWN, SLOWEST, Spread
from nightreel_worker.history import History
from nightreel_worker.notify import Notifier
from nightreel_worker.pages import EMBEDDED_BYTES, POSTER_BYTES, keep_page, posters
from nightreel_worker.report import RunReport, Tally
from nightreel_worker.run_page import run_page
from nightreel_worker.run_text import WIDTH, run_text
from nightreel_worker.settings import Settings
from nightreel_worker.summary import Place, verdict
from nightreel_worker.web import Web

BEGAN = dt.datetime(2026, 3, 1, 2, tzinfo=dt.UTC)
PLACE = Place("gs://films/out", "pubsub://demo/films")
LONG_S = 60.0  # than which no last word is waited for
JPEG = b"\xff\xd8\xff a picture"


def receipt(job: str, state: State = "done", reason: str = "", seconds: float = 1.0, batch: str = "b") -> Receipt:
    done = state == "done"
    poster = OutputFile(name=f"{batch}/{job}.jpg", sha256="", size_bytes=len(JPEG), content_type="image/jpeg")
    video = Video(width=64, height=64, fps=8, frames=8, duration_s=1.0, digest="")
    made = Made(model="m", source="s", revision="", precision="", device="cpu", keyframes=1, film_s=seconds)
    return Receipt(
        state=state,
        batch=batch,
        job=job,
        fingerprint="f",
        reason=reason,
        outputs=(poster,) if done else (),
        video=video if done else None,
        made=made if done else None,
        cost=Cost(seconds=seconds, usd=seconds / 1000, price="p"),
        ended_at=BEGAN,
    )


def report(*receipts: Receipt, **fields: object) -> RunReport:
    tally = Tally()
    for each in receipts:
        tally.see(Ended(each, earlier=each.state == "cancelled"))
    known = {
        "run": "20260301T020000-a",
        "started_at": BEGAN,
        "ended_at": BEGAN + dt.timedelta(minutes=5),
        "why": "the queue is empty",
        "unavailable": False,
        "seconds": 300.0,
        "stages_s": {"load": 100.0, "render": 200.0},
        "usd": 0.3,
        "jobs_usd": 0.2,
        "shared_usd": 0.1,
        "price": "3.6 USD an hour",
    }
    return RunReport.model_validate(tally.figures() | known | fields)


def page(of: RunReport) -> str:
    return run_page(of, {}, lambda name: f"../{name}", PLACE).decode()


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# What a run keeps


def test_what_a_run_keeps_of_its_jobs_does_not_grow_with_them() -> None:
    def size(jobs: int) -> int:
        all_sorts = [
            receipt(f"job-{at}", batch=f"batch-{at % 60}")
            if at % 3
            else receipt(f"job-{at}", "failed", f"reason {'x' * (at % 30)} of {at}" * 20, batch=f"batch-{at % 60}")
            for at in range(jobs)
        ]
        return len(report(*all_sorts).to_bytes())

    small, large = size(2_000), size(10_000)

    assert large < small + 500
    assert large < 60_000


def test_each_list_ends_and_what_is_shown_is_spread_over_the_whole_run() -> None:
    made = [receipt(f"job-{at:05}", seconds=(at * 7919) % 10_000, batch=f"batch-{at % 100}") for at in range(10_000)]
    bad = [receipt(f"bad-{at}", "failed", f"{chr(97 + at % 26)} went wrong") for at in range(100)]

    kept = report(*made, *bad)

    assert (len(kept.batches), len(kept.endings), len(kept.slowest), len(kept.shown)) == (
        MAX_BATCHES, MAX_GROUPS, SLOWEST, SHOWN
    )  # fmt: skip
    assert [each.seconds for each in kept.slowest] == [9999.0 - at for at in range(SLOWEST)]
    at = [int(each.job.removeprefix("job-")) for each in kept.shown]
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert at[0] == 0
    assert at[-1] > 9_000
    assert max(gaps) <= 2 * min(gaps)


def test_what_is_spread_takes_no_more_memory_when_there_is_more_of_it() -> None:
    shown = Spread(SHOWN)
    [finished] = report(receipt("one")).shown

    for _ in range(10_000):
        shown.add(finished)

    assert len(shown._items) <= 2 * SHOWN


@pytest.mark.parametrize("count", [0, 1, SHOWN, SHOWN + 1, 2 * SHOWN, 2 * SHOWN + 1])
def test_of_few_videos_all_are_shown_and_never_one_twice(count: int) -> None:
    shown = [each.job for each in report(*(receipt(f"job-{at}") for at in range(count))).shown]

    assert len(shown) == len(set(shown)) == min(count, SHOWN)


def test_failures_are_grouped_by_batch_and_by_reasons_that_differ_in_numbers_alone() -> None:
    kept = report(
        *(receipt(f"slow-{at}", "failed", f"it would take {at}.5 s") for at in range(20)),
        receipt("odd", "failed", "no such picture"),
        receipt("other", "failed", "no such picture", batch="c"),
        receipt("off", "cancelled", "cancelled by hand"),
    )

    assert [(each.batch, each.state, each.count, each.reason) for each in kept.endings] == [
        ("b", "failed", 20, "it would take 0.5 s"),
        ("b", "failed", 1, "no such picture"),
        ("c", "failed", 1, "no such picture"),
        ("b", "cancelled", 1, "cancelled by hand"),
    ]
    assert kept.endings[0].jobs == tuple(f"slow-{at}" for at in range(JOBS_A_GROUP))


def test_a_reason_is_told_once_with_each_batch_and_its_commands() -> None:
    text = run_text(
        report(
            receipt("one", "failed", "no such picture"),
            receipt("two", "failed", "no such picture", batch="c"),
            receipt("odd", "failed", "too long"),
        ),
        PLACE,
    )

    assert text.count("no such picture") == 1
    together = "  one, of b\n     nightreel retry b one\n  two, of c\n     nightreel retry c two\n"
    assert f"2 failed: no such picture\n{together}1 failed: too long\n" in text


# What a page says


def test_a_page_asks_nobody_for_anything_runs_nothing_and_is_well_formed() -> None:
    tags = Tags(page(report(receipt("one"), receipt("bad", "failed", "no"))))

    assert tags.open == []
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "link", "iframe", "object", "form", "audio", "video"}
    assert not [attributes for _, attributes in tags.seen if {"src", "srcset", "onclick", "onload"} & attributes.keys()]
    assert [attributes["href"] for tag, attributes in tags.seen if tag == "a"] == ["../b/one.mp4", "../b/one.mp4"]
    css = page(report()).partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in css
    assert "@import" not in css


def test_what_strangers_wrote_stays_text() -> None:
    text = page(report(receipt("bad", "failed", "<script>alert(1)</script> & \"more\" 'still'")))

    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;more&quot;" in text


def test_a_poster_is_in_the_page_and_is_told_to_those_who_cannot_see_it() -> None:
    text = run_page(report(receipt("one"), receipt("two")), {"b/one.jpg": JPEG}, str, PLACE).decode()

    assert '<img src="data:image/jpeg;base64,/9j/IGEgcGljdHVyZQ==" alt="A frame of one">' in text
    assert text.count("no picture here") == 1


def test_the_commands_are_those_that_run_these_jobs_again() -> None:
    few = [receipt(f"few-{at}", "failed", "one") for at in range(3)]
    many = [receipt(f"many-{at}", "failed", "another", batch="c") for at in range(4)]

    text = run_text(report(*few, *many), PLACE)

    assert "     nightreel retry b few-0\n     nightreel retry b few-1\n     nightreel retry b few-2\n" in text
    assert "     nightreel retry c\n" in text
    assert "nightreel retry c many" not in text
    assert "export NIGHTREEL_STORE=gs://films/out NIGHTREEL_QUEUE=pubsub://demo/films" in text


def test_the_dollars_of_the_stages_are_those_of_the_run() -> None:
    text = run_text(report(receipt("one")), PLACE)

    assert "Where $0.3000 went, at the price 3.6 USD an hour" in text
    assert "   load     100.0 s  33.3%   $0.1000" in text
    assert " render     200.0 s  66.7%   $0.2000" in text
    assert "$0.2000 on receipts, $0.1000 shared by all" in text


def test_a_text_keeps_its_width_where_no_name_or_command_is_longer() -> None:
    text = run_text(report(receipt("one"), receipt("bad", "failed", "a long reason " * 20)), PLACE)

    assert max(len(line) for line in text.splitlines() if "export" not in line) <= WIDTH + 10


def test_a_folder_is_named_by_its_whole_path_and_a_bucket_as_it_is() -> None:
    assert Place.of(Settings(store="out")).exports == f"export NIGHTREEL_STORE={Path('out').absolute()}"
    assert Place.of(Settings(store="gs://films/out", queue="")).store == "gs://films/out"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"unavailable": True, "why": "no such queue"}, "It could not work: no such queue"),
        ({"returned": 2}, "It made nothing: all that came had ended before, or went back."),
        ({}, "No work came."),
        ({"done": 1200, "usd": 4.2}, "1,200 made, for $4.20."),
    ],
)
def test_a_run_is_told_in_a_sentence(fields: dict[str, object], said: str) -> None:
    assert verdict(report(**fields)) == said


def test_what_else_went_wrong_is_told_with_what_to_do() -> None:
    text = page(report(unavailable=True, rejected=2, returned=1, not_notified=3))

    for words in ("nightreel doctor", "2 messages could not be read as a job", "1 time a job went back", "3 notices"):
        assert words in text


def test_a_report_of_an_older_version_has_a_page_without_lists() -> None:
    written = report(receipt("one")).model_dump(mode="json")
    for name in ("batches", "endings", "slowest", "shown"):
        del written[name]

    text = page(RunReport.model_validate(written))

    assert "1 made, for $0.3000." in text
    assert 'class="sheet"' not in text


# The pictures in it


def test_a_page_takes_pictures_as_long_as_there_is_room(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    sizes = [POSTER_BYTES] * 5 + [POSTER_BYTES + 1] + [POSTER_BYTES] * 3
    for at in range(len(sizes)):
        store.put(f"b/job-{at}.jpg", JPEG)
    kept = report(*(receipt(f"job-{at}") for at in range(len(sizes))))
    shown = tuple(each.model_copy(update={"poster_bytes": size}) for each, size in zip(kept.shown, sizes, strict=True))

    found = posters(store, kept.model_copy(update={"shown": shown}))

    assert sorted(found) == [f"b/job-{at}.jpg" for at in (0, 1, 2, 3, 4, 6)]
    assert EMBEDDED_BYTES == 6 * POSTER_BYTES


def test_a_picture_that_is_gone_or_was_made_larger_by_hand_is_left_out(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("b/large.jpg", b"x" * (POSTER_BYTES + 1))
    store.put("b/there.jpg", JPEG)

    found = posters(store, report(receipt("large"), receipt("there"), receipt("gone")))

    assert found == {"b/there.jpg": JPEG}


def test_a_page_is_replaced_by_a_later_one_of_the_same_run(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))

    for seconds in (1.0, 2.0):
        name = keep_page(store, report(receipt("one"), seconds=seconds), PLACE)

    data, entry = store.get(name)
    assert (name, entry.content_type) == ("reports/20260301T020000-a.html", "text/html; charset=utf-8")
    assert b"2.0 s" in data


# The last words


@pytest.fixture
def chronicle(tmp_path: Path) -> Iterator[Chronicle]:
    settings = Settings(store=str(tmp_path))
    with contextlib.closing(open_queue(f"sqlite:///{tmp_path}/queue.db")) as queue:
        notifier = Notifier.of(settings, Web())
        store = open_store(str(tmp_path))
        yield Chronicle("a", queue, store, settings, notifier, Tally(), lambda state: report(state=state))


def test_a_store_that_cannot_keep_the_page_costs_the_run_nothing(chronicle: Chronicle, tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("somebody's file")

    with capture_logs() as log:
        chronicle.end(report(receipt("one")), in_a_hurry=False)

    assert [line["event"] for line in log] == ["run_ended", "page_not_kept"]
    assert History.read(open_store(str(tmp_path))).runs[-1].done == 1


@pytest.mark.parametrize("word", ["_telemetry.finish", "_notifier.announce", "_reports.keep_last"])
def test_a_run_leaves_while_one_of_its_last_words_is_not_heard(
    chronicle: Chronicle, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a receiver that does not answer before the run has left
    left, heard = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        left.wait(LONG_S)
        heard.set()

    part, _, method = word.partition(".")
    monkeypatch.setattr(getattr(chronicle, part), method, hang)

    chronicle.end(report(receipt("one")), in_a_hurry=True)

    assert not heard.is_set()
    left.set()
    assert heard.wait(LONG_S)
