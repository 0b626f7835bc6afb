"""Captions that a person might type for a scene: many words for one thing, in several orders, with nothing untrue."""

from __future__ import annotations

import random
import re
import zlib

from .scene import Scene

NOUNS = {
    "sun": ("sun",),
    "moon": ("moon",),
    "house": ("house", "house", "cottage", "cabin", "hut"),
    "tree": ("tree",),
    "boat": ("boat", "boat", "sailboat", "ship"),
    "tent": ("tent",),
}
SIZE_WORDS = {"": ("",), "small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
GROUND_WORDS = {
    "hills": ("{} hills", "{} hills", "the {} hills", "rolling {} hills", "{} mountains"),
    "sea": ("a calm sea", "the sea", "a quiet ocean", "the ocean", "a calm ocean", "the water", "calm water", "a lake"),
    "dunes": ("golden dunes", "the desert", "sand dunes", "the dunes", "a golden desert", "yellow sand"),
}
BARE_GROUND = re.compile(r"^(?:a|the) ")
TIME_WORDS = {
    "day": ("by day", "at noon", "by day", "in daylight", "at midday", "during the day", "on a clear day", ""),
    "night": ("at night", "by night", "at night", "in the night", "in the dark", "after dark", "at midnight"),
    "sunset": ("at sunset", "at dusk", "at sunset", "in the evening", "at sundown", "at twilight"),
    "fog": ("in the fog", "in fog", "in the mist", "in thick fog", "on a foggy day", "on a misty day"),
}
TIME_NOUNS = {
    "day": ("day", "noon", "daylight"),
    "night": ("night", "midnight"),
    "sunset": ("sunset", "dusk", "evening"),
    "fog": ("fog", "mist"),
}
PLACES = {
    "sun": ("over", "over", "above", "hanging over", "shining over", "high above"),
    "moon": ("over", "over", "above", "hanging over", "shining over", "rising over"),
    "house": ("on", "on", "standing on", "among"),
    "tree": ("on", "on", "growing on", "standing on"),
    "boat": ("on", "on", "sailing on", "floating on", "drifting on"),
    "tent": ("on", "on", "standing on", "pitched on", "in"),
}
SETTING = ("setting over", "going down over", "sinking over")  # of a sun at sunset, and then the time may go unsaid
OPENINGS = ("a picture of", "a painting of", "a view of", "there is")
ENDINGS = (", peaceful", ", simple shapes", ", nobody around", ", beautiful")  # mean nothing, and are rare
PLAIN_GROUNDS = {"sea": "a calm sea", "dunes": "golden dunes"}
PLAIN_TIMES = {"day": "by day", "night": "at night", "sunset": "at sunset", "fog": "in the fog"}
VOWELS = "aeiou"
T5_LENGTHS = (16, 24, 32)
"""Tokens that training pads captions to, as `sequence` in models.toml does for prompts."""
SHORT_WORDS = 14  # with commas, and the token that ends each, these fit into 16 tokens nearly always
_HELD_OUT = 10  # one caption in so many is kept from training


def caption(scene: Scene, chance: random.Random) -> str:
    """One caption of at most 20 words or so; only what the picture shows is named."""
    orders = (_thing_first, _thing_first, _thing_first, _ground_first, _time_first, _listed)
    order = chance.choice(orders)
    text = order(scene, chance)
    if order is _thing_first and chance.random() < 0.15:
        text = f"{chance.choice(OPENINGS)} {text}"
    if chance.random() < 0.08:
        text += chance.choice(ENDINGS)
    if chance.random() < 0.1:
        text += "."
    return _tidy(text)


def plain_caption(scene: Scene) -> str:
    """The caption in pocket's first and smallest grammar: `a red sun over blue hills at sunset`."""
    ground = PLAIN_GROUNDS.get(scene.ground, f"{scene.ground_colour} hills")
    place = "over" if scene.in_the_sky else "on"
    return _tidy(f"{_article(f'{scene.colour} {scene.thing}')} {place} {ground} {PLAIN_TIMES[scene.time]}")


def held_out(text: str) -> bool:
    """Whether a caption is kept from training, to judge the model by: decided by its letters, so that nobody keeps a list."""
    return zlib.crc32(text.encode()) % _HELD_OUT == 0


def training_captions(scene: Scene, chance: random.Random, count: int) -> list[str]:
    """Captions that are not held out; the first half of them are short, as most that people type."""
    captions: list[str] = []
    while len(captions) < count:
        text = caption(scene, chance)
        short = len(_pieces(text)) <= SHORT_WORDS
        if not held_out(text) and (short or len(captions) >= count // 2):
            captions.append(text)
    return captions


def vocabulary() -> list[str]:
    """Every word that a caption can contain, in lower case and in a fixed order."""
    tables = (*NOUNS.values(), *SIZE_WORDS.values(), *GROUND_WORDS.values(), *TIME_WORDS.values(), *TIME_NOUNS.values())
    texts = [text for table in (*tables, *PLACES.values(), SETTING, OPENINGS, ENDINGS) for text in table]
    colours = "red yellow orange white green blue purple brown pink golden"
    found = re.findall(r"[a-z]+", " ".join([*texts, colours, "a an the one with and"]))
    return sorted(set(found))


def _thing_first(scene: Scene, chance: random.Random) -> str:
    """`a red boat sailing on the sea at night`."""
    thing, ground = _thing(scene, chance), _ground(scene, chance)
    if scene.thing == "sun" and scene.time == "sunset" and chance.random() < 0.4:
        return f"{thing} {chance.choice(SETTING)} {ground} {chance.choice((*TIME_WORDS['sunset'], '', ''))}"
    comma = chance.choice(("", "", "", ","))
    time = chance.choice(TIME_WORDS[scene.time])
    return f"{thing} {_place(scene, ground, chance)} {ground}{comma if time else ''} {time}"


def _ground_first(scene: Scene, chance: random.Random) -> str:
    """`golden dunes at dusk with a white tent`."""
    time = chance.choice(TIME_WORDS[scene.time])
    link = chance.choice(("with", "with", "and", ", with", ","))
    return f"{_ground(scene, chance)} {time} {link} {_thing(scene, chance)}"


def _time_first(scene: Scene, chance: random.Random) -> str:
    """`at night, a white house on green hills`."""
    time = chance.choice([words for words in TIME_WORDS[scene.time] if words])
    ground = _ground(scene, chance)
    return f"{time}{chance.choice((',', ''))} {_thing(scene, chance)} {_place(scene, ground, chance)} {ground}"


def _listed(scene: Scene, chance: random.Random) -> str:
    """`green boat, calm sea, night`."""
    ground = BARE_GROUND.sub("", _ground(scene, chance))
    colour_thing = " ".join((chance.choice(SIZE_WORDS[scene.size]), scene.colour, chance.choice(NOUNS[scene.thing])))
    parts = [colour_thing, ground, chance.choice(TIME_NOUNS[scene.time])]
    if chance.random() < 0.3:
        parts[0], parts[1] = parts[1], parts[0]
    return ", ".join(part.strip() for part in parts)


def _thing(scene: Scene, chance: random.Random) -> str:
    words = [chance.choice(SIZE_WORDS[scene.size]), scene.colour, chance.choice(NOUNS[scene.thing])]
    bare = " ".join(word for word in words if word)
    return chance.choice((_article(bare), _article(bare), _article(bare), f"the {bare}", f"one {bare}"))


def _ground(scene: Scene, chance: random.Random) -> str:
    return chance.choice(GROUND_WORDS[scene.ground]).format(scene.ground_colour)


def _place(scene: Scene, ground: str, chance: random.Random) -> str:
    places = [place for place in PLACES[scene.thing] if place != "in" or "desert" in ground or "dunes" in ground]
    return chance.choice(places)


def _article(words: str) -> str:
    return f"an {words}" if words[0] in VOWELS else f"a {words}"


def _pieces(text: str) -> list[str]:
    return re.findall(r"[\w']+|[,.]", text)


def _tidy(text: str) -> str:
    return re.sub(r"\s+([,.])", r"\1", re.sub(r"\s+", " ", text)).strip()
