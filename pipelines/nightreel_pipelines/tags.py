"""What a film says of itself, in the tags of its container that players and ffprobe show. No torch here.

Only what the job and its models decide, so that the same job gives the same file: no time, no machine, no run. Prompts stay
out: a film is shown to strangers, and its prompts are their author's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from nightreel_queue.job import Job

from .plan import Plan


def tags(job: Job, layout: Plan, model: str) -> Mapping[str, str]:
    """By ffmpeg's names for MP4. `layout` is the job's, for the model of that name.

    `comment` is `name: value` pairs between semicolons: the job's fingerprint, then who made its keyframes; a film of
    given pictures alone has no such maker.
    """
    said = [f"fingerprint: {job.fingerprint}"]
    for source, revision, precision in dict.fromkeys(
        (recipe.source, recipe.revision, recipe.precision) for recipe in layout.recipes
    ):
        parts = {"model": model, "source": source, "revision": revision, "precision": precision}
        said += [f"{name}: {value}" for name, value in parts.items() if value]
    return {"title": f"{job.batch}/{job.id}", "comment": "; ".join(said), "encoding_tool": _program()}


def _program() -> str:
    """Name and version, as a program that makes files calls itself; a checkout that is not installed has no version."""
    with contextlib.suppress(PackageNotFoundError):
        return f"Nightreel {version('nightreel')}"
    return "Nightreel"
