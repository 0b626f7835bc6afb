"""The `nightreel` command."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nightreel_queue.schema import job_schema, manifest_schema

from .after import cancel, retry, status
from .cloud import doctor, gcs, pubsub
from .holding import hold, resume
from .render import render
from .serve import serve
from .submit import enqueue
from .weights import weights
from .work import work

app = typer.Typer(
    help="Renders short videos from prompts, in batches.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def schema(
    manifest: Annotated[bool, typer.Option("--manifest", help="Of a manifest instead of a job.")] = False,
) -> None:
    """Print the JSON Schema of a job."""
    print(json.dumps(manifest_schema() if manifest else job_schema(), indent=2))


for verb in (render, enqueue, work, serve, status, cancel, retry, hold, resume, doctor):
    app.command()(verb)

app.add_typer(pubsub, name="pubsub")
app.add_typer(gcs, name="gcs")
app.add_typer(weights, name="weights")


def main() -> None:
    """Entry point of the console script."""
    app()
