"""What deploy.env says, checked, and the names that follow from it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

L4_REGIONS = ("us-central1", "us-east4", "europe-west1", "europe-west4", "asia-southeast1")
"""Where Cloud Run has L4 GPUs, by its documentation of 2025."""

_FORMS = {
    "project": (r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "the id of a Google Cloud project, like my-project"),
    "region": ("|".join(L4_REGIONS), f"a region with L4 GPUs: {', '.join(L4_REGIONS)}"),
    "bucket": (r"[a-z0-9][a-z0-9_-]{1,52}[a-z0-9]", "3 to 54 of a-z 0-9 - _"),
    "name": (r"[a-z][a-z0-9-]{0,15}[a-z0-9]", "2 to 17 of a-z 0-9 -, a letter first"),
    "queue": (r"(?!goog)[a-z][a-z0-9-]{2,200}", "3 or more of a-z 0-9 -, a letter first, and not goog at the start"),
    "model": (r"[a-z0-9][a-z0-9.-]{0,62}", "a model's name, like flux-schnell"),
    "price": (r"[a-z0-9.-]+", "a name from prices.toml, or US dollars an hour"),
    "max_cost_usd": (r"\d+(\.\d+)?", "US dollars that one run may cost, like 5"),
    "monthly_usd": (r"(\d+(\.\d+)?)?", "US dollars that all runs of a month may cost, like 50, or nothing"),
    "max_workers": (r"[1-9]\d?", "1 to 99"),
    "max_wait_s": (r"\d{1,6}", "whole seconds"),
    "nightly": (r"(([01]\d|2[0-3]):[0-5]\d)?", "a time of day as HH:MM, or nothing"),
    "alert_email": (r"([^@\s]+@[^@\s]+\.[^@\s]+)?", "an e-mail address, or nothing"),
    "alert_usd_a_day": (r"\d+(\.\d+)?", "US dollars, like 20"),
    "zone": (r"[A-Za-z0-9+/_-]+", "a time zone, like Europe/Berlin"),
}


class DeployError(Exception):
    """Raised when the deployment cannot go on; the message says what the operator can do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One field a line of deploy.env; all are text, as there. A line of a field with a default may be missing."""

    project: str
    region: str
    bucket: str
    name: str
    queue: str
    model: str
    price: str
    max_cost_usd: str
    max_workers: str
    max_wait_s: str
    nightly: str
    zone: str
    alert_email: str
    alert_usd_a_day: str
    monthly_usd: str = ""

    @property
    def store(self) -> str:
        return f"gs://{self.bucket}/films"

    @property
    def weights_bucket(self) -> str:
        return f"{self.bucket}-weights"

    @property
    def builds_bucket(self) -> str:
        return f"{self.bucket}-builds"

    @property
    def events(self) -> str:
        """Topic and subscription of the bucket's events."""
        return f"{self.queue}-manifests"

    @property
    def secret(self) -> str:
        return f"{self.name}-webhook"

    @property
    def console_secret(self) -> str:
        return f"{self.name}-console"

    @property
    def repository(self) -> str:
        return f"{self.region}-docker.pkg.dev/{self.project}/{self.name}"

    @property
    def oldest_s(self) -> int:
        """Age of a message in the queue that is worth an alert."""
        return int(self.max_wait_s) + 7200

    def account(self, part: str) -> str:
        """The address of a service account of ours: worker, dispatcher, caller or builder."""
        return f"{self.name}-{part}@{self.project}.iam.gserviceaccount.com"

    def url(self, number: str) -> str:
        """The dispatcher's, which is known before it is there; `number` is the project's."""
        return f"https://{self.name}-dispatcher-{number}.{self.region}.run.app"

    def fill(self, template: str, *, number: str, tag: str) -> str:
        """A YAML file of ours with its ${PLACEHOLDERS} filled. Raises KeyError for one that is unknown."""
        known = {field.name.upper(): getattr(self, field.name) for field in dataclasses.fields(self)}
        known |= {"STORE": self.store, "WEIGHTS_BUCKET": self.weights_bucket, "SECRET": self.secret}
        known |= {"CONSOLE_SECRET": self.console_secret}
        known |= {"REPOSITORY": self.repository, "URL": self.url(number), "TAG": tag}
        known |= {"OLDEST_S": str(self.oldest_s)}
        return Template(template).substitute(known)


def read_settings(path: Path) -> Settings:
    """Raises DeployError that names each line and its mend."""
    if not path.exists():
        raise DeployError(f"{path} is missing: cp deploy.env.example {path.name}, and fill it in")
    values: dict[str, str] = {}
    problems = []
    fields = dataclasses.fields(Settings)
    known = [field.name for field in fields]
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip().lower(), value.strip().strip("\"'")
        if not equals or key not in known:
            problems.append(f"{path.name}:{number}: {line.strip()!r} is not one of {', '.join(known).upper()}=...")
        elif not re.fullmatch(_FORMS[key][0], value):
            problems.append(f"{path.name}:{number}: {key.upper()} must be {_FORMS[key][1]}, not {value!r}")
        else:
            values[key] = value
    named = {problem.split()[1] for problem in problems}
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    missing = [name.upper() for name in needed if name not in values and name.upper() not in named]
    problems += [f"{path.name}: {name} is missing: see deploy.env.example" for name in missing]
    if problems:
        raise DeployError("\n".join(problems))
    return Settings(**values)
