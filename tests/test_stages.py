"""Three stages, one job in each, and one job in line. Real workers; ffmpeg is stopped to hold a stage in place."""

from __future__ import annotations

import os
import signal

from house import House, finish, job, until


def test_a_worker_claims_one_job_more_than_it_works_on(house: House) -> None:
    # Given six jobs and a worker whose first one takes its time
    house.enqueue(*(job(f"job{number}", f"slow {number}") for number in range(6)))
    process = house.start()

    until(lambda: house.queue.backlog().leased == 2, "one job in the works and one in line", process)
    until(lambda: house.attempts("job1"), "the job in line to be handed to the renderer", process)

    # Then the others stay where other workers find them
    assert house.queue.backlog().leased == 2
    assert house.queue.backlog().ready == 4
    process.send_signal(signal.SIGTERM)
    assert finish(process).code == 0


def test_the_next_jobs_keyframes_are_made_while_a_film_is_encoded_and_no_further_ones(house: House) -> None:
    # Given a film that stands still, because its encoder was stopped: the pipe to it holds less than the film
    house.enqueue(
        job("a", "slow once", output={"width": 640, "height": 640, "fps": 30}),
        *(job(name, f"picture of {name}") for name in "bcd"),
    )
    process = house.start()
    until(lambda: house.rendered() == [] and house.attempts("a"), "the first job to begin", process)
    until(lambda: house.processes("libx264"), "its encoder", process)
    encoder = house.processes("libx264")[0]
    os.kill(encoder, signal.SIGSTOP)

    # Then the keyframes stage goes on to the next job, and waits there for the film stage
    until(lambda: "picture of b" in house.rendered(), "the second job's keyframe", process)
    assert "picture of c" not in house.rendered()
    assert not house.has_ended("a")

    # And everything ends when the encoder goes on
    os.kill(encoder, signal.SIGCONT)
    assert finish(process).code == 0
    assert all(house.receipt(name).state == "done" for name in "abcd")


def test_a_film_begins_before_its_last_keyframe_is_made(house: House) -> None:
    house.enqueue(job("film", "first", "slow once"))
    process = house.start()

    until(lambda: house.processes("libx264"), "the encoder", process)

    assert house.rendered() == ["first"]
    assert finish(process).code == 0
    assert house.receipt("film").state == "done"


def test_a_shot_that_two_jobs_share_is_rendered_once(house: House) -> None:
    """Also when the second job was handed over before the first one's keyframe was in the store."""
    house.enqueue(job("a", "half a second intro", "a"), job("b", "half a second intro", "b"))

    run = house.work()

    assert run.code == 0
    assert sorted(house.rendered()) == ["a", "b", "half a second intro"]
    assert (run.report["keyframes"], run.report["reused"]) == (3, 1)


def test_a_worker_serves_each_job_with_the_model_that_it_names(house: House) -> None:
    house.enqueue(job("faulty", "x"), job("card", "x", render={"model": "testcard"}), job("again", "y"))

    run = house.work()

    assert run.code == 0
    made = {name: house.receipt(name).made for name in ("faulty", "card", "again")}
    assert {name: each.source for name, each in made.items() if each} == {
        "faulty": "faulty/1",
        "card": "testcard/1",
        "again": "faulty/1",
    }


def test_what_a_library_prints_disturbs_nothing_and_the_renderer_knows_no_settings(house: House) -> None:
    """The faulty source prints a line that looks like a message, and writes down the names in its environment."""
    house.environment |= {"GOOGLE_APPLICATION_CREDENTIALS": "secret.json", "HF_TOKEN": "secret"}
    house.enqueue(job("film", "environment"))

    run = house.work()

    assert run.code == 0
    assert house.receipt("film").state == "done"
    names = (house.folder / "environment").read_text().splitlines()
    assert "PATH" in names
    assert [name for name in names if name.startswith(("NIGHTREEL", "GOOGLE")) or "TOKEN" in name] == []
