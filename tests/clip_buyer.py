"""Buys clips as a worker does, without the film, in a process that may be killed: `python clip_buyer.py STORE RUN PROMPT ...`.

With `--struck PLACE WHEN CALL FAULT` as the last arguments it is struck at that step: see struck_worker. Prints a line of
JSON: how many clips came, what was paid, and the error that ended it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from house import job
from struck_worker import FAULTS, strike_at

from nightreel_pipelines.clips import description
from nightreel_pipelines.gemini import GeminiClips, GeminiSettings
from nightreel_pipelines.models import ModelSpec, load_models
from nightreel_pipelines.plan import plan
from nightreel_pipelines.recipe import Recipe
from nightreel_queue.job import Job
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_storage.keyframes import Keyframes
from nightreel_worker.clips import Clips, Errand
from nightreel_worker.prices import load_prices

SHOT_S = 3.5


def film(id_: str, *prompts: str, **fields: Any) -> Job:
    """A tiny job of clips."""
    shots = [{"prompt": prompt, "duration": SHOT_S} for prompt in prompts]
    return job(id_, **({"render": {"model": "gemini-veo"}, "shots": shots} | fields))


def recipes_of(wanted: Job) -> tuple[Recipe, ...]:
    """Of the clips that a job needs."""
    return plan(wanted, spec(), description(spec()), {}).recipes


def spec() -> ModelSpec:
    return load_models()["gemini-veo"]


def buy(store: Store, run: str, wanted: Job, scratch: Path, settings: GeminiSettings) -> tuple[int, int, str]:
    """Have the clips that a job lacks made; how many came, what was paid in millionths of a dollar, and the error."""
    keyframes, came, paid = Keyframes(store), 0, 0

    def pay(micro_usd: int) -> None:
        nonlocal paid
        paid += micro_usd

    service = GeminiClips(spec(), settings)
    errand = Errand(spec(), (str(wanted.batch), str(wanted.id)), scratch, lambda: None, pay)
    lacking = [each for each in recipes_of(wanted) if each.fingerprint not in keyframes.fingerprints()]
    try:
        for drawn in Clips(store, run, load_prices()).made(service, errand, lacking):
            path = scratch / drawn.recipe.file
            path.write_bytes(drawn.content)
            keyframes.put(drawn.recipe.fingerprint, path, "")
            came += 1
    except Exception as exc:  # noqa: BLE001  # whatever it is, the test looks at it
        return came, paid, f"{type(exc).__name__}: {exc}"
    finally:
        service.close()
    return came, paid, ""


if __name__ == "__main__":
    store_url, run_id, *rest = sys.argv[1:]
    if "--struck" in rest:
        at = rest.index("--struck")
        place, when, call, fault = rest[at + 1 :]
        strike_at(place, when, int(call), FAULTS[fault])
        rest = rest[:at]
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(buy(open_store(store_url), run_id, film("film", *rest), Path(folder), GeminiSettings())))
