"""The `nightreel` command."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nightreel_queue.schema import job_schema, manifest_schema

from .after import cancel, retry, status
from .backends import backends
from .cloud import gcs, pubsub
from .doctor import doctor
from .download import download
from .garbage import gc
from .holding import hold, resume
from .money import budget, costs
from .plan import plan
from .pods import pods
from .preview import preview
from .render import render
from .report import report
from .runs import runs
from .serve import serve
from .sheet import sheet
from .simulate import simulate
from .submit import enqueue
from .wake import wake, workers
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


MAKING = (preview, plan, render, enqueue, work, serve, wake, workers, backends)
AFTERWARDS = (status, runs, report, budget, costs, sheet, download, cancel, retry, hold, resume, gc, simulate, doctor)
for verb in (*MAKING, *AFTERWARDS):
    app.command()(verb)

app.add_typer(pubsub, name="pubsub")
app.add_typer(gcs, name="gcs")
app.add_typer(weights, name="weights")
app.add_typer(pods, name="pods")


def main() -> None:
    """Entry point of the console script."""
    app()
