"""Whole clips from the Gemini API: bought once, whatever dies. Google's own SDK against a local server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from clip_buyer import buy, film, spec
from gemini_server import KEY, Gemini
from house import House, job, until

from nightreel_pipelines.gemini import GeminiClips, GeminiSettings
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_storage.keyframes import Keyframes
from nightreel_storage.purchases import Purchases
from nightreel_storage.receipts import utc_now
from nightreel_worker.history import History
from nightreel_worker.ledger import Ledger, month_of

NIGHTREEL = (sys.executable, "-m", "nightreel")
CLIP_USD = 1.6  # 4 s at 0.40
ORDER = "nightreel_pipelines.gemini:GeminiClips"


@pytest.fixture(scope="module")
def gemini(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gemini]:
    """One server for all tests: each has prompts of its own."""
    server = Gemini(tmp_path_factory.mktemp("gemini"))
    yield server
    server.kill()


@dataclass
class Shop:
    """A store, and somebody who buys clips for it."""

    gemini: Gemini
    folder: Path
    prompt: str

    @property
    def store(self) -> Store:
        return open_store(str(self.folder / "out"))

    def buy(self, *prompts: str, run: str = "run", **settings: float | str) -> tuple[int, int, str]:
        """Clips that came, millionths of a dollar that were paid, and the error."""
        told = {name.removeprefix("gemini_"): value for name, value in self.gemini.settings.items() if name != "model"}
        scratch = Path(tempfile.mkdtemp(dir=self.folder))
        own = GeminiSettings.model_validate(told | {"timeout_s": 60.0, "answer_s": 20.0} | settings)
        return buy(self.store, run, film("film", *(prompts or (self.prompt,))), scratch, own)

    def process(self, *more: str) -> subprocess.Popen[str]:
        told = {f"NIGHTREEL_{name.upper()}": value for name, value in self.gemini.settings.items()}
        command = (sys.executable, "-m", "clip_buyer", str(self.folder / "out"), "process", self.prompt, *more)
        here = str(Path(__file__).parent)
        environment = os.environ | told | {"PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
        return subprocess.Popen(command, env=environment, cwd=self.folder, text=True, stdout=subprocess.PIPE)

    @property
    def orders(self) -> int:
        return self.gemini.orders().count(self.prompt)

    @property
    def counted_usd(self) -> float:
        """Spent or reserved."""
        return Ledger(self.store, service="gemini").read(month_of(utc_now())).micro_usd / 1e6

    @property
    def open(self) -> int:
        """Orders that are not settled."""
        return len(list(Purchases(self.store).list()))


@pytest.fixture
def shop(gemini: Gemini, tmp_path: Path) -> Shop:
    """With a prompt of the test's own."""
    return Shop(gemini, tmp_path, uuid.uuid4().hex)


# what becomes of an order


def test_a_clip_is_ordered_looked_for_and_downloaded_once(shop: Shop) -> None:
    assert shop.buy() == (1, 1_600_000, "")
    assert shop.buy() == (0, 0, ""), "the store has it"

    assert (shop.orders, shop.counted_usd, shop.open) == (1, CLIP_USD, 0)
    assert shop.gemini.parameters()[-1] == {
        "sampleCount": 1,
        "durationSeconds": 4,
        "aspectRatio": "16:9",
        "resolution": "720p",
    }


@pytest.mark.parametrize("trouble", ["quota once", "busy once"])
def test_a_service_without_room_is_asked_again(shop: Shop, trouble: str) -> None:
    shop.prompt = trouble

    assert shop.buy() == (1, 1_600_000, "")
    assert (shop.orders, shop.counted_usd) == (2, CLIP_USD), "the first was not taken"


def test_a_quota_that_stays_used_up_sends_the_job_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightreel_pipelines.gemini.BACKOFF_S", (0.1,))
    shop.prompt = "quota"

    came, paid, error = shop.buy()

    assert (came, paid, shop.counted_usd, shop.open) == (0, 0, 0, 0)
    assert error.startswith("SourceAway: the Gemini API's quota is used up: 429 RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (
            "refuse the order",
            "Unrenderable: the Gemini API refuses the order: 400 INVALID_ARGUMENT The prompt could not",
        ),
        (
            "refuse the clip",
            "Unrenderable: Google's safety filter refused the clip: sensitive words. Support codes: 58",
        ),
        ("break", "DrawingFailed: the Gemini API made no clip: it went wrong (code 13)"),
    ],
)
def test_what_will_never_be_made_costs_nothing_and_may_be_ordered_again(shop: Shop, trouble: str, said: str) -> None:
    shop.prompt = trouble

    for number in (1, 2):
        came, paid, error = shop.buy()

        assert (came, paid, shop.counted_usd, shop.open) == (0, 0, 0, 0)
        assert error.startswith(said)
        assert shop.orders == number


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("hang up", "the order was not answered (RemoteProtocolError"),
        ("oops", "an error that does not say whether it was taken: 500 INTERNAL"),
        ("forget", "any more: it keeps them for two days"),
        ("never", "has not ended in "),
    ],
)
def test_what_may_have_been_paid_for_is_not_ordered_again(shop: Shop, trouble: str, said: str) -> None:
    shop.prompt = trouble

    for _ in range(2):
        came, paid, error = shop.buy(timeout_s=0.5, answer_s=2.0)

        assert (came, paid) == (0, 0)
        assert error.startswith("InDoubt: a clip is in doubt: ")
        assert said in error or "run run ended while it ordered it" in error
        assert error.endswith("1.60 USD paid for it, so nobody orders it again by himself. If it shall be ordered anew:"
                              " nightreel retry b film --resubmit")  # fmt: skip
    assert (shop.orders, shop.counted_usd, shop.open) == (1, CLIP_USD, 1)


def test_an_answer_that_does_not_come_in_time_leaves_the_order_in_doubt(shop: Shop) -> None:
    shop.prompt = "slow to answer"

    _, _, error = shop.buy(answer_s=0.5)
    (shop.gemini.folder / "answer").touch()

    assert error.startswith("InDoubt: a clip is in doubt: the order was not answered (ReadTimeout")
    assert (shop.orders, shop.open) == (1, 1)


def test_a_download_that_breaks_off_is_done_again(shop: Shop) -> None:
    shop.prompt = "cut once"

    assert shop.buy() == (1, 1_600_000, "")
    assert (shop.orders, shop.open) == (1, 0)


@pytest.mark.parametrize("trouble", ["cut", "garbage"])
def test_a_clip_that_does_not_come_whole_is_neither_kept_nor_ordered_again(shop: Shop, trouble: str) -> None:
    shop.prompt = trouble

    for _ in range(2):
        came, paid, error = shop.buy(poll_s=0.01)

        assert (came, paid) == (0, 0)
        assert error.startswith("DrawingFailed: the clip was made, but does not come whole: ")
    assert (shop.orders, shop.counted_usd, shop.open) == (1, CLIP_USD, 1)
    assert not Keyframes(shop.store).fingerprints()


# money


def test_the_months_limit_is_kept_before_anything_is_ordered(shop: Shop) -> None:
    first, second = f"{shop.prompt} 1", f"{shop.prompt} 2"

    came, paid, error = shop.buy(first, second, monthly_usd=3.0)

    assert (came, paid, shop.counted_usd, shop.open) == (0, 0, 0, 0), "what was reserved for the first is given back"
    assert error.endswith("1.60 of 3.00 USD of " + f"{month_of(utc_now())} are spent or reserved, and a clip for b/film costs"
                          " 1.60: raise NIGHTREEL_GEMINI_MONTHLY_USD, or wait for the next month")  # fmt: skip
    assert not {first, second} & set(shop.gemini.orders())
    assert shop.buy(first, monthly_usd=3.0) == (1, 1_600_000, "")
    assert shop.buy(second, monthly_usd=3.0)[2].startswith("SourceUnavailable: gemini: 1.60 of 3.00 USD")


def test_many_who_buy_at_once_keep_the_limit_together(shop: Shop) -> None:
    prompts = [f"{shop.prompt} {number}" for number in range(6)]
    with ThreadPoolExecutor(len(prompts)) as pool:
        bought = list(pool.map(lambda prompt: shop.buy(prompt, run=prompt[-1], monthly_usd=5.0), prompts))

    assert sorted(paid for _, paid, _ in bought) == [0, 0, 0, 1_600_000, 1_600_000, 1_600_000]
    assert len(set(prompts) & set(shop.gemini.orders())) == 3
    assert shop.counted_usd == pytest.approx(3 * CLIP_USD)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"api_key": "another"}, "the Gemini API refuses NIGHTREEL_GEMINI_API_KEY: 403 PERMISSION_DENIED"),
        ({"url": "http://127.0.0.1:9"}, "SourceAway: the Gemini API cannot be reached: "),
    ],
)
def test_what_was_never_ordered_leaves_nothing(shop: Shop, settings: dict[str, str], said: str) -> None:
    _, _, error = shop.buy(**settings)

    assert said in error
    assert (shop.counted_usd, shop.open) == (0, 0)
    assert shop.buy() == (1, 1_600_000, "")


def test_the_key_and_the_model_are_looked_at_for_nothing(shop: Shop) -> None:
    def health(key: str, url: str = shop.gemini.settings["gemini_url"]) -> list[tuple[str, str]]:
        settings = GeminiSettings.model_validate({"api_key": key, "monthly_usd": 20, "url": url})
        return list(GeminiClips(spec(), settings).health())

    assert health(KEY) == [("ok", "Gemini API: models/veo-3.1-generate-preview; 20.00 USD a month")]
    [(state, said)] = health("another")
    assert state == "fail"
    assert said.startswith("the Gemini API refuses NIGHTREEL_GEMINI_API_KEY, or model veo-3.1-generate-preview: 403")
    [(state, said)] = health(KEY, "http://127.0.0.1:9")
    assert state == "fail"
    assert said.startswith("the Gemini API cannot be reached: ")


# whatever dies


def test_an_order_whose_worker_was_killed_before_it_was_written_down_is_in_doubt(shop: Shop) -> None:
    killed = shop.process("--struck", f"{ORDER}._order", "after", "1", "kill_worker")
    killed.communicate()
    assert (shop.folder / "struck").exists()

    came, paid, error = shop.buy(answer_s=0.5)

    assert (came, paid) == (0, 0)
    assert error.startswith("InDoubt: a clip is in doubt: run process ended while it ordered it. It may have been made")
    assert (shop.orders, shop.counted_usd, shop.open) == (1, CLIP_USD, 1)


@pytest.mark.parametrize(
    ("place", "paid"),
    [
        ("nightreel_storage.purchases:Purchases.answered", 1_600_000),
        ("nightreel_pipelines.gemini:_Sink.write", 1_600_000),
        ("nightreel_worker.ledger:Ledger.settle", 0),
    ],
)
def test_an_order_that_was_written_down_is_gone_on_with(shop: Shop, place: str, paid: int) -> None:
    """By whoever needs the clip; it is paid for once. The receipt of a worker that was killed tells nothing."""
    killed = shop.process("--struck", place, "after", "1", "kill_worker")
    killed.communicate()
    assert (shop.folder / "struck").exists()

    assert shop.buy() == (1 if paid else 0, paid, "")
    assert (shop.orders, shop.counted_usd) == (1, CLIP_USD)
    assert len(Keyframes(shop.store).fingerprints()) == 1


def test_of_two_workers_with_one_clip_one_orders_it_and_both_get_it(shop: Shop) -> None:
    workers = [shop.process(), shop.process()]
    told = [json.loads(worker.communicate()[0].splitlines()[-1]) for worker in workers]

    assert {error for *_, error in told} == {""}
    assert sum(paid for _, paid, _ in told) == 1_600_000
    assert (shop.orders, shop.counted_usd, shop.open) == (1, CLIP_USD, 0)


def test_who_meets_an_order_that_is_not_answered_yet_waits_for_the_answer(shop: Shop) -> None:
    answer = shop.gemini.folder / "answer"
    answer.unlink(missing_ok=True)
    shop.prompt = f"slow {shop.prompt}"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shop.buy, run="first")
        until(lambda: shop.orders, "the order")
        second = pool.submit(shop.buy, run="second")
        time.sleep(0.5)  # so that it has met the record
        answer.touch()

    assert {first.result()[2], second.result()[2]} == {""}
    assert first.result()[1] + second.result()[1] == 1_600_000
    assert (shop.orders, shop.counted_usd, shop.open) == (1, CLIP_USD, 0)


# a worker


def test_two_clips_become_a_film_and_are_not_bought_again(house: House, gemini: Gemini) -> None:
    """The receipts and the rest add up to the run's cost, clips included; the key is nowhere."""
    fade = {"type": "crossfade", "duration": 0.5}
    house.enqueue(
        film("film", "a test card", "a mandelbrot set", transition=fade),
        film("cut", "a test card", "a mandelbrot set"),
        film("dear", "a third clip", limits={"max_cost_usd": 1.0}),
        job("long", "x", render={"model": "gemini-veo"}, shots=[{"prompt": "x", "duration": 8.5}]),
    )

    run = house.work(**gemini.settings, price="1.42", log_level="debug")

    assert run.code == 0, run.err
    receipts = {name: house.receipt(name) for name in ("film", "cut", "dear", "long")}
    assert [each.state for each in receipts.values()] == ["done", "done", "failed", "failed"]
    made, video, cost = receipts["film"].made, receipts["film"].video, receipts["film"].cost
    assert made is not None
    assert video is not None
    assert cost is not None
    assert (made.source, made.revision, made.keyframe_size) == ("gemini/1", "veo-3.1-generate-preview", "1280x720")
    assert video.frames == 56
    assert "limits.max_cost_usd: it may cost 1 USD" in receipts["dear"].reason
    assert "1.60 USD for clips" in receipts["dear"].reason
    assert receipts["long"].reason.startswith("shots[0].duration: with its transitions the shot is on screen for 8.5 s")
    clips_usd = sum(each.cost.clips_usd for each in receipts.values() if each.cost)
    assert clips_usd == 3.2
    report = History.read(house.store).runs[-1]
    micro = [round(1e6 * each.cost.usd) for each in receipts.values() if each.cost]
    assert round(1e6 * report.usd) == sum(micro) + round(1e6 * report.shared_usd)
    assert report.clips_usd == 3.2
    assert report.machine_usd == pytest.approx(report.seconds * 1.42 / 3600, abs=2e-6)
    assert Ledger(house.store, service="gemini").read(month_of(utc_now())).micro_usd == 3_200_000
    assert gemini.orders()[-2:] == ["a test card", "a mandelbrot set"]
    everything = (
        run.out
        + run.err
        + "".join(house.store.get(entry.name)[0].decode(errors="replace") for entry in house.store.list())
    )
    assert KEY not in everything


def test_a_clip_in_doubt_is_ordered_anew_when_a_person_says_so(house: House, gemini: Gemini) -> None:
    prompt = "hang up once in doubt"
    house.enqueue(film("film", prompt))

    assert house.work(**gemini.settings).code == 0

    receipt = house.receipt("film")
    assert receipt.state == "failed"
    assert receipt.reason.endswith("nightreel retry b film --resubmit")
    anew = house.work(*NIGHTREEL, "retry", "b", "film", "--resubmit")
    assert anew.out == "1 jobs of b enqueued again; 1 clips are ordered anew\n"
    assert house.work(**gemini.settings).code == 0
    assert (house.receipt("film").state, gemini.orders().count(prompt)) == ("done", 2)
    told = house.work(*NIGHTREEL, "budget", "--service", "gemini")
    assert "1.60 spent, 1.60 reserved, 96.80 left of 100.00" in told.out


def test_a_wrong_key_ends_the_run_and_no_job(house: House, gemini: Gemini) -> None:
    house.enqueue(film("film", "with a wrong key"))

    wrong = gemini.settings | {"gemini_api_key": "another"}
    run = house.work(**wrong)

    assert run.code == 3
    assert "the Gemini API refuses NIGHTREEL_GEMINI_API_KEY" in run.err
    assert not house.has_ended("film")
    assert house.queue.backlog().ready == 1


def test_without_a_key_and_a_limit_nothing_is_begun(house: House) -> None:
    run = house.work(model="gemini-veo", gemini_api_key=KEY)

    assert run.code == 2
    assert "off until NIGHTREEL_GEMINI_API_KEY and NIGHTREEL_GEMINI_MONTHLY_USD are set" in run.err
