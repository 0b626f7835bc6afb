"""What a deployment is made of, in order, each as a step."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from .settings import Settings
from .steps import Command, State, Step, holds, listed

ROOT = Path(__file__).resolve().parents[2]
JOB, SERVICE = ROOT / "cloudrun-jobs.yaml", ROOT / "cloudrun-dispatcher.yaml"

APIS = (
    "artifactregistry",
    "cloudbuild",
    "cloudquotas",
    "cloudscheduler",
    "iam",
    "monitoring",
    "pubsub",
    "run",
    "secretmanager",
    "storage",
    "telemetry",
)
QUOTA = "NvidiaL4GpuAllocNoZonalRedundancyPerProjectRegion"
ACCOUNTS = {
    "worker": "renders",
    "dispatcher": "takes work in and starts workers",
    "caller": "is who scheduler and bucket events are, when they call the dispatcher",
    "builder": "builds images",
}
TICK = "*/5 * * * *"  # how often the dispatcher looks whether a worker should be started
NOTIFIED = "Notification Configuration.topic"  # as gcloud lists a notification
PUSH_DEADLINE_S = 600  # for a large manifest to be read and published; Pub/Sub's most


def apis(settings: Settings) -> Step:
    names = [f"{api}.googleapis.com" for api in APIS]

    def state(found: Any) -> State:
        enabled = {each["config"]["name"] for each in found or []}
        return "done" if enabled.issuperset(names) else "undone"

    return Step(
        "the APIs that are used",
        look=_gcloud(settings, "services", "list", "--enabled"),
        state=state,
        make=_gcloud(settings, "services", "enable", *names),
    )


def foundations(settings: Settings) -> list[Step]:
    """What does not need anything else of ours."""
    repositories = _gcloud(settings, "artifacts", "repositories", "list", f"--location={settings.region}")
    return [
        Step(
            "a registry for the images",
            look=repositories,
            state=listed("name", settings.name),
            make=_gcloud(
                settings,
                *("artifacts", "repositories", "create", settings.name, f"--location={settings.region}"),
                "--repository-format=docker",
            ),
        ),
        *(_bucket(settings, name, why) for name, why in _buckets(settings).items()),
        *(_account(settings, part, why) for part, why in ACCOUNTS.items()),
        _secret(settings, settings.secret, "the key that signs webhooks", new_webhook_key),
        _secret(settings, settings.console_secret, "the token that lets a browser into the console", new_console_token),
    ]


def new_webhook_key() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def new_console_token() -> str:
    return secrets.token_urlsafe(32)


def _buckets(settings: Settings) -> dict[str, str]:
    return {
        settings.weights_bucket: "the bucket of the model's weights, which workers may only read",
        settings.builds_bucket: "the bucket of what images are built from",
    }


def _bucket(settings: Settings, name: str, why: str) -> Step:
    access = ("--uniform-bucket-level-access", "--public-access-prevention")
    return Step(
        why,
        look=_gcloud(settings, "storage", "buckets", "list"),
        state=listed("name", name),
        make=_gcloud(
            settings, "storage", "buckets", "create", f"gs://{name}", f"--location={settings.region}", *access
        ),
    )


def _secret(settings: Settings, name: str, why: str, new: Callable[[], str]) -> Step:
    return Step(
        f"{why}, made here and seen by nobody",
        look=_gcloud(settings, "secrets", "list"),
        state=listed("name", name),
        make=_gcloud(settings, "secrets", "create", name, "--data-file=-"),
        stdin=new,
    )


def _account(settings: Settings, part: str, why: str) -> Step:
    return Step(
        f"the service account that {why}",
        look=_gcloud(settings, "iam", "service-accounts", "list"),
        state=listed("email", settings.account(part)),
        make=_gcloud(settings, "iam", "service-accounts", "create", f"{settings.name}-{part}"),
    )


def queue_and_store(settings: Settings) -> list[Step]:
    """Nightreel's own commands look, make and mend; given twice they do nothing."""
    queue, topic = f"pubsub://{settings.project}/{settings.queue}", settings.events
    setup = ("nightreel", "gcs", "setup", settings.store)
    return [
        Step(
            "topics, subscriptions, dead letters and results",
            make=("nightreel", "pubsub", "setup", queue, "--results", f"{settings.queue}-results"),
        ),
        Step(
            "the bucket of films, and what is cleared away in it",
            make=(*setup, "--location", settings.region, "--project", settings.project),
        ),
        Step(
            "the topic that tells of new manifests",
            look=_gcloud(settings, "pubsub", "topics", "list"),
            state=listed("name", topic),
            make=_gcloud(settings, "pubsub", "topics", "create", topic),
        ),
        Step(
            "Pub/Sub's own account in this project",
            make=_gcloud(settings, "services", "identity", "create", "--service=pubsub.googleapis.com", track="beta"),
        ),
        Step("Cloud Storage's own account in this project", make=_gcloud(settings, "storage", "service-agent")),
    ]


def images(settings: Settings, tag: str) -> Step:
    substitutions = f"_REPOSITORY={settings.repository},_TAG={tag}"
    return Step(
        "both images, built from this checkout",
        look=_gcloud(
            settings, "artifacts", "docker", "tags", "list", f"{settings.repository}/dispatcher"
        ),  # the one that is pushed last
        state=listed("tag", tag),
        make=_gcloud(
            settings,
            *("builds", "submit", str(ROOT), f"--config={ROOT / 'cloudbuild.yaml'}", f"--region={settings.region}"),
            f"--substitutions={substitutions}",
            f"--service-account=projects/{settings.project}/serviceAccounts/{settings.account('builder')}",
            f"--gcs-source-staging-dir=gs://{settings.builds_bucket}/source",
            "--suppress-logs",
        ),
    )


def runs(settings: Settings, folder: Path, number: str, tag: str) -> list[Step]:
    """The worker's job and the dispatcher's service, as their files say; the filled ones go into `folder`."""
    return [
        _run(settings, "jobs", f"{settings.name}-worker", "the job that a worker is", JOB, folder, number, tag),
        _run(settings, "services", f"{settings.name}-dispatcher", "the dispatcher", SERVICE, folder, number, tag),
    ]


def _run(
    settings: Settings, kind: str, name: str, why: str, template: Path, folder: Path, number: str, tag: str
) -> Step:
    text = settings.fill(template.read_text(), number=number, tag=tag)
    filled = folder / template.name
    filled.write_text(text)
    wanted = yaml.safe_load(text)
    at = f"--region={settings.region}"
    return Step(
        f"{why}, as {template.name} says",
        look=_gcloud(settings, "run", kind, "describe", name, at),
        state=lambda found: "undone" if found is None else "done" if holds(found, wanted) else "wrong",
        make=_gcloud(settings, "run", kind, "replace", str(filled), at),
    )


def entrances(settings: Settings, number: str) -> list[Step]:
    """What calls the dispatcher."""
    url, caller = settings.url(number), settings.account("caller")
    return [_notification(settings), _push(settings, url, caller), _tick(settings, url, caller)]


def _notification(settings: Settings) -> Step:
    """A plain notification, not Eventarc: one API and one role less, and the topic may be looked at by anybody."""
    topic, prefix = f"projects/{settings.project}/topics/{settings.events}", "films/manifests/"
    notifications = ("storage", "buckets", "notifications")

    return Step(
        f"the bucket tells of what is put below {settings.store}/manifests/",
        look=_gcloud(settings, *notifications, "list", f"gs://{settings.bucket}"),
        state=listed(NOTIFIED, topic, lambda found: True),
        make=_gcloud(
            settings,
            *(*notifications, "create", f"gs://{settings.bucket}", f"--topic={topic}", "--skip-topic-setup"),
            *("--event-types=OBJECT_FINALIZE", f"--object-prefix={prefix}", "--payload-format=json"),
        ),
    )


def _push(settings: Settings, url: str, caller: str) -> Step:
    wanted = {"pushEndpoint": f"{url}/events", "oidcToken": {"serviceAccountEmail": caller, "audience": url}}
    push: Command = (f"--push-endpoint={url}/events", f"--push-auth-service-account={caller}")
    push += (f"--push-auth-token-audience={url}",)
    lasting = (f"--ack-deadline={PUSH_DEADLINE_S}", "--expiration-period=never")
    return Step(
        "and the dispatcher hears of it",
        look=_gcloud(settings, "pubsub", "subscriptions", "list"),
        state=listed("name", settings.events, lambda found: holds(found.get("pushConfig"), wanted)),
        make=_gcloud(
            settings,
            *("pubsub", "subscriptions", "create", settings.events, f"--topic={settings.events}"),
            *push,
            *lasting,
            *("--min-retry-delay=10s", "--max-retry-delay=600s"),
        ),
        mend=_gcloud(settings, "pubsub", "subscriptions", "update", settings.events, *push),
    )


def _tick(settings: Settings, url: str, caller: str) -> Step:
    name, at = f"{settings.name}-tick", f"--location={settings.region}"
    target = {"uri": f"{url}/tick", "oidcToken": {"serviceAccountEmail": caller, "audience": url}}
    flags: Command = (f"--schedule={TICK}", f"--time-zone={settings.zone}", f"--uri={url}/tick", "--http-method=POST")
    flags += (f"--oidc-service-account-email={caller}", f"--oidc-token-audience={url}", "--attempt-deadline=60s")
    wanted = {"schedule": TICK, "timeZone": settings.zone, "httpTarget": target}
    return Step(
        "the dispatcher looks every five minutes whether a worker should be started",
        look=_gcloud(settings, "scheduler", "jobs", "list", at),
        state=listed("name", name, lambda found: holds(found, wanted)),
        make=_gcloud(settings, "scheduler", "jobs", "create", "http", name, at, *flags),
        mend=_gcloud(settings, "scheduler", "jobs", "update", "http", name, at, *flags),
    )


def _gcloud(settings: Settings, *words: str, track: str = "") -> Command:
    return ("gcloud", *filter(None, [track]), *words, f"--project={settings.project}")
