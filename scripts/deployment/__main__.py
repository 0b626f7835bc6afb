"""scripts/deploy and scripts/destroy."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a folder that is run is not found by its own name

from deployment import alerts, grants, plan, takedown
from deployment.settings import DeployError, Settings, read_settings
from deployment.steps import Command, Hand, Missing, Step, run

OLDEST_SDK = 528  # what the commands were tried with

DEPLOY = """Puts Nightreel on Google Cloud, or brings what is there up to date; settings are in deploy.env. Whatever is right
already is left alone, so it may be given any number of times, also after it was cut off."""
DESTROY = """Takes down what scripts/deploy made. The buckets stay, with films, receipts and weights, unless --films."""


def main() -> int:
    options = _arguments()
    try:
        settings = read_settings(options.settings)
        hand = Hand(dry_run=options.dry_run)
        number = _number(hand, settings)
        if options.verb == "destroy":
            return _destroy(hand, settings, number, options)
        return _deploy(hand, settings, number, options)
    except DeployError as error:
        print(f"scripts/{options.verb}: {error}", file=sys.stderr)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts")
    verbs = parser.add_subparsers(dest="verb", required=True)
    deploy = verbs.add_parser("deploy", description=DEPLOY, prog="scripts/deploy")
    destroy = verbs.add_parser("destroy", description=DESTROY, prog="scripts/destroy")
    for verb in (deploy, destroy):
        verb.add_argument("--settings", type=Path, default=plan.ROOT / "deploy.env", help="default: deploy.env")
        verb.add_argument("--dry-run", action="store_true", help="print all commands, in order, and ask nobody")
    deploy.add_argument("--tag", help="of the images; default: the commit")
    filled = plan.ROOT / "out" / "deployment"
    deploy.add_argument(
        "--filled", type=Path, default=filled, help="where filled YAML files go; default: out/deployment"
    )
    deploy.add_argument("--no-quota-check", action="store_true", help="go on without quota for the GPUs")
    destroy.add_argument("--films", action="store_true", help="also the buckets, with everything in them")
    destroy.add_argument("--yes", action="store_true", help="do it")
    return parser.parse_args()


def _number(hand: Hand, settings: Settings) -> str:
    """The project's number; checks first that gcloud is new enough and may see the project."""
    if hand.dry_run:
        return "PROJECT_NUMBER"
    version = str((hand.look(("gcloud", "version")) or {}).get("Google Cloud SDK", "0"))
    if int(version.partition(".")[0]) < OLDEST_SDK:
        raise DeployError(f"gcloud is {version}, and {OLDEST_SDK}.0.0 or newer is needed: gcloud components update")
    project: Any = hand.look(("gcloud", "projects", "describe", settings.project))
    if project is None:
        raise DeployError(f"project {settings.project} is not there: gcloud projects create {settings.project}")
    return str(project["projectNumber"])


def _deploy(hand: Hand, settings: Settings, number: str, options: argparse.Namespace) -> int:
    tag = options.tag or _commit()
    hand.do(plan.apis(settings))
    _check_quota(hand, settings, optional=options.no_quota_check)
    options.filled.mkdir(parents=True, exist_ok=True)
    steps: list[Step] = [
        *plan.foundations(settings),
        *plan.queue_and_store(settings),
        *grants.steps(settings, grants.BEFORE, number),
        plan.images(settings, tag),
        *plan.runs(settings, options.filled, number, tag),
        *grants.steps(settings, grants.AFTER, number),
        *plan.entrances(settings, number),
    ]
    for step in itertools.chain(steps, alerts.steps(settings, options.filled, hand)):
        hand.do(step)
    if not hand.dry_run:
        _verify(settings)
        print(_what_to_open(hand, settings, number))
    return 0


def _commit() -> str:
    """The images are named after what they were made of."""
    git = ("git", "-C", str(plan.ROOT))
    if subprocess.run((*git, "status", "--porcelain"), capture_output=True, text=True, check=True).stdout.strip():
        raise DeployError("this checkout has changes that are not committed: commit them, or name the images: --tag")
    return run((*git, "rev-parse", "--short=12", "HEAD")).strip()


def _check_quota(hand: Hand, settings: Settings, *, optional: bool) -> None:
    """Fail before anything is built."""
    look: Command = ("gcloud", "beta", "quotas", "info", "describe", plan.QUOTA, "--service=run.googleapis.com")
    look += (f"--project={settings.project}",)
    print(f"# quota for {settings.max_workers} L4 in {settings.region}")
    if hand.dry_run:
        print(f"#   looks with: {' '.join(look)}")
        return
    given = 0
    for info in (hand.look(look) or {}).get("dimensionsInfos", []):
        if info.get("dimensions", {}).get("region", settings.region) == settings.region:
            given = max(given, int(info.get("details", {}).get("value", 0)))
    print(f"  there is quota for {given}")
    if given < int(settings.max_workers) and not optional:
        raise DeployError(
            f"quota for {given} L4 GPUs without zonal redundancy in {settings.region}, and MAX_WORKERS is "
            f"{settings.max_workers}: ask for more at https://g.co/cloudrun/gpu-quota (it takes days), or go on without: "
            "--no-quota-check"
        )


def _verify(settings: Settings) -> None:
    """Cloud Run itself says that both are ready."""
    at = (f"--region={settings.region}", f"--project={settings.project}")
    for kind, name in (("jobs", f"{settings.name}-worker"), ("services", f"{settings.name}-dispatcher")):
        found = Hand(dry_run=False).look(("gcloud", "run", kind, "describe", name, *at))
        if found is None:
            raise Missing(f"{name} is not there: give scripts/deploy again")
        for condition in found.get("status", {}).get("conditions", []):
            if condition["type"] == "Ready" and condition["status"] != "True":
                raise DeployError(f"{name} is not ready: {condition.get('message', 'Cloud Run does not say why')}")
        print(f"{name} is ready")


def _what_to_open(hand: Hand, settings: Settings, number: str) -> str:
    console = "https://console.cloud.google.com"
    done = f"{hand.changes} changes" if hand.changes else "Nothing was to be done"
    job = f"{settings.name}-worker"
    return f"""{done}.
dispatcher:   {settings.url(number)}  (private: gcloud run services proxy {settings.name}-dispatcher --region={settings.region})
worker:       {console}/run/jobs/details/{settings.region}/{job}?project={settings.project}
films:        {console}/storage/browser/{settings.bucket}/films?project={settings.project}
weights:      gs://{settings.weights_bucket}/{settings.model}
a first look: gcloud run jobs execute {job} --region={settings.region} --project={settings.project} --args=doctor --wait"""


def _destroy(hand: Hand, settings: Settings, number: str, options: argparse.Namespace) -> int:
    if not options.yes and not options.dry_run:
        raise DeployError(
            f"this takes {settings.name} in {settings.project} down: look with --dry-run, then give --yes"
        )
    for step in itertools.chain(alerts.removals(settings, hand), takedown.steps(settings, number, films=options.films)):
        hand.do(step)
    if not options.films:
        print(f"gs://{settings.bucket}, gs://{settings.weights_bucket} and gs://{settings.builds_bucket} stay: --films")
    return 0


if __name__ == "__main__":
    sys.exit(main())
