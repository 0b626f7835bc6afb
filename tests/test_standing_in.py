"""A model that stands in for another: what it makes, what it leaves to others, and what receipts say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from house import House, Run, job

from nightreel_pipelines.errors import SourceUnavailable
from nightreel_pipelines.models import load_models
from nightreel_queue.base import Delivery
from nightreel_queue.job import Job
from nightreel_worker.admission import Request
from nightreel_worker.limits import too_late
from nightreel_worker.place import Place

MODELS = """
[painter]
source = "faulty_source:FaultySource"
megapixels = 0.004
options = {{folder = "{folder}"}}
[sketcher]
source = "faulty_source:FaultySource"
megapixels = 0.004
max_steps = 4
stands_in_for = ["painter"]
options = {{folder = "{folder}"}}
[stranger]
source = "faulty_source:FaultySource"
megapixels = 0.004
max_steps = 4
options = {{folder = "{folder}"}}
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    (tmp_path / "models.toml").write_text(MODELS.format(folder=tmp_path))
    yield house
    house.close()


def wanted(name: str, *prompts: str, **fields: Any) -> Job:
    """Of a job for the painter."""
    steps = {"steps": fields.pop("steps")} if "steps" in fields else {}
    return job(name, *prompts, render={"model": "painter"} | steps, **fields)


def sketch(house: House, **settings: str) -> Run:
    return house.work(model="sketcher", backend="local", idle_timeout_s="0.5", **settings)


def test_a_stand_in_makes_what_it_can_and_leaves_the_rest_to_the_jobs_own_model(house: House) -> None:
    """And no worker waits for what it has left to others: each leaves although jobs are still to come back."""
    late = wanted("late", "a red sun", limits={"not_after": "2020-01-01T00:00:00Z"})
    not_its_own = job("not_its_own", "a red sun", render={"model": "stranger", "steps": 8})
    house.enqueue(
        wanted("easy", "a red sun"),
        wanted("hard", "a blue hill", steps=8),
        wanted("refused", "refuse this once"),
        wanted("dear", "a green sea", limits={"max_cost_usd": 0.001}),
        late,
        not_its_own,
    )

    run = sketch(house, retry_delay_s="0.5", route="because it is first", price="100")

    assert (run.code, run.report["done"], run.report["failed"]) == (0, 1, 2)
    assert sorted(run.report["passed"]) == ["b/dear", "b/hard", "b/refused"]
    assert house.receipt("easy").route == "local (sketcher) for painter because it is first"
    assert made_by(house, "easy") == "sketcher"
    assert house.receipt("late").reason == too_late(late, house.receipt("late").ended_at)
    assert "stranger takes 1 to 4" in house.receipt("not_its_own").reason
    assert {name: [each.end for each in house.attempts(name)] for name in ("dear", "hard", "refused")} == {
        "dear": ["passed"],
        "hard": ["passed"],
        "refused": ["passed"],
    }
    assert "limits.max_cost_usd" in house.attempts("dear")[0].reason

    house.message_back()
    known = house.attempts("hard")
    assert sketch(house).report["keyframes"] == 0, "what it has passed on once it does not try again"
    assert house.attempts("hard") == known, "and one record of that is enough"

    house.message_back()
    run = house.work_all(model="painter", backend="cloud", route="instead of local (sketcher): something else")
    assert run.report["done"] == 3, run.err
    receipt = house.receipt("hard")
    assert receipt.route == (
        "cloud (painter); sketcher passed it on: render.steps: is 8; sketcher takes 1 to 4: lower it, or leave it out"
        " for 4 (sketcher only stands in for its model)"
    )
    assert receipt.attempts == 1, "passing on costs no attempt"
    assert made_by(house, "hard") == "painter"


def made_by(house: House, name: str) -> str:
    made = house.receipt(name).made
    assert made is not None
    return made.model


def test_a_worker_without_a_choice_says_nothing_of_routes() -> None:
    asked = Request(wanted("film", "x"), 1, cast(Delivery, None), None)

    assert Place("", "painter", "").route(asked, "") == ""
    assert Place("", "sketcher", "").route(replace(asked, stands_in=True), "") == "sketcher for painter"
    assert Place("cloud", "painter", "").route(asked, "") == "cloud (painter)"


def test_a_misspelt_model_stands_in_for_nothing_and_is_told(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text('[sketcher]\nsource = "testcard"\nmegapixels = 1\nstands_in_for = ["flux-schnel"]\n')

    with pytest.raises(
        SourceUnavailable, match=r"sketcher: stands_in_for: no model flux-schnel; did you mean flux-schnell\?"
    ):
        load_models(models)
