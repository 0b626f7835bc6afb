"""A job on the wire: what is accepted, what a fingerprint stands for, and what is said of mistakes."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.job import Job
from nightreel_queue.json_text import read_json
from nightreel_queue.problems import MAX_JOB_BYTES, MAX_MISTAKES, PATTERN_WORDS, parse_job
from nightreel_queue.schema import job_schema
from nightreel_queue.strict import UINT32_MAX
from nightreel_queue.trees import Unreadable

settings.register_profile("patient", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("patient")

MINIMAL = {"shots": [{"prompt": "a red sun"}]}

prompts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda text: text.strip())
names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)
seeds = st.integers(0, UINT32_MAX)
pairs = {bounds: st.tuples(*[st.floats(*bounds)] * 2) for bounds in [(1, 4), (-1, 1), (0.1, 0.9)]}
sides = st.integers(32, 1080).map(lambda half: 2 * half)
labels = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True), prompts, max_size=3)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with any of the fields, or none."""
    return st.fixed_dictionaries({}, optional=fields)


notices = some(
    topic=st.from_regex(r"[A-Za-z][A-Za-z0-9._~+-]{2,20}", fullmatch=True),
    webhook=st.from_regex(r"https://[a-z]{1,9}\.example\.com/[!-~]{0,20}", fullmatch=True),
).filter(bool)
moves = some(
    zoom=pairs[1, 4],
    pan=pairs[-1, 1],
    rotate=st.floats(-180, 180),
    focus=pairs[0.1, 0.9],
    ease=st.sampled_from(["linear", "in", "out", "in_out"]),
).filter(lambda move: move.keys() & {"zoom", "pan", "rotate"})
rates = st.floats(0.5, 8)
walks = st.builds(lambda to, walk: {"walk": walk | {"to": f"to {to}"}}, prompts, some(rate=rates, seed=seeds))
feedbacks = st.builds(
    lambda feedback: {"feedback": feedback},
    some(zoom=st.floats(0.5, 2), pan=pairs[-1, 1], rotate=st.floats(-180, 180), strength=st.floats(0, 1), rate=rates),
)
lasting = st.floats(0.04, 0.2)
transitions = st.one_of(
    st.just({"type": "cut"}),
    some(type=st.sampled_from(["crossfade", "dip_to_black"]), duration=lasting),
    some(duration=lasting, direction=st.sampled_from(["left", "right", "up", "down"])).map(
        lambda rest: {"type": "slide"} | rest
    ),
)
sounds = st.builds(
    lambda rest: {"uri": "gs://sounds/x.mp3"} | rest,
    some(
        gain_db=st.floats(-60, 24),
        start=st.floats(0, 3600),
        loop=st.booleans(),
        fade_in=st.floats(0, 0.2),
        fade_out=st.floats(0, 0.2),
    ),
)
shots = st.builds(
    lambda prompt, rest: {"prompt": prompt} | rest,
    prompts,
    some(
        duration=st.floats(0.2, 60),
        seed=seeds,
        init=st.builds(lambda rest: {"image": "gs://pictures/x.png"} | rest, some(strength=st.floats(0, 1))),
        control=st.builds(
            lambda rest: {"type": "pose", "image": "gs://pictures/x.png"} | rest,
            some(scale=st.floats(0, 2), start=st.floats(0, 0.3), end=st.floats(0.4, 1)),
        ),
        motion=st.just("still") | moves | walks | feedbacks,
        transition=transitions,
    ),
)
moments = st.sampled_from(["2026-05-01T06:00Z", "2026-05-01T06:00:30+05:30", "1999-12-31T23:59:59-11:00"])
outputs = st.one_of(
    some(aspect=st.sampled_from(["16:9", "9:16", "1:1", "4:5"]), fps=st.integers(8, 60), crf=st.integers(0, 40)),
    st.fixed_dictionaries({"width": sides, "height": sides}),
)
limits = st.one_of(
    st.fixed_dictionaries({"max_seconds": st.floats(0.1, 86_400)}),
    st.fixed_dictionaries({"max_cost_usd": st.floats(0.0001, 10_000), "not_after": moments}),
    st.fixed_dictionaries({"not_after": moments}),
)
renders = some(
    model=st.sampled_from(["pocket", "flux-schnell"]), megapixels=st.floats(0.004, 4.2), steps=st.integers(1, 50)
)


def _job(storyboard: list[dict[str, Any]], fields: dict[str, Any]) -> Job:
    last = {key: value for key, value in storyboard[-1].items() if key != "transition"}
    return parse_job(json.dumps(fields | {"shots": [*storyboard[:-1], last]}))


jobs = st.builds(
    _job,
    st.lists(shots, min_size=1, max_size=4),
    some(
        id=names,
        batch=names,
        output=outputs,
        render=renders,
        seed=seeds,
        seed_mode=st.sampled_from(["per_shot", "fixed"]),
        style_prefix=prompts,
        style_suffix=prompts,
        transition=transitions,
        audio=sounds,
        priority=st.sampled_from(["normal", "urgent"]),
        labels=labels,
        notify=notices,
        limits=limits,
    ),
)


def minimal(**fields: Any) -> Job:
    return parse_job(json.dumps(MINIMAL | fields))


def problems_of(data: bytes | str, place: str = "") -> list[Problem]:
    with pytest.raises(InvalidJob) as caught:
        parse_job(data, place)
    return list(caught.value.problems)


@given(jobs)
def test_a_job_survives_the_wire_unchanged(job: Job) -> None:
    assert parse_job(job.to_json()) == job
    assert parse_job(job.to_json().encode()).to_json() == job.to_json()


@given(jobs)
def test_writing_the_defaults_out_changes_nothing(job: Job) -> None:
    explicit = parse_job(json.dumps(job.model_dump(mode="json")))

    assert explicit == job
    assert explicit.to_json() == job.to_json()
    assert explicit.fingerprint == job.fingerprint


@given(jobs, names, names, labels, notices, limits)
def test_the_fingerprint_ignores_names_priority_labels_notices_and_limits(
    job: Job, name: str, batch: str, marks: dict[str, str], notice: dict[str, str], limit: dict[str, Any]
) -> None:
    other = {"id": name, "batch": batch, "priority": "urgent", "labels": marks, "notify": notice, "limits": limit}

    renamed = parse_job(json.dumps(json.loads(job.to_json()) | other))

    assert renamed.fingerprint == job.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"shots": [{"prompt": "a red moon"}]},
        {"shots": [{"prompt": "a red sun", "duration": 3}]},
        {"shots": [{"prompt": "a red sun", "seed": 0}]},
        {"shots": [{"prompt": "a red sun", "motion": "still"}]},
        {"shots": [{"prompt": "a red sun", "motion": {"zoom": [1.0, 1.13]}}]},
        {"shots": [{"prompt": "a red sun"}, {"prompt": "a red sun"}]},
        {"output": {"fps": 31}},
        {"output": {"crf": 17}},
        {"output": {"aspect": "9:16"}},
        {"render": {"model": "pocket"}},
        {"render": {"steps": 2}},
        {"shots": [{"prompt": "a red sun", "control": {"type": "pose", "image": "gs://pictures/x.png"}}]},
        {"seed": 1},
        {"seed_mode": "fixed"},
        {"style_prefix": "oil, "},
        {"style_suffix": ", oil"},
        {"transition": {"type": "cut"}},
    ],
)
def test_the_fingerprint_changes_with_whatever_changes_the_video(change: dict[str, Any]) -> None:
    assert minimal(**change).fingerprint != minimal().fingerprint


def test_the_fingerprint_of_the_smallest_job_never_changes() -> None:
    """A release that changed it would render, and bill, every job again."""
    assert minimal().to_json() == '{"shots":[{"prompt":"a red sun"}],"version":1}'
    assert minimal().fingerprint == "15d8bc0110577035f1cfed53070c695a643d2ab5b51bafd6a7eb743ceeda99f9"


def test_four_steps_are_one_fingerprint_whether_said_or_not_and_stay_said() -> None:
    """They were the default of every model once; now a model may have another, which the worker writes into the job."""
    said = minimal(render={"steps": 4})

    assert said.fingerprint == minimal().fingerprint
    assert parse_job(said.to_json()).render.steps == 4
    own = {"pocket": 4, "slow": 28}
    resolved = [
        job.resolved(model="slow", batch="b", steps=own) for job in (said, minimal(), minimal(render={"steps": 9}))
    ]
    assert [job.render.steps for job in resolved] == [4, 28, 9]
    assert len({job.fingerprint for job in resolved}) == len({job.id for job in resolved}) == 3
    quick = minimal().resolved(model="pocket", batch="b", steps=own)
    assert (quick.render.steps, quick.fingerprint) == (4, minimal(render={"model": "pocket"}).fingerprint)
    assert minimal().resolved(model="pocket", batch="b").fingerprint == quick.fingerprint


def test_a_jobs_inputs_are_all_its_pictures_each_once() -> None:
    pose = {"type": "pose", "image": "gs://pictures/pose.png"}
    hills = "gs://pictures/hills.png"
    shots = [
        {"prompt": "x", "control": pose, "init": {"image": hills}},
        {"image": hills},
        {"prompt": "y", "control": pose},
    ]

    assert dict(minimal(shots=shots).inputs) == {hills: "shots[0].init.image", pose["image"]: "shots[0].control.image"}


def test_numbers_written_without_a_point_are_the_same_numbers() -> None:
    whole = parse_job('{"shots": [{"prompt": "x", "duration": 3, "motion": {"rotate": 2}}]}')
    pointed = parse_job('{"shots": [{"prompt": "x", "duration": 3.0, "motion": {"rotate": 2e0}}]}')

    assert whole.fingerprint == pointed.fingerprint


@given(jobs, names)
def test_resolving_twice_is_resolving_once(job: Job, batch: str) -> None:
    once = job.resolved(model="pocket", batch=batch)

    assert once.id
    assert once.batch == (job.batch or batch)
    assert once.render.model == (job.render.model or "pocket")
    assert once.resolved(model="flux-schnell", batch="other") == once
    assert parse_job(once.to_json()) == once


def test_a_job_without_a_name_is_called_after_its_content_and_model() -> None:
    pocket = minimal().resolved(model="pocket", batch="b")
    schnell = minimal().resolved(model="flux-schnell", batch="b")

    assert pocket.id == pocket.fingerprint[:16]
    assert pocket.id != schnell.id


def shot(**fields: Any) -> dict[str, Any]:
    return {"shots": [{"prompt": "x"} | fields]}


NAME = "1 to 64 letters, digits, - or _"
TOO_MANY = (
    "may need 2,431 keyframes; a job may have 2,000: lower the rate of walk or feedback, shorten the shots, or make two"
    " jobs"
)
MOVE = "still, or a mapping of zoom, pan, rotate, focus, ease, or of walk, or of feedback"
REFUSED: list[tuple[str, Any, str, str]] = [
    ("an unknown field", shot(promt="y"), "shots[0].promt", "unknown field 'promt'; did you mean 'prompt'?"),
    (
        "a misspelt field",
        {"shots": [{"promt": "y"}]},
        "shots[0].promt",
        "unknown field 'promt'; did you mean 'prompt'?",
    ),
    (
        "a far-off field",
        {**MINIMAL, "output": {"qqq": 1}},
        "output.qqq",
        "unknown field 'qqq'; the fields here are: aspect, crf, fps, height, width",
    ),
    (
        "an odd field",
        {**MINIMAL, "render": {"st eps": 1}},
        "render['st eps']",
        "unknown field 'st eps'; did you mean 'steps'?",
    ),
    (
        "an unknown move",
        shot(motion={"zooom": [1, 2]}),
        "shots[0].motion.zooom",
        "unknown field 'zooom'; did you mean 'zoom'?",
    ),
    ("no shots", {}, "shots", "is missing; must be a list of 1 to 120 items"),
    ("empty shots", {"shots": []}, "shots", "is empty: a video needs at least one shot"),
    ("shots as text", {"shots": "x"}, "shots", "is 'x'; must be a list of 1 to 120 items"),
    (
        "a shot as text",
        {"shots": ["x"]},
        "shots[0]",
        "is 'x'; must be a mapping of image, prompt, duration, seed, init, control, motion, transition",
    ),
    (
        "too many shots",
        {"shots": [{"prompt": "x"}] * 121},
        "shots",
        "is a list of 121 items; must be a list of 1 to 120 items",
    ),
    ("no prompt", {"shots": [{}]}, "shots[0].prompt", "is missing; must be text of 1 to 8000 characters"),
    ("an empty prompt", shot(prompt=""), "shots[0].prompt", "is empty; must be text of 1 to 8000 characters"),
    ("a blank prompt", shot(prompt=" \n"), "shots[0].prompt", "is empty: say what the picture shows"),
    (
        "a number as prompt",
        shot(prompt=1984),
        "shots[0].prompt",
        "is 1984; must be text of 1 to 8000 characters: put it in quotes",
    ),
    (
        "a long prompt",
        shot(prompt="y" * 8001),
        "shots[0].prompt",
        f"is '{'y' * 39}…' (8001 characters); must be text of 1 to 8000 characters",
    ),
    ("too short", shot(duration=0.1), "shots[0].duration", "is 0.1; must be a number from 0.2 to 60"),
    (
        "a quoted number",
        shot(duration="4"),
        "shots[0].duration",
        "is '4'; must be a number from 0.2 to 60: leave out the quotes",
    ),
    ("a boolean", shot(duration=True), "shots[0].duration", "is true; must be a number from 0.2 to 60"),
    (
        "infinity",
        '{"shots": [{"prompt": "x", "duration": 1e999}]}',
        "shots[0].duration",
        "is Infinity; must be a number from 0.2 to 60",
    ),
    ("half a seed", {**MINIMAL, "seed": 1.5}, "seed", "is 1.5; must be a whole number from 0 to 4294967295"),
    ("a large seed", {**MINIMAL, "seed": 2**32}, "seed", "is 4294967296; must be a whole number from 0 to 4294967295"),
    (
        "half a zoom",
        shot(motion={"zoom": [1]}),
        "shots[0].motion.zoom",
        "is [1]; must be a list of 2 numbers from 1 to 4",
    ),
    (
        "a long zoom",
        shot(motion={"zoom": [1, 2, 3]}),
        "shots[0].motion.zoom",
        "is [1, 2, 3]; must be a list of 2 numbers from 1 to 4",
    ),
    ("a deep zoom", shot(motion={"zoom": [1, 5]}), "shots[0].motion.zoom[1]", "is 5; must be a number from 1 to 4"),
    (
        "no move",
        shot(motion={"ease": "in"}),
        "shots[0].motion",
        "names no move: give zoom, pan or rotate, or write motion: still",
    ),
    ("a misspelt motion", shot(motion="stil"), "shots[0].motion", f"is 'stil'; must be {MOVE}; did you mean 'still'?"),
    ("a number as motion", shot(motion=5), "shots[0].motion", f"is 5; must be {MOVE}"),
    (
        "an unknown ease",
        shot(motion={"rotate": 1, "ease": "in-out"}),
        "shots[0].motion.ease",
        "is 'in-out'; must be one of linear, in, out, in_out; did you mean 'in_out'?",
    ),
    (
        "a misspelt walk",
        shot(motion={"wlak": {}}),
        "shots[0].motion.wlak",
        "unknown field 'wlak'; did you mean 'walk'?",
    ),
    (
        "a walk that runs",
        shot(motion={"walk": {"rate": 9}}),
        "shots[0].motion.walk.rate",
        "is 9; must be a number from 0.5 to 8",
    ),
    (
        "a walk with a move",
        shot(motion={"walk": {}, "zoom": [1, 2]}),
        "shots[0].motion.zoom",
        "does not go with the other fields here: take one or the other",
    ),
    (
        "a walk to nothing",
        shot(motion={"walk": {"to": " "}}),
        "shots[0].motion.walk.to",
        "is empty: say what the last picture shows, or leave it out",
    ),
    (
        "a walk in a circle",
        shot(seed=3, motion={"walk": {"to": "x", "seed": 3}}),
        "shots[0].motion.walk",
        "ends where it begins: give to, another prompt, or seed, another noise",
    ),
    (
        "a walk in a circle because all noise is one",
        shot(motion={"walk": {}}) | {"seed_mode": "fixed"},
        "shots[0].motion.walk",
        "ends where it begins: give to, another prompt, or seed, another noise",
    ),
    (
        "a walk from a picture",
        {"shots": [{"image": "gs://pictures/x.png", "motion": {"walk": {"to": "x"}}}]},
        "shots[0].motion",
        "draws new pictures: give a prompt instead of image, or both prompt and init",
    ),
    (
        "feedback that flies off",
        shot(motion={"feedback": {"pan": [2, 0]}}),
        "shots[0].motion.feedback.pan[0]",
        "is 2; must be a number from -1 to 1",
    ),
    (
        "a start from less than nothing",
        shot(init={"image": "gs://pictures/x.png", "strength": -1}),
        "shots[0].init.strength",
        "is -1; must be a number from 0 to 1",
    ),
    (
        "a start from nowhere",
        shot(init={"strength": 0.5}),
        "shots[0].init.image",
        "is missing; must be an address: gs://BUCKET/NAME or https://..., at most 2000 characters",
    ),
    (
        "a start from two pictures",
        {"shots": [{"image": "gs://pictures/x.png", "init": {"image": "gs://pictures/y.png"}}]},
        "shots[0].init",
        "nothing is drawn where image names a picture: give one of the two",
    ),
    (
        "a picture of what nobody knows",
        shot(control={"type": "depth", "image": "gs://pictures/x.png"}),
        "shots[0].control.type",
        "is 'depth'; must be pose",
    ),
    (
        "a scale beyond all measure",
        shot(control={"type": "pose", "image": "gs://pictures/x.png", "scale": 3}),
        "shots[0].control.scale",
        "is 3; must be a number from 0 to 2",
    ),
    (
        "steering that ends before it starts",
        shot(control={"type": "pose", "image": "gs://pictures/x.png", "start": 0.7}),
        "shots[0].control.start",
        "is not before end (0.65): lower start, or raise end",
    ),
    (
        "a pose for a picture that is there",
        {"shots": [{"image": "gs://pictures/x.png", "control": {"type": "pose", "image": "gs://pictures/y.png"}}]},
        "shots[0].control",
        "nothing is drawn where image names a picture: give one of the two",
    ),
    (
        "too many steps for any model",
        {**MINIMAL, "render": {"steps": 51}},
        "render.steps",
        "is 51; must be a whole number from 1 to 50",
    ),
    (
        "more keyframes than are allowed",
        {"shots": [{"prompt": "x", "duration": 60, "motion": {"feedback": {"rate": 8}}}] * 5},
        "shots",
        TOO_MANY,
    ),
    (
        "a shot called still",
        {"still": 1, **MINIMAL, "output": {"still": 2}},
        "output.still",
        "unknown field 'still'; the fields here are: aspect, crf, fps, height, width",
    ),
    (
        "a wide side",
        {**MINIMAL, "output": {"width": 4000, "height": 64}},
        "output.width",
        "is 4000; must be a whole number from 64 to 2160",
    ),
    (
        "an odd side",
        {**MINIMAL, "output": {"width": 641, "height": 64}},
        "output.width",
        "must be even, H.264 needs it: try 640 or 642",
    ),
    (
        "one side",
        {**MINIMAL, "output": {"width": 640}},
        "output.height",
        "width and height go together: give both, or aspect alone",
    ),
    (
        "aspect and sides",
        {**MINIMAL, "output": {"width": 64, "height": 64, "aspect": "1:1"}},
        "output.aspect",
        "give aspect, or width and height, not both",
    ),
    ("a bad aspect", {**MINIMAL, "output": {"aspect": "16/9"}}, "output.aspect", "must look like 16:9"),
    (
        "a long aspect",
        {**MINIMAL, "output": {"aspect": "4:1"}},
        "output.aspect",
        "would be 2880x720; the longest side allowed is 2160",
    ),
    (
        "a list as output",
        {**MINIMAL, "output": [[]]},
        "output",
        "is a list of 1 items; must be a mapping of aspect, width, height, fps, crf",
    ),
    ("a bad id", {**MINIMAL, "id": "../x"}, "id", f"is '../x'; must be {NAME}"),
    ("an id with a newline", {**MINIMAL, "id": "x\n"}, "id", f"is 'x\\n'; must be {NAME}"),
    (
        "a path as model",
        {**MINIMAL, "render": {"model": "/w/x"}},
        "render.model",
        "is '/w/x'; must be a model's name: at most 40 lower-case letters, digits, - or _",
    ),
    ("a version of tomorrow", {**MINIMAL, "version": 2}, "version", "is 2; must be 1"),
    (
        "a misspelt choice",
        {**MINIMAL, "priority": "Urgent"},
        "priority",
        "is 'Urgent'; must be normal or urgent; did you mean 'urgent'?",
    ),
    (
        "a bad label",
        {**MINIMAL, "labels": {"A b": "x"}},
        "labels['A b']",
        "is not a label's name; must be a lower-case letter, then at most 62 lower-case letters, digits, - or _",
    ),
    (
        "a number as label",
        {**MINIMAL, "labels": {"season": 2}},
        "labels.season",
        "is 2; must be text of at most 256 characters: put it in quotes",
    ),
    (
        "many labels",
        {**MINIMAL, "labels": {f"a{i}": "" for i in range(33)}},
        "labels",
        "is a mapping of 33 fields; must be a mapping of at most 32 names to texts",
    ),
    (
        "nobody to tell",
        {**MINIMAL, "notify": {}},
        "notify",
        "names nobody: give topic, or webhook, or both",
    ),
    (
        "a topic that is none",
        {**MINIMAL, "notify": {"topic": "a/b"}},
        "notify.topic",
        "is 'a/b'; must be a topic's name: a letter, then 2 to 247 letters, digits or . _ ~ + -",
    ),
    (
        "a webhook that is none",
        {**MINIMAL, "notify": {"webhook": "example.com"}},
        "notify.webhook",
        "is 'example.com'; must be an https:// address of at most 2000 characters, without blanks",
    ),
    (
        "a slow cut",
        {**MINIMAL, "transition": {"type": "cut", "duration": 1}},
        "transition.duration",
        "a cut takes no time: leave duration out",
    ),
    (
        "a crossfade with a direction",
        {**MINIMAL, "transition": {"direction": "up"}},
        "transition.direction",
        "only a slide has one: leave it out, or write type: slide (it is crossfade)",
    ),
    (
        "a slide aslant",
        {**MINIMAL, "transition": {"type": "slide", "direction": "upwards"}},
        "transition.direction",
        "is 'upwards'; must be one of left, right, up, down",
    ),
    (
        "an audio that names nothing",
        {**MINIMAL, "audio": {}},
        "audio.uri",
        "is missing; must be an address: gs://BUCKET/NAME or https://..., at most 2000 characters",
    ),
    (
        "an audio from this machine",
        {**MINIMAL, "audio": {"uri": "song.mp3"}},
        "audio.uri",
        "is 'song.mp3'; must be an address: gs://BUCKET/NAME or https://..., at most 2000 characters",
    ),
    (
        "a fade longer than the video",
        {**MINIMAL, "audio": {"uri": "gs://sounds/x.mp3", "fade_in": 5}},
        "audio.fade_in",
        "5 s is longer than the video (4 s): shorten it",
    ),
    (
        "a loop in words",
        {**MINIMAL, "audio": {"uri": "gs://sounds/x.mp3", "loop": "yes"}},
        "audio.loop",
        "is 'yes'; must be true or false",
    ),
    (
        "a deafening audio",
        {**MINIMAL, "audio": {"uri": "gs://sounds/x.mp3", "gain_db": 25}},
        "audio.gain_db",
        "is 25; must be a number from -60 to 24",
    ),
    ("a last transition", shot(transition={}), "shots[0].transition", "no shot follows: leave it out"),
    (
        "a long film",
        {"shots": [{"prompt": "x", "duration": 60}] * 11},
        "shots",
        "last 660 s in all; a video may last 600 s: make two jobs",
    ),
    (
        "a long crossfade",
        {"shots": [{"prompt": "x", "duration": 1}] * 2, "transition": {"duration": 2}},
        "transition.duration",
        "2 s is longer than shot 1 or 2 (1 s): shorten it, or cut",
    ),
    (
        "a list",
        [1],
        "",
        "is [1]; must be a mapping of version, id, batch, output, render, seed, seed_mode, style_prefix, style_suffix, shots, transition, audio, limits, priority, notify, labels",
    ),
]


@pytest.mark.parametrize(
    ("data", "field", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_a_mistake_is_told_with_its_field_what_was_found_and_what_is_allowed(
    data: Any, field: str, message: str
) -> None:
    text = data if isinstance(data, str) else json.dumps(data)

    assert Problem(message, field, "topic") in problems_of(text, "topic")


def test_a_misspelt_field_is_one_problem_not_two() -> None:
    assert len(problems_of('{"shots": [{"promt": "x"}]}')) == 1
    assert len(problems_of('{"shots": [{"promt": "x", "pro": 1}, {}]}')) == 3


def test_an_empty_pair_is_one_problem_not_two() -> None:
    assert len(problems_of(json.dumps(shot(motion={"zoom": []})))) == 1


def test_a_choice_in_capitals_finds_its_name() -> None:
    (problem,) = problems_of(json.dumps(MINIMAL | {"transition": {"type": "CROSSFADE"}}))

    assert problem.message.endswith("did you mean 'crossfade'?")


def test_all_mistakes_are_told_at_once() -> None:
    data = json.dumps({"seed": -1, "shots": [{"prompt": "x", "duration": 99}, {"prompt": 5}]})

    assert [problem.field for problem in problems_of(data)] == ["seed", "shots[0].duration", "shots[1].prompt"]


def test_a_flood_of_mistakes_is_cut_short() -> None:
    problems = problems_of(json.dumps(MINIMAL | {f"field{number}": 0 for number in range(20_000)}))

    assert len(problems) == MAX_MISTAKES + 1
    assert problems[-1].message == "has 19,950 more problems"


UNREADABLE: list[tuple[str, bytes | str, str]] = [
    ("nothing", b"", "is not JSON: expecting value (column 1)"),
    ("words", "a red sun", "is not JSON: expecting value (column 1)"),
    ("yaml", "shots: [x]", "is not JSON: expecting value (column 1)"),
    ("an open end", '{"shots": [', "is not JSON: expecting value (column 12)"),
    ("two documents", '{"shots": []} {}', "goes on after the end of the document"),
    ("a bare name", "{shots: 1}", "is not JSON: a name in double quotes belongs here (column 2)"),
    ("a comma too many", '{"seed": 1,}', "is not JSON: a name in double quotes belongs here (column 12)"),
    ("no colon", '{"seed" 1}', "is not JSON: : belongs here (column 9)"),
    ("on a later line", '{"seed": 1,\n "id": x}', "line 2: is not JSON: expecting value (column 8)"),
    ("a field twice", '{"seed": 1, "seed": 1}', "gives 'seed' twice, in line 1: keep one"),
    ("a deep field twice", '{"shots": [{"prompt": "x",\n"prompt": "y"}]}', "line 2: gives 'prompt' twice, in lines 1 and 2: keep one"),
    ("not a number", '{"seed": NaN}', "holds NaN, which JSON does not know: use a number"),
    ("infinity", '{"seed": -Infinity}', "holds -Infinity, which JSON does not know: use a number"),
    ("a long number", '{"seed": %s}' % ("9" * 5000), "holds a number of more than 100 digits"),
    ("a deep nest", "[" * 100_000, "is nested more than 50 deep"),
    ("latin-1", b'{"id": "\xe9"}', "is not UTF-8 (byte 9): write JSON as UTF-8"),
    ("half a character", r'{"id": "\ud83d"}', "holds half a character (a lone surrogate): write the character itself"),
    ("half a character, raw", '{"id": "\ud83d"}', "is not UTF-8 (byte 9): write JSON as UTF-8"),
    ("a megabyte", b" " * (MAX_JOB_BYTES + 1), "is 1,048,577 bytes; a job may have 1,048,576"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), [case[1:] for case in UNREADABLE], ids=[case[0] for case in UNREADABLE])
def test_bytes_that_are_not_json_are_one_clear_problem(data: bytes | str, message: str) -> None:
    assert problems_of(data, "topic") == [Problem(message, place="topic")]


def test_a_pair_of_surrogate_escapes_is_one_character() -> None:
    assert parse_job(r'{"shots": [{"prompt": "\ud83c\udf05"}]}').shots[0].prompt == "🌅"


def test_every_pattern_of_the_schema_has_words() -> None:
    text = json.dumps(job_schema())

    for pattern in PATTERN_WORDS:
        assert json.dumps(pattern) in text
    assert text.count('"pattern"') == 10, "a new pattern needs words in PATTERN_WORDS"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | prompts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(prompts, inner, max_size=4),
    max_leaves=20,
)


def listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, tuple) else value


@given(json_values, st.sampled_from([None, 0, 3, "\t"]), st.booleans())
def test_json_means_what_the_standard_library_reads_in_it(value: Any, indent: int | str | None, ascii_: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_)

    assert listed(read_json(text).plain()) == value


@given(st.text(st.sampled_from('{}[]:,"\\ 1-.e\ntrueu')))
def test_text_that_is_not_json_for_the_standard_library_is_none_for_us(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        with pytest.raises(Unreadable):
            read_json(text)


def _accepts_or_explains(data: bytes | str) -> None:
    problems: tuple[Problem, ...] | None = None
    try:
        parse_job(data)
    except InvalidJob as exc:
        problems = exc.problems
    assert problems != ()
    for problem in problems or ():
        assert problem.message
        assert str(problem).isprintable()


@given(st.binary() | st.text(st.characters()))
def test_any_bytes_give_a_job_or_an_explanation(data: bytes | str) -> None:
    _accepts_or_explains(data)


fields = st.sampled_from(sorted({*Job.model_fields, "prompt", "motion", "zoom", "move", "still", "duration", "x.y"}))


@given(
    st.dictionaries(
        fields,
        st.recursive(
            json_values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=3)
        ),
    )
)
def test_any_values_in_known_fields_give_a_job_or_an_explanation(document: dict[str, Any]) -> None:
    _accepts_or_explains(json.dumps(document))


@given(jobs, st.data())
def test_a_damaged_job_gives_a_job_or_an_explanation(job: Job, data: st.DataObject) -> None:
    raw = bytearray(job.to_json().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=3))

    _accepts_or_explains(bytes(raw))


def test_an_address_that_is_a_picture_and_a_sound_is_told_by_the_picture() -> None:
    job = minimal(shots=[{"image": "gs://files/x"}], audio={"uri": "gs://files/x"})

    assert job.inputs == job.pictures == {"gs://files/x": "shots[0].image"}
    assert minimal(audio={"uri": "gs://files/y"}).inputs == {"gs://files/y": "audio.uri"}
