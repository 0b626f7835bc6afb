"""What Nightreel is compared with: a plain script on diffusers and ffmpeg. Load once; then one video after the other.

    python bench/baseline.py MODELS_FILE JOBS_FILE FOLDER

JOBS_FILE has one job a line. With all jobs in one file this is the simple loop; called once for each job, it is the shell
loop that most people begin with. Pictures, camera and encoder are Nightreel's own, so that all make the same films.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nightreel_pipelines import film
from nightreel_pipelines.base import Description, Picture, no_pictures
from nightreel_pipelines.encode import Encoder
from nightreel_pipelines.models import ModelSpec, load_models, make_source
from nightreel_pipelines.plan import plan
from nightreel_pipelines.recipe import Recipe
from nightreel_queue.job import Job
from nightreel_worker.settings import Settings

Painter = Callable[[Recipe], Picture]


def flux_painter(spec: ModelSpec) -> Painter:
    """FLUX as diffusers' own examples use it."""
    import torch
    from diffusers import FluxPipeline

    pipe = FluxPipeline.from_pretrained(spec.folder(None), dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)

    def paint(recipe: Recipe) -> Picture:
        tokens = len(pipe.tokenizer_2(recipe.prompt).input_ids)
        pictures = pipe(
            recipe.prompt,
            width=recipe.width,
            height=recipe.height,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            max_sequence_length=next(length for length in spec.sequence if length >= tokens),
            generator=torch.Generator("cpu").manual_seed(recipe.seed),
        ).images
        return np.asarray(pictures[0])

    return paint


def painter(spec: ModelSpec) -> Painter:
    """Load the model: diffusers for FLUX, the test card itself for the sleeping GPU."""
    if spec.source == "flux":
        return flux_painter(spec)
    source = make_source(spec, None)
    source.load()
    return lambda recipe: next(iter(source.keyframes([recipe], no_pictures, lambda: None)))[1]


def render(job: Job, spec: ModelSpec, paint: Painter, video: Path) -> None:
    """One video: its pictures, then its film."""
    layout = plan(job, spec, Description("", "", "", "cpu"), {})
    pictures = {recipe.fingerprint: paint(recipe) for recipe in layout.recipes}
    with Encoder(
        video,
        width=layout.width,
        height=layout.height,
        fps=layout.fps,
        crf=layout.crf,
        preset=Settings(_env_file=None).x264_preset,
    ) as encoder:
        for frame in film.frames(layout, pictures.__getitem__):
            encoder.write(frame)


def main() -> None:
    models = load_models(Path(sys.argv[1]))
    jobs = [Job.model_validate_json(line) for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()]
    spec = models[jobs[0].render.model or ""]
    print("loading the model", flush=True)
    paint = painter(spec)
    for job in jobs:
        render(job, spec, paint, Path(sys.argv[3]) / f"{job.id}.mp4")


if __name__ == "__main__":
    main()
