"""pubsub setup, gcs setup: make what a queue or a store needs on Google Cloud."""

from __future__ import annotations

from typing import Annotated

import typer

from nightreel_queue.errors import QueueUnavailable
from nightreel_storage.errors import StoreUnavailable

from .common import errors_in_one_line

pubsub = typer.Typer(help="A queue on Google Pub/Sub.", no_args_is_help=True)
gcs = typer.Typer(help="A store on Google Cloud Storage.", no_args_is_help=True)


@pubsub.command("setup")
def pubsub_setup(
    address: Annotated[str, typer.Argument(help="pubsub://PROJECT/SUBSCRIPTION", show_default=False)],
    results: Annotated[
        str | None, typer.Option("--results", help="Make a topic for results too, and a subscription, of this name.")
    ] = None,
) -> None:
    """Make a queue's topics and subscriptions, and mend their settings; twice does nothing."""
    with errors_in_one_line():
        try:
            from nightreel_queue.pubsub_setup import setup, setup_results
        except ImportError as exc:
            raise QueueUnavailable("Pub/Sub needs Google's client: pip install 'nightreel[gcp]'") from exc
        done = setup(address) + (setup_results(address, results) if results else [])
    print("\n".join(done) or f"{address}: nothing to do")


@gcs.command("setup")
def gcs_setup(
    address: Annotated[str, typer.Argument(help="gs://BUCKET/PREFIX", show_default=False)],
    location: Annotated[
        str, typer.Option("--location", help="Where a bucket that is missing is made.")
    ] = "us-central1",
    project: Annotated[str | None, typer.Option("--project", help="Whose a bucket that is missing becomes.")] = None,
) -> None:
    """Make a store's bucket with its lifecycle rules, or add these to a bucket that is there; twice does nothing."""
    with errors_in_one_line():
        try:
            from nightreel_storage.gcs_setup import setup_bucket
        except ImportError as exc:
            raise StoreUnavailable("Cloud Storage needs Google's client: pip install 'nightreel[gcp]'") from exc
        setup_bucket(address, location, project=project)
    print(f"{address}: ready")
