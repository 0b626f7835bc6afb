"""Pocket can be trained by anyone: its captions are true, its training is repeatable, and its judge can be believed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import NormalDist

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import yaml

from nightreel_pipelines.base import no_pictures
from nightreel_pipelines.flux import FluxSource
from nightreel_pipelines.models import load_models
from nightreel_pipelines.recipe import Recipe

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "bench")]

import judge
from pocket.captions import T5_LENGTHS, caption, held_out, plain_caption, training_captions, vocabulary
from pocket.drawing import draw
from pocket.layout import GROUND_SAID, SAID, Layout, draw_layout, places
from pocket.scene import Scene, all_scenes, draw_scene

NAMED = {
    "sun": {"sun"},
    "moon": {"moon"},
    "house": {"house", "cottage", "cabin", "hut"},
    "tree": {"tree"},
    "boat": {"boat", "sailboat", "ship"},
    "tent": {"tent"},
    "hills": {"hills", "mountains"},
    "sea": {"sea", "ocean", "water", "lake"},
    "dunes": {"dunes", "desert", "sand"},
    "day": {"noon", "midday", "daylight", "clear"},
    "night": {"night", "midnight", "dark"},
    "sunset": {"sunset", "sundown", "dusk", "evening", "twilight", "setting", "sinking"},
    "fog": {"fog", "foggy", "mist", "misty"},
    "small": {"small", "little", "tiny"},
    "large": {"large", "big", "huge"},
}
COLOURS = {"red", "yellow", "orange", "white", "green", "blue", "purple", "brown", "pink"}
TRUE_SEED = 700_000  # not that of the benchmark
TRAINING_TIMEOUT_S = 300


# Captions


def scenes(count: int) -> list[tuple[Scene, random.Random]]:
    return [(draw_scene(random.Random(seed)), random.Random(seed)) for seed in range(count)]


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_captions_never_name_what_is_not_drawn() -> None:
    for scene, chance in scenes(3000):
        text = caption(scene, chance)
        shown = {scene.thing, scene.ground, scene.time, scene.size}
        untrue = set[str]().union(*(named for what, named in NAMED.items() if what not in shown))
        sand = {"yellow"} if scene.ground == "dunes" else set()
        assert not words(text) & untrue, text
        assert words(text) & COLOURS <= {scene.colour, scene.ground_colour} | sand, text


def test_captions_name_the_thing_its_colour_the_ground_and_any_time_but_day() -> None:
    for scene, chance in scenes(3000):
        text = caption(scene, chance)
        assert scene.colour in words(text), text
        assert words(text) & NAMED[scene.thing], text
        assert words(text) & NAMED[scene.ground], text
        assert scene.time == "day" or words(text) & (NAMED[scene.time] | {"going"}), text


def test_captions_come_in_many_forms_of_at_most_twenty_words() -> None:
    texts = [caption(scene, chance) for scene, chance in scenes(2000)]

    assert len(set(texts)) > 1800
    assert max(len(text.split()) for text in texts) <= 20
    assert any("," in text for text in texts)
    assert any(text.endswith(".") for text in texts)


def test_articles_fit_what_follows() -> None:
    for scene, chance in scenes(2000):
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption(scene, chance))


def test_held_out_captions_are_never_trained_on() -> None:
    texts = [text for scene, chance in scenes(500) for text in training_captions(scene, chance, 4)]

    assert len(texts) == 2000
    assert not any(held_out(text) for text in texts)
    assert sum(held_out(plain_caption(scene)) for scene in all_scenes()) > 10


def test_every_word_of_a_caption_is_one_token_in_any_case() -> None:
    from pocket.parts import CLIP_TOKENS
    from pocket.tokens import clip_tokenizer, t5_tokenizer

    clip, t5 = clip_tokenizer(CLIP_TOKENS), t5_tokenizer()
    for word in {word for scene, chance in scenes(2000) for word in words(caption(scene, chance))}:
        assert word in vocabulary()
        for spelling in (word, word.capitalize(), word.upper()):
            assert t5.tokenize(spelling) == [f"▁{spelling}"]
            assert clip.tokenize(spelling) == [f"{word}</w>"]


def test_captions_fit_into_the_lengths_that_prompts_are_padded_to() -> None:
    from pocket.tokens import t5_tokenizer

    t5 = t5_tokenizer()
    texts = [training_captions(scene, chance, 4) for scene, chance in scenes(500)]

    assert max(len(t5(text).input_ids) for four in texts for text in four[:2]) <= T5_LENGTHS[0]
    assert max(len(t5(text).input_ids) for four in texts for text in four) <= T5_LENGTHS[-1]


def test_the_words_of_the_example_are_known() -> None:
    jobs = yaml.safe_load((ROOT / "examples" / "nightly.yaml").read_text(encoding="utf-8"))["jobs"]
    shots = [shot if isinstance(shot, str) else shot["prompt"] for job in jobs for shot in job["shots"]]

    assert len(shots) > 5
    assert set().union(*map(words, shots)) <= set(vocabulary())


# Pictures


def drawn(scene: Scene, seed: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    layout, _ = draw_layout(scene, size, np.random.default_rng(seed))
    return draw(scene, layout, *size)


def test_pictures_and_captions_depend_on_their_seeds_alone() -> None:
    scene = draw_scene(random.Random(1))

    assert draw_scene(random.Random(1)) == scene
    assert caption(scene, random.Random(2)) == caption(scene, random.Random(2))
    assert np.array_equal(drawn(scene, 3, (64, 48)), drawn(scene, 3, (64, 48)))
    assert not np.array_equal(drawn(scene, 3, (64, 48)), drawn(scene, 4, (64, 48)))


@pytest.mark.parametrize("size", [(128, 128), (160, 96), (96, 160), (32, 32)])
def test_pictures_have_the_size_that_was_asked_for(size: tuple[int, int]) -> None:
    picture = drawn(draw_scene(random.Random(1)), 1, size)

    assert picture.shape == (size[1], size[0], 3)
    assert picture.dtype == np.uint8


# The judge


@pytest.mark.parametrize("soft_px", [0.0, 2.5])
@pytest.mark.parametrize("size", [(128, 128), (160, 96)])
def test_the_judge_is_right_about_nine_true_pictures_of_ten_also_soft_ones(
    size: tuple[int, int], soft_px: float
) -> None:
    wrong = []
    for number in range(80):
        scene = draw_scene(random.Random(TRUE_SEED + number))
        picture = drawn(scene, TRUE_SEED + number, size)
        if soft_px:
            picture = cv2.GaussianBlur(picture, (0, 0), soft_px).astype(np.uint8)
        seen = judge.judge(picture)
        if seen != judge.Verdict(scene.thing, scene.colour, scene.ground, scene.ground_colour, scene.time):
            wrong.append((scene, seen))

    assert len(wrong) <= 8, wrong


def two_halves(left: float, right: float) -> judge.Verdict:
    """A landscape whose left half has a sun if `left` is 0, and whose right half has one if `right` is 1."""
    scene = Scene("sun", "red", "sea", "", "day")
    one, other = (draw(scene, Layout(0.25 + x / 2, 0.25, 0.5, 0.5, (0.0, 0.0)), 128, 128) for x in (left, right))
    return judge.judge(np.hstack((one[:, :64], other[:, 64:])))


def test_the_judge_sees_when_there_is_nothing_and_when_there_is_too_much() -> None:
    assert two_halves(0, 0).thing == "sun"
    assert two_halves(1, 0).thing == judge.UNCLEAR
    assert two_halves(0, 1).thing == judge.SEVERAL
    assert two_halves(1, 0).ground == "sea"


def test_the_judge_finds_nothing_in_noise() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8)

    assert judge.judge(noise).thing in (judge.UNCLEAR, judge.SEVERAL)


def test_the_benchmark_of_pictures_writes_its_own_section_of_the_docs(tmp_path: Path) -> None:
    docs = tmp_path / "benchmarks.md"
    docs.write_text("# By hand\n")
    command = (sys.executable, str(ROOT / "bench" / "pictures.py"), "--quick", "--docs", str(docs))

    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=TRAINING_TIMEOUT_S)

    text = docs.read_text(encoding="utf-8")
    assert text.startswith("# By hand\n")
    assert text.count("<!-- bench:pictures -->") == text.count("<!-- /bench:pictures -->") == 1
    assert re.search(r"\| 160x96, varied \| 2 \| \d+% \(\d+% to \d+%\) ", text)
    assert str(tmp_path) not in text


# Training


def train(folder: Path, *flags: str) -> subprocess.Popen[str]:
    """A tiny training on one thread, begun or gone on with."""
    return subprocess.Popen(
        (
            *(sys.executable, "-W", "error", str(ROOT / "scripts" / "train_pocket.py"), "--tiny", "--threads", "1"),
            *("--run", str(folder / "run"), "--out", str(folder / "model"), *flags),
        ),
        env=os.environ | {"HOME": str(folder.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(training: subprocess.Popen[str]) -> str:
    said, _ = training.communicate(timeout=TRAINING_TIMEOUT_S)
    assert training.returncode == 0, said
    return said


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


LONG = ("--flow-steps", "60", "--checkpoint-every", "2")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish(train(folder, *LONG))
    return folder / "model"


def test_a_training_killed_in_the_middle_goes_on_and_gives_the_same_bytes(tmp_path: Path, uninterrupted: Path) -> None:
    first = train(tmp_path, *LONG)
    while not (tmp_path / "run" / "flow.pt").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()

    said = finish(train(tmp_path, *LONG))

    assert "vae" not in said.split(": pocket after")[0].split("small")[0]  # the first training was not made again
    assert contents(tmp_path / "model") == contents(uninterrupted)


def test_another_seed_gives_another_model(tmp_path: Path, uninterrupted: Path) -> None:
    finish(train(tmp_path, "--seed", "1", *LONG))

    name = "transformer/diffusion_pytorch_model.safetensors"
    assert contents(tmp_path / "model").keys() == contents(uninterrupted).keys()
    assert contents(tmp_path / "model")[name] != contents(uninterrupted)[name]


def test_the_folder_of_a_training_with_other_settings_is_refused(tmp_path: Path) -> None:
    from pocket.settings import Settings

    Settings.for_tests(seed=1).claim(tmp_path)
    Settings.for_tests(seed=1).claim(tmp_path)

    with pytest.raises(SystemExit, match="other settings"):
        Settings.for_tests(seed=2).claim(tmp_path)


def test_what_was_trained_is_a_model_that_nightreel_paints_with(uninterrupted: Path) -> None:
    spec = load_models()["pocket"].model_copy(update={"weights": str(uninterrupted)})
    source = FluxSource(spec, None)
    source.load()
    what = source.describe()

    def picture(prompt: str) -> object:
        recipe = Recipe(what.source, what.revision, what.precision, prompt, 1, 2, 0.0, 48, 32)
        return next(iter(source.keyframes([recipe], no_pictures, lambda: None)))[1].tobytes()

    assert picture("a red sun over blue hills") == picture("A Red SUN over Blue hills")
    assert picture("a red sun over blue hills") != picture("a green boat on the sea")
    assert "$" not in (uninterrupted / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_things_stand_where_the_layout_says() -> None:
    for number in range(200):
        scene = draw_scene(random.Random(number))
        layout, spoken = draw_layout(scene, (128, 96), np.random.default_rng(number))
        row, column = divmod(spoken.place, 8)
        assert spoken.place in places(scene, (128, 96))
        assert column / 8 <= layout.x <= (column + 1) / 8
        assert not scene.in_the_sky or row / 6 <= layout.y <= (row + 1) / 6
        horizon, *phases = spoken.ground.tolist()
        assert layout.horizon == pytest.approx(NormalDist().cdf(horizon))
        assert layout.phases == pytest.approx([1.5 * number for number in phases])


def test_noise_says_the_layout_and_stays_normal() -> None:
    import torch
    from pocket.dataset import Batch
    from pocket.flow import couple

    chance = torch.Generator().manual_seed(1)
    possible = torch.zeros(4000, 12, dtype=torch.bool)
    possible[:, 3:7] = True
    place = torch.randint(3, 7, (4000,), generator=chance)
    said, ground = (torch.randn(4000, count, generator=chance) for count in (SAID, GROUND_SAID))
    nothing = torch.zeros(0)

    independent = torch.randn(4000, 12, 64, generator=chance)
    noise = couple(independent, Batch(nothing, possible, place, said, ground, *(nothing,) * 4))

    assert torch.equal(noise[:, 3:7, 0].argmax(1) + 3, place)
    assert torch.equal(noise[torch.arange(4000), place, 1 : 1 + SAID], said)
    of_ground = slice(1 + SAID, 1 + SAID + GROUND_SAID)
    assert torch.equal(noise[:, 0, of_ground], ground)
    assert torch.equal(noise[:, 1:, of_ground], independent[:, 1:, of_ground])
    assert torch.equal(noise[..., of_ground.stop :], independent[..., of_ground.stop :])
    for token in range(12):  # each number by itself is as it was: normal
        first = noise[:, token, 0]
        assert abs(float(first.mean())) < 0.07
        assert abs(float(first.std()) - 1) < 0.05
        assert abs(float(first.pow(4).mean()) - 3) < 0.6
