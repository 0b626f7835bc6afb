"""Submitting on the console: mistakes at their lines, the plan before the button, and then the same way in as everywhere."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest
from exhibition import SCRIPT, fill, visit
from house import House
from visitor import HTMX, Visitor, words


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """An empty house, for all who only look."""
    with contextlib.closing(House(tmp_path_factory.mktemp("empty"))) as house:
        visitor = visit(house, price="cloudrun-l4")
        yield visitor
        visitor.close()


@pytest.fixture
def own(house: House) -> Iterator[Visitor]:
    """A full one, for those who change it."""
    fill(house)
    visitor = visit(house)
    yield visitor
    visitor.close()


def test_each_problem_is_told_at_its_line_while_it_is_typed_and_nothing_is_enqueued(own: Visitor) -> None:
    before = own.desk.queue.backlog().total
    text = f"jobs:\n  - id: one\n    shots: ['{SCRIPT.replace(chr(39), '')}']\n    fps: 3\n  - shots: []\n"

    html = own.send("/console/submit/check", {"text": text}, headers=HTMX).text

    assert "2 problems read as YAML; nothing is enqueued" in words(html)
    assert "4 fps: 3 jobs[0].fps unknown field" in words(html)
    assert "5 - shots: [] jobs[1].shots is empty" in words(html)
    assert "<button" not in html
    assert own.desk.queue.backlog().total == before


def test_the_plan_is_told_before_the_button(shown: Visitor) -> None:
    html = shown.send("/console/submit/check", {"text": f"a boat\n{SCRIPT}\n"}, headers=HTMX).text

    said = words(html)
    assert re.search(r"2 videos, 8\.0 s of film .* keyframes .* worker's time .* cost .* storage", said)
    assert "Partly a guess" in said
    assert "cloudrun-l4 of 20" in said
    assert html.index("cost</dt>") < html.index("Enqueue 2 videos")
    assert "<script>" not in html


def test_a_submitted_manifest_is_a_batch_and_the_same_again_changes_nothing(own: Visitor) -> None:
    fields = {"text": "a boat\na tent\n", "name": "evening"}
    before = own.desk.queue.backlog().total

    first, second = (own.send("/console/submit", fields) for _ in range(2))

    assert first.status_code == second.status_code == 303
    assert first.headers["location"] == second.headers["location"]
    assert re.fullmatch(r"/console/batches/evening-\w+\?did=submitted-0-0", first.headers["location"])
    assert own.desk.queue.backlog().total == before + 2
    assert "Submitting the same again changes nothing" in own.page(first.headers["location"])
    told = own.send("/console/submit/check", fields, headers=HTMX).text
    assert "was enqueued before" in told


def test_without_scripts_the_page_brings_back_what_was_written_with_what_was_found(own: Visitor) -> None:
    files = {"file": ("my films.yaml", "jobs:\n- shots: []\n# <textarea>")}

    html = own.send("/console/submit/check", {"kind": "txt"}, files=files).text

    assert "1 problem read as YAML" in words(html)
    assert "# &lt;textarea&gt;</textarea>" in html
    assert '<option value="yaml" selected>' in html
    assert 'value="my-films"' in html


def test_a_manifest_that_is_refused_at_the_last_moment_is_not_lost(own: Visitor) -> None:
    taken = {"text": '{"id": "made", "batch": "b", "shots": ["something else"]}'}

    answer = own.send("/console/submit", taken)

    assert answer.status_code == 409
    assert "choose another id or batch" in words(answer.text)
    assert "something else" in answer.text


def test_a_full_queue_takes_no_more_and_says_so(own: Visitor) -> None:
    own.desk.own = own.desk.own.model_copy(update={"queue_limit": 3})

    answer = own.send("/console/submit", {"text": "a boat"})

    assert answer.status_code == 429
    assert "3 messages or more wait: come back later" in words(answer.text)
    assert "a boat</textarea>" in answer.text


def test_a_manifest_of_thousands_of_rows_is_planned_in_proportion_and_told_in_part(shown: Visitor) -> None:
    rows = "id,prompt\n" + "".join(f"v{number},a boat {number}\n" for number in range(2500))

    html = shown.send("/console/submit/check", files={"file": ("many.csv", rows)}, headers=HTMX).text

    said = words(html)
    assert "2,500 videos" in said
    assert "keyframes 2,500" in said
    assert "In proportion to the first 2,000 jobs." in said
    assert "and 2,480 more" in said
    assert len(html) < 20_000


def test_many_problems_are_counted_and_the_first_are_told(shown: Visitor) -> None:
    rows = "id,prompt,duration\n" + "a,b,c\n" * 2000

    html = shown.send("/console/submit/check", {"text": rows}, headers=HTMX).text

    assert html.count('class="says"') == 50
    assert re.search(r"[1-9],\d\d\d problems read as CSV", words(html))
    assert "more problems" in words(html)


def test_a_text_that_is_too_large_to_be_checked_at_each_stroke_says_so(shown: Visitor) -> None:
    html = shown.send("/console/submit/check", {"text": "a boat\n" * 50_000}, headers=HTMX).text

    assert "press Check" in html


def test_an_empty_page_says_nothing(shown: Visitor) -> None:
    assert shown.send("/console/submit/check", {"text": " \n"}, headers=HTMX).text == ""
    assert "<section" not in shown.send("/console/submit/check", {"text": ""}).text
