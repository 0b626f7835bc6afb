"""What scripts/destroy removes, in order: first what starts things, then what runs, then what these used."""

from __future__ import annotations

from collections.abc import Iterator

from . import grants
from .plan import ACCOUNTS, NOTIFIED
from .settings import Settings
from .steps import Command, Step, gone, listed


def steps(settings: Settings, number: str, *, films: bool) -> Iterator[Step]:
    """`films`: the buckets too, with all that is in them."""
    at, location, name = f"--region={settings.region}", f"--location={settings.region}", settings.name
    yield _gone(settings, ("scheduler", "jobs"), f"{name}-tick", location)
    yield _notification_gone(settings)
    yield _gone(settings, ("pubsub", "subscriptions"), settings.events)
    yield _gone(settings, ("run", "services"), f"{name}-dispatcher", at, key="metadata.name")
    yield _gone(settings, ("run", "jobs"), f"{name}-worker", at, key="metadata.name")
    for suffix in ("", "-urgent", "-results", "-dead"):
        yield _gone(settings, ("pubsub", "subscriptions"), f"{settings.queue}{suffix}")
    for suffix in ("", "-urgent", "-results", "-dead", "-manifests"):
        yield _gone(settings, ("pubsub", "topics"), f"{settings.queue}{suffix}")
    for secret in (settings.secret, settings.console_secret):
        yield _gone(settings, ("secrets",), secret)
    yield _gone(settings, ("artifacts", "repositories"), name, location)
    for grant in grants.BEFORE:
        if grant.kind == "project":
            yield grants.removal(settings, grant, number)
    for part in ACCOUNTS:
        yield _gone(settings, ("iam", "service-accounts"), settings.account(part), key="email")
    if films:
        for bucket in (settings.builds_bucket, settings.weights_bucket, settings.bucket):
            yield _bucket_gone(settings, bucket)


def _gone(settings: Settings, kind: Command, name: str, *at: str, key: str = "name") -> Step:
    project = f"--project={settings.project}"
    return Step(
        f"{' '.join(kind)} {name}",
        look=("gcloud", *kind, "list", *at, project),
        state=gone(listed(key, name)),
        make=("gcloud", *kind, "delete", name, *at, project, "--quiet"),
    )


def _notification_gone(settings: Settings) -> Step:
    bucket, project = f"gs://{settings.bucket}", f"--project={settings.project}"
    topic = f"projects/{settings.project}/topics/{settings.events}"
    return Step(
        "what the bucket tells",
        look=("gcloud", "storage", "buckets", "notifications", "list", bucket, project),
        state=gone(listed(NOTIFIED, topic)),
        make=("gcloud", "storage", "buckets", "notifications", "delete", bucket, project, "--quiet"),
    )


def _bucket_gone(settings: Settings, name: str) -> Step:
    project = f"--project={settings.project}"
    return Step(
        f"bucket {name} and all that is in it",
        look=("gcloud", "storage", "buckets", "list", project),
        state=gone(listed("name", name)),
        make=("gcloud", "storage", "rm", "--recursive", f"gs://{name}", project),
    )
