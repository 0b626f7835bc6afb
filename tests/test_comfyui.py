"""Keyframes by ComfyUI: real servers of the protocol, killed and mistreated, and a real worker that ends in the same film."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from comfy_process import Comfy
from house import House, finish, job, until
from proxy import Proxy, free_port

from nightreel_pipelines.base import Tick
from nightreel_pipelines.comfyui.settings import ComfyuiSettings
from nightreel_pipelines.comfyui.source import ComfyuiSource
from nightreel_pipelines.errors import Cancelled, DrawingFailed, SourceAway, SourceUnavailable, Unrenderable
from nightreel_pipelines.models import load_models
from nightreel_pipelines.recipe import Recipe, Start
from nightreel_queue.job import Job

SPEC = load_models()["comfyui-schnell"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Comfy]]:
    """Two servers that no test kills."""
    servers = [Comfy(tmp_path_factory.mktemp("comfy")).start() for _ in range(2)]
    yield servers
    for server in servers:
        server.kill()


@pytest.fixture
def pair(kept: list[Comfy]) -> Iterator[list[Comfy]]:
    """The two, with nothing asked of them and their logs empty."""
    yield kept
    for server in kept:
        for file in server.folder.iterdir():
            file.unlink()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Comfy]]:
    """Starts servers that a test may kill."""
    started: list[Comfy] = []

    def one() -> Comfy:
        started.append(Comfy(tmp_path / f"comfy-{len(started)}").start())
        return started[-1]

    yield one
    for server in started:
        server.kill()


@pytest.fixture
def source() -> Iterator[Callable[..., ComfyuiSource]]:
    """Makes the source as a worker has it."""
    made: list[ComfyuiSource] = []

    def one(*servers: Comfy | Proxy, **settings: object) -> ComfyuiSource:
        addresses = ",".join(server.url for server in servers)
        made.append(ComfyuiSource(SPEC, ComfyuiSettings.model_validate({"servers": addresses} | settings)))
        return made[-1]

    yield one
    for each in made:
        each.close()


def recipe(prompt: str, seed: int = 1, start: Start | None = None) -> Recipe:
    """One of its own for each test: servers find again what they drew before."""
    test = os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0]
    return Recipe("comfyui/1", test, "", prompt, seed, steps=4, guidance=0.0, width=96, height=64, start=start)


def drawn(source: ComfyuiSource, *prompts: str, tick: Tick = lambda: None) -> list[str]:
    """Prompts of the keyframes in the order in which they came."""
    return [each.recipe.prompt for each in source.keyframes([recipe(prompt) for prompt in prompts], {}, tick)]


# what a server does


def test_two_servers_share_the_keyframes_of_one_job(pair: list[Comfy], source: Callable[..., ComfyuiSource]) -> None:
    for server in pair:
        server.control(step_s=0.03)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    names = [f"picture {number}" for number in range(8)]
    found = list(source(*pair).keyframes([recipe(name, number) for number, name in enumerate(names)], {}, tick))

    assert sorted(each.recipe.prompt for each in found) == names
    assert sorted(pair[0].log("drawn") + pair[1].log("drawn")) == names
    assert all(len(server.log("drawn")) >= 2 for server in pair)
    assert {each.place for each in found} == {"cuda:0 Test Card"}
    assert all(each.content.startswith(b"\x89PNG") and b"class_type" not in each.content for each in found)
    assert ticks >= len(names)


def test_a_given_picture_is_uploaded_and_drawn_over(
    pair: list[Comfy], source: Callable[..., ComfyuiSource], tmp_path: Path
) -> None:
    given = tmp_path / "given"
    plain, *_ = source(pair[0]).keyframes([recipe("a boat")], {}, lambda: None)
    given.write_bytes(plain.content)
    over = recipe("a boat", start=Start("abc", 0.5))

    [kept] = source(pair[0]).keyframes([recipe("a boat", start=Start("abc", 0.0))], {"abc": given}, lambda: None)
    [half] = source(pair[0]).keyframes([over], {"abc": given}, lambda: None)

    assert over.evaluations == 2
    assert len({plain.content, kept.content, half.content}) == 3


def test_what_was_drawn_before_is_found_again_and_not_drawn_twice(
    pair: list[Comfy], source: Callable[..., ComfyuiSource]
) -> None:
    assert drawn(source(pair[0]), "a hill") == ["a hill"]
    assert drawn(source(pair[0]), "a hill") == ["a hill"]  # another worker, after the first one was killed

    assert pair[0].log("drawn") == ["a hill"]

    pair[0].control(no_files=True)
    with pytest.raises(DrawingFailed, match="has not kept its picture"):
        drawn(source(pair[0]), "a hill")


def test_a_prompt_whose_answer_was_lost_is_not_queued_twice(
    start: Callable[[], Comfy], source: Callable[..., ComfyuiSource]
) -> None:
    server = start()
    server.control(lose_answer=True, step_s=0.3)
    with pytest.raises(SourceAway, match="answers 502"):
        drawn(source(server), "a lake")

    assert drawn(source(server), "a lake") == ["a lake"]  # it is still being drawn
    assert len(server.log("prompts")) == len(server.log("drawn")) == 1


@pytest.mark.parametrize("trouble", ["cut", "untold", "old server"])
def test_a_picture_is_not_lost_with_the_messages_about_it(
    pair: list[Comfy], source: Callable[..., ComfyuiSource], trouble: str
) -> None:
    pair[0].control(old=trouble == "old server", step_s=0.02)

    assert drawn(source(pair[0]), f"a house, {trouble}") == [f"a house, {trouble}"]
    assert len(pair[0].log("drawn")) == 1


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("half", "a picture came damaged: it was cut off"),
        ("empty", "a picture came damaged: it was cut off"),
        ("cut", "broke off"),
        ("cut before its first byte", "broke off"),
    ],
)
def test_a_damaged_picture_is_fetched_from_another_try(
    pair: list[Comfy], source: Callable[..., ComfyuiSource], harm: str, words: str
) -> None:
    pair[0].control(damage=harm)

    with pytest.raises(SourceAway, match=words):
        drawn(source(pair[0]), f"a tent, {harm}")
    assert drawn(source(pair[0]), f"a tent, {harm}") == [f"a tent, {harm}"]
    assert pair[0].log("drawn") == [f"a tent, {harm}"]


# what is wrong for good


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("jpeg", r"workflow flux-schnell\.json: the output is no PNG \(a JPEG\): end the workflow in SaveImage"),
        ("small", r"the output is 64x64, and 96x64 was asked for: title the node that decides the size nightreel:size"),
        ("alpha", r"the output is a PNG of another kind than 8-bit RGB"),
        ("twice", r"it gave 2 pictures for one keyframe: set batch_size to 1"),
    ],
)
def test_an_output_that_is_no_keyframe_is_refused_with_the_mend(
    pair: list[Comfy], source: Callable[..., ComfyuiSource], prompt: str, words: str
) -> None:
    with pytest.raises(Unrenderable, match=words):
        drawn(source(pair[0]), prompt)


def test_a_missing_model_is_named_with_its_node_once_no_server_has_it(
    pair: list[Comfy], source: Callable[..., ComfyuiSource]
) -> None:
    pair[0].control(lacks=["ae.safetensors"])
    assert drawn(source(*pair), "one", "two", "three") != []
    assert len(pair[1].log("drawn")) == 3

    pair[1].control(lacks=["ae.safetensors"])
    with pytest.raises(Unrenderable) as told:
        drawn(source(*pair), "four")
    assert "node 10 (VAELoader): Value not in list: vae_name: 'ae.safetensors' not in []" in str(told.value)
    assert "put ae.safetensors among the server's models" in str(told.value)


def test_a_missing_node_is_named(pair: list[Comfy], source: Callable[..., ComfyuiSource], tmp_path: Path) -> None:
    nodes = json.loads((workflows() / "flux-schnell.json").read_text())
    nodes["8"]["class_type"] = "VAEDecodeFancy"
    (tmp_path / "mine.json").write_text(json.dumps(nodes))

    with pytest.raises(
        Unrenderable, match=r"workflow mine\.json: .*node VAEDecodeFancy does not exist.*: install that"
    ):
        drawn(source(pair[0], workflow=str(tmp_path / "mine.json")), "a fancy boat")


def workflows() -> Path:
    import nightreel_pipelines.comfyui

    return Path(nightreel_pipelines.comfyui.__file__).parent / "workflows"


# what is wrong for now


def test_a_node_that_fails_is_tried_again_and_then_told_as_comfyui_tells_it(
    pair: list[Comfy], source: Callable[..., ComfyuiSource]
) -> None:
    with pytest.raises(DrawingFailed) as told:
        drawn(source(pair[0], retries=1), "fail")

    words = "node 31 (KSampler): mat1 and mat2 shapes cannot be multiplied (RuntimeError)"
    assert str(told.value) == f"{pair[0].url}: {words}"
    assert len(pair[0].log("prompts")) == 2


def test_a_server_that_looks_well_and_fails_is_left_alone_while_the_other_draws(
    pair: list[Comfy], source: Callable[..., ComfyuiSource]
) -> None:
    pair[0].control(lying=True)

    names = [f"picture {number}" for number in range(6)]
    assert sorted(drawn(source(*pair), *names)) == names
    assert sorted(pair[1].log("drawn")) == names
    assert len(pair[0].log("prompts")) <= 2


@pytest.mark.parametrize("trouble", [{"lying": True}, {"lacks": ["ae.safetensors"]}])
def test_a_server_that_is_not_linked_yet_is_waited_for_by_what_the_first_one_could_not_draw(
    pair: list[Comfy], source: Callable[..., ComfyuiSource], trouble: dict[str, object]
) -> None:
    pair[0].control(**trouble)
    slow = Proxy(lambda: pair[1].port)
    slow.delay_s = 0.3
    try:
        assert drawn(source(pair[0], slow), "a late boat") == ["a late boat"]
    finally:
        slow.close()
    assert len(pair[0].log("prompts")) <= 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_has_no_time_is_asked_later(
    pair: list[Comfy], source: Callable[..., ComfyuiSource], status: int
) -> None:
    pair[0].control(status=status)
    both = source(*pair)

    assert drawn(both, "one", "two") != []
    assert len(pair[1].log("drawn")) == 2
    with pytest.raises(SourceAway, match=rf"no ComfyUI server can be used: {pair[0].url}: answers {status}"):
        drawn(source(pair[0]), "three")


def test_nobody_there_is_away_and_a_wrong_token_is_for_good(
    pair: list[Comfy], source: Callable[..., ComfyuiSource]
) -> None:
    with pytest.raises(SourceAway, match="nobody listens there: start ComfyUI, or set NIGHTREEL_COMFYUI_SERVERS"):
        drawn(source(Comfy(Path())), "a boat")

    pair[0].control(token="right")
    with pytest.raises(SourceUnavailable, match=r"lets us not in \(40[13]\): set NIGHTREEL_COMFYUI_TOKEN"):
        drawn(source(pair[0], token="wrong"), "a boat")
    assert drawn(source(pair[0], token="right"), "a boat") == ["a boat"]
    assert drawn(source(*pair, token="wrong"), "a house") == ["a house"]  # the other one asks for none


def test_a_server_that_talks_nonsense_is_told_of_and_ends_nothing(
    pair: list[Comfy], source: Callable[..., ComfyuiSource]
) -> None:
    pair[0].control(devices={"none": "at all"})

    with pytest.raises(SourceAway, match=r"says what ComfyUI does not \(KeyError"):
        drawn(source(pair[0]), "a boat")
    assert drawn(source(*pair), "a house") == ["a house"]


def test_a_prompt_that_hangs_is_called_off_and_goes_to_another_server(
    start: Callable[[], Comfy], pair: list[Comfy], source: Callable[..., ComfyuiSource]
) -> None:
    hung = start()
    hung.control(step_s=3600)
    pair[0].control(step_s=0.05)
    names = [f"picture {number}" for number in range(6)]

    assert sorted(drawn(source(hung, pair[0], timeout_s=1), *names)) == names
    assert hung.log("interrupted") != []


def test_a_server_that_is_killed_loses_its_prompts_to_the_other(
    start: Callable[[], Comfy], pair: list[Comfy], source: Callable[..., ComfyuiSource]
) -> None:
    doomed = start()
    doomed.control(step_s=0.1)
    names = [f"picture {number}" for number in range(6)]

    def tick() -> None:
        if doomed.log("prompts"):
            doomed.kill()

    assert sorted(drawn(source(doomed, pair[0]), *names, tick=tick)) == names


def test_calling_a_job_off_takes_our_prompts_out_of_the_queue_and_touches_nobody_elses(
    pair: list[Comfy], source: Callable[..., ComfyuiSource]
) -> None:
    pair[0].control(old=True, step_s=0.3)  # an old server interrupts whatever runs
    theirs: list[str] = []
    thread = threading.Thread(target=lambda: theirs.extend(drawn(source(pair[0]), "theirs")))
    thread.start()
    until(lambda: len(pair[0].log("prompts")) == 1, "their prompt")

    def off_once_both_wait() -> None:
        if len(pair[0].log("prompts")) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        drawn(source(pair[0]), "one", "two", tick=off_once_both_wait)
    thread.join()

    assert theirs == pair[0].log("drawn") == ["theirs"]
    assert len(pair[0].log("deleted")) == 2
    assert pair[0].log("interrupted") == []


# the whole way


def comfy_job(name: str, *prompts: str) -> Job:
    return job(name, *prompts, render={"model": "comfyui-schnell", "megapixels": 0.004})


def without_torch(house: House) -> None:
    """Whoever imports torch in this house fails."""
    for name in ("torch", "diffusers"):
        (house.folder / f"{name}.py").write_text('raise ImportError("there is no torch here")\n')
    paths = [str(house.folder), house.environment["PYTHONPATH"]]
    house.environment["PYTHONPATH"] = os.pathsep.join(paths)


def test_render_makes_the_same_film_as_ever_by_two_servers_without_torch(house: House, pair: list[Comfy]) -> None:
    without_torch(house)
    shots = "".join(f"      - {{prompt: 'a boat, number {number}', duration: 0.5}}\n" for number in range(6))
    (house.folder / "films.yaml").write_text(
        "defaults: {output: {width: 96, height: 64, fps: 8}, render: {megapixels: 0.006}}\n"
        f"jobs:\n  - id: film\n    shots:\n{shots}  - id: twin\n    shots:\n{shots}"
    )
    render = (sys.executable, "-m", "nightreel", "render", "films.yaml", "--model", "comfyui-schnell")
    servers = ",".join(server.url for server in pair)
    for server in pair:
        server.control(step_s=0.03)  # the twin comes while the film is drawn

    first = house.work(*render, comfyui_servers=servers)
    drawn_before = sorted(pair[0].log("drawn") + pair[1].log("drawn"))
    again = house.work(*render, comfyui_servers=f"http://127.0.0.1:{free_port()}")

    assert first.code == 0, first.out + first.err
    assert "2 of 2 videos made" in first.out
    assert "6 keyframes rendered" in first.out
    assert drawn_before == sorted(f"a boat, number {number}" for number in range(6))
    assert again.code == 0, again.out + again.err
    assert "no model work was done" in again.out


def test_plan_refuses_in_the_workers_words_and_asks_no_server(house: House) -> None:
    walk = {"prompt": "a boat", "motion": {"walk": {"to": "a tent"}}}
    manifest = {"jobs": [{"id": "film", "render": {"model": "comfyui-schnell"}, "shots": [walk]}]}
    (house.folder / "films.json").write_text(json.dumps(manifest))
    nowhere = f"http://127.0.0.1:{free_port()}"

    told = [
        house.work(sys.executable, "-m", "nightreel", verb, "films.json", comfyui_servers=nowhere)
        for verb in ("plan", "render")
    ]

    words = "shots[0].motion: comfyui-schnell cannot make a walk: take still, zoom, pan, rotate, or another model"
    assert (told[0].code, told[0].err) == (2, f"nightreel: job film: {words}\n")
    assert told[1].code == 1
    assert f"film: {words}" in told[1].out


def test_a_cancelled_job_leaves_the_server_and_its_worker_goes_on(house: House, pair: list[Comfy]) -> None:
    house.enqueue(comfy_job("endless", "slow one", "slow two"), comfy_job("film", "a lake at dawn"))
    worker = house.start(model="comfyui-schnell", comfyui_servers=pair[0].url, idle_timeout_s="1")
    until(lambda: len(pair[0].log("prompts")) >= 2, "two prompts", worker)

    cancel = house.work(sys.executable, "-m", "nightreel", "cancel", "b", "endless")
    run = finish(worker)

    assert (cancel.code, run.code) == (0, 0), cancel.err + run.err
    assert [house.receipt(name).state for name in ("endless", "film")] == ["cancelled", "done"]
    assert "slow one" not in pair[0].log("drawn")
    assert pair[0].log("interrupted") != []


def test_a_worker_goes_on_when_its_only_server_is_back_and_makes_nothing_again(
    make_house: Callable[..., House], start: Callable[[], Comfy]
) -> None:
    house, server = make_house(), start()
    without_torch(house)
    server.control(step_s=0.1)
    house.enqueue(comfy_job("film", "one", "two", "three", "four"), comfy_job("shared", "four", "five"))

    worker = house.start(model="comfyui-schnell", comfyui_servers=server.url, retry_delay_s="0.3", idle_timeout_s="1")
    until(lambda: len(server.log("drawn")) >= 2, "two keyframes", worker)
    server.kill()
    until(lambda: [each for each in house.attempts("film") if each.end == "preempted"], "the job to go back", worker)
    server.start()
    run = finish(worker)

    assert run.code == 0, run.err
    assert [house.receipt(name).state for name in ("film", "shared")] == ["done", "done"]
    again = len(server.log("drawn")) - len(set(server.log("drawn")))
    assert again <= 2  # what was drawn and not fetched when it was killed
    assert {attempt.end for attempt in house.attempts("film")} == {"preempted", "done"}
    assert house.receipt("film").attempts == 1
    made = house.receipt("film").made
    assert made is not None
    assert (made.source, made.device, made.placement) == ("comfyui/1", "comfyui", "cuda:0 Test Card")
    cost = house.receipt("film").cost
    assert cost is not None
    assert cost.seconds > 0


def test_a_worker_leaves_when_the_server_of_its_own_model_is_not_there(house: House) -> None:
    house.enqueue(comfy_job("film", "one"))
    run = house.work(model="comfyui-schnell", comfyui_servers=f"http://127.0.0.1:{free_port()}")

    assert run.code == 3
    assert "nobody listens there: start ComfyUI" in run.err
    assert house.attempts("film")[0].end == "preempted"
    assert house.queue.backlog().total == 1


def test_a_worker_that_is_told_to_leave_calls_its_prompts_off_and_gives_the_job_back(
    house: House, pair: list[Comfy]
) -> None:
    house.enqueue(comfy_job("film", "slow one", "slow two", "slow three"))
    worker = house.start(model="comfyui-schnell", comfyui_servers=pair[0].url)
    until(lambda: len(pair[0].log("prompts")) == 2, "two prompts", worker)

    worker.terminate()
    run = finish(worker)

    assert run.code == 0, run.err
    assert len(pair[0].log("deleted")) == 2
    assert len(pair[0].log("interrupted")) >= 1
    assert [attempt.end for attempt in house.attempts("film")] == ["preempted"]
    assert house.queue.backlog().ready == 1
