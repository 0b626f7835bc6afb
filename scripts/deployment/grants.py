"""Who may do what: the least that works. docs/how-to/deploy.md has the same table, and a test compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .settings import Settings
from .steps import Command, State, Step, gone

STORAGE_AGENT = "service-{number}@gs-project-accounts.iam.gserviceaccount.com"
PUBSUB_AGENT = "service-{number}@gcp-sa-pubsub.iam.gserviceaccount.com"


@dataclass(frozen=True, slots=True)
class Grant:
    """One role for one account, on one thing."""

    account: str
    """worker, dispatcher, caller or builder; or an agent: Pub/Sub's own account, or Cloud Storage's."""
    role: str
    kind: str
    """A kind of thing in _KINDS."""
    thing: str
    """Its name, with the settings' names in braces; empty for the project."""
    why: str


BEFORE = (
    Grant("worker", "roles/pubsub.subscriber", "subscription", "{queue}", "takes jobs, keeps their leases, acks them"),
    Grant("worker", "roles/pubsub.subscriber", "subscription", "{queue}-urgent", "the same for urgent jobs"),
    Grant("worker", "roles/pubsub.publisher", "topic", "{queue}-dead", "puts away what cannot be made"),
    Grant("worker", "roles/pubsub.publisher", "topic", "{queue}-results", "tells how jobs ended"),
    Grant("worker", "roles/storage.objectUser", "bucket", "{bucket}", "reads inputs, writes films and receipts"),
    Grant("worker", "roles/storage.objectViewer", "bucket", "{bucket}-weights", "loads the model"),
    Grant("worker", "roles/secretmanager.secretAccessor", "secret", "{name}-webhook", "signs webhooks"),
    Grant(
        "worker",
        "roles/pubsub.viewer",
        "project",
        "",
        "`doctor` looks how its topics and subscriptions are; no messages",
    ),
    Grant(
        "worker", "roles/telemetry.metricsWriter", "project", "", "writes its metrics; can be given for projects only"
    ),
    Grant("dispatcher", "roles/pubsub.publisher", "topic", "{queue}", "publishes the jobs that it took in"),
    Grant("dispatcher", "roles/pubsub.publisher", "topic", "{queue}-urgent", "the same for urgent jobs"),
    Grant(
        "dispatcher", "roles/storage.objectUser", "bucket", "{bucket}", "reads manifests, writes batches and replies"
    ),
    Grant(
        "dispatcher", "roles/secretmanager.secretAccessor", "secret", "{name}-console", "knows who may see the console"
    ),
    Grant(
        "dispatcher",
        "roles/monitoring.viewer",
        "project",
        "",
        "reads how many messages wait; can be given for projects only",
    ),
    Grant("builder", "roles/artifactregistry.writer", "repository", "{name}", "pushes images"),
    Grant("builder", "roles/storage.objectViewer", "bucket", "{bucket}-builds", "reads the sources of a build"),
    Grant("builder", "roles/logging.logWriter", "project", "", "writes a build's log; can be given for projects only"),
    Grant("pubsub-agent", "roles/pubsub.publisher", "topic", "{queue}-dead", "moves what came 100 times in vain"),
    Grant("pubsub-agent", "roles/pubsub.subscriber", "subscription", "{queue}", "acks what it moved"),
    Grant("pubsub-agent", "roles/pubsub.subscriber", "subscription", "{queue}-urgent", "the same for urgent jobs"),
    Grant("storage-agent", "roles/pubsub.publisher", "topic", "{queue}-manifests", "tells of new manifests"),
)
"""What must be so before workers and dispatcher are started."""

AFTER = (
    Grant("dispatcher", "roles/run.jobsExecutorWithOverrides", "job", "{name}-worker", "starts and cancels workers"),
    Grant("dispatcher", "roles/run.viewer", "job", "{name}-worker", "sees which workers run"),
    Grant(
        "caller", "roles/run.invoker", "service", "{name}-dispatcher", "scheduler and bucket events call the dispatcher"
    ),
)
"""On what exists only then."""

_KINDS: dict[str, Command] = {
    "project": ("projects",),
    "bucket": ("storage", "buckets"),
    "topic": ("pubsub", "topics"),
    "subscription": ("pubsub", "subscriptions"),
    "secret": ("secrets",),
    "repository": ("artifacts", "repositories"),
    "job": ("run", "jobs"),
    "service": ("run", "services"),
}
_AGENTS = {"storage-agent": STORAGE_AGENT, "pubsub-agent": PUBSUB_AGENT}


def member(settings: Settings, account: str, number: str) -> str:
    address = _AGENTS[account].format(number=number) if account in _AGENTS else settings.account(account)
    return f"serviceAccount:{address}"


def thing(settings: Settings, grant: Grant) -> str:
    return grant.thing.format(queue=settings.queue, bucket=settings.bucket, name=settings.name) or settings.project


def steps(settings: Settings, grants: tuple[Grant, ...], number: str) -> list[Step]:
    """A look at each thing's policy, and one command for each role that it lacks."""
    return [_step(settings, grant, number) for grant in grants]


def _step(settings: Settings, grant: Grant, number: str) -> Step:
    name, who = thing(settings, grant), member(settings, grant.account, number)
    return Step(
        f"{grant.account} on {grant.kind} {name}: {grant.why}",
        look=_command(settings, grant.kind, "get-iam-policy", name),
        state=lambda policy: _state(policy, grant.role, who),
        make=_command(settings, grant.kind, "add-iam-policy-binding", name, f"--member={who}", f"--role={grant.role}"),
    )


def removal(settings: Settings, grant: Grant, number: str) -> Step:
    """What a deleted account would leave behind in a policy that stays."""
    name, who = thing(settings, grant), member(settings, grant.account, number)
    return Step(
        f"{grant.account} no longer on {grant.kind} {name}",
        look=_command(settings, grant.kind, "get-iam-policy", name),
        state=gone(lambda policy: _state(policy, grant.role, who)),
        make=_command(
            settings, grant.kind, "remove-iam-policy-binding", name, f"--member={who}", f"--role={grant.role}"
        ),
    )


def _state(policy: Any, role: str, who: str) -> State:
    bindings = (policy or {}).get("bindings", [])
    given = any(each["role"] == role and who in each["members"] and "condition" not in each for each in bindings)
    return "done" if given else "undone"


def _command(settings: Settings, kind: str, verb: str, name: str, *flags: str) -> Command:
    command: Command = ("gcloud", *_KINDS[kind], verb, f"gs://{name}" if kind == "bucket" else name, *flags)
    if kind in ("job", "service"):
        command += (f"--region={settings.region}",)
    if kind == "repository":
        command += (f"--location={settings.region}",)
    if kind == "project" and verb != "get-iam-policy":
        command += ("--condition=None",)
    if kind != "project":
        command += (f"--project={settings.project}",)
    return command
