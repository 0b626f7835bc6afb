"""Google's APIs as far as scripts/deploy needs them: a proxy that keeps what it is told, and every request.

gcloud is led here by CLOUDSDK_API_ENDPOINT_OVERRIDES_* and an HTTP proxy, so that one port stands for all APIs; the host's
first label says which. Resources are kept by path, as the APIs do; what the APIs do differently is in `_SPECIAL`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PROJECT, NUMBER = "demo-project", "123456789"
APIS = (
    "artifactregistry",
    "cloudbuild",
    "cloudquotas",
    "cloudresourcemanager",
    "cloudscheduler",
    "iam",
    "monitoring",
    "pubsub",
    "run",
    "secretmanager",
    "serviceusage",
    "storage",
)
_READING = (":getIamPolicy", ":testIamPermissions")
_IDS = ("repositoryId", "secretId")  # query parameters that name what is created
_OPERATIONS = ("artifactregistry", "serviceusage")  # their changes are operations, which are done at once here


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    api: str
    path: str
    body: Any

    @property
    def changes(self) -> bool:
        return self.method != "GET" and not self.path.endswith(_READING)


@dataclass
class FakeGoogle:
    """What the APIs hold, and what they were asked."""

    port: int = 0
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    """API and path -> resource."""
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    enabled: set[str] = field(default_factory=set)
    quota: int = 1
    asked: list[Asked] = field(default_factory=list)
    refuse: Callable[[Asked], tuple[int, dict[str, Any]] | None] = lambda asked: None
    """Lets a test answer a request itself."""

    def environment(self, folder: Path) -> dict[str, str]:
        """Leads gcloud here. It gets a token that says nothing to anybody."""
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text("token")
        return {
            "CLOUDSDK_CONFIG": str(folder),
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(folder / "token"),
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_FILE_LOGGING": "1",
            "CLOUDSDK_CORE_ACCOUNT": "somebody@example.com",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
            "CLOUDSDK_PROXY_TYPE": "http_no_tunnel",
            "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
            "CLOUDSDK_PROXY_PORT": str(self.port),
        } | {
            f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api.upper()}": f"http://{api}.fake/" + _SUFFIX.get(api, "")
            for api in APIS
        }

    @property
    def changes(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.changes]

    def answer(self, asked: Asked, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if refused := self.refuse(asked):
            return refused
        for (api, method, form), special in _SPECIAL.items():
            if (api, method) == (asked.api, asked.method) and (match := re.fullmatch(form, asked.path)):
                return 200, special(self, asked, match)
        if asked.path.endswith(("IamPolicy", "/iam")):
            return 200, self._policy(asked)
        key = f"{asked.api}/{asked.path}"
        if asked.method == "GET":
            return self._get(key, asked.path)
        if asked.method == "DELETE":
            gone = self.resources.pop(key, None) is not None
            return (200, _answer(asked, {})) if gone else (404, not_found(asked.path))
        return 200, self._put(key, asked, query)

    def _policy(self, asked: Asked) -> dict[str, Any]:
        key = f"{asked.api}/{re.sub(r'(:[gs]etIamPolicy|/iam)$', '', asked.path)}"
        if asked.changes:
            self.policies[key] = asked.body.get("policy", asked.body)
        return self.policies.get(key, {"etag": "BwX="})

    def _get(self, key: str, path: str) -> tuple[int, dict[str, Any]]:
        if key in self.resources:
            return 200, self.resources[key]
        plural = path.rpartition("/")[2]
        if plural.endswith("s") or plural == "b":
            inside = [its for name, its in self.resources.items() if name.rpartition("/")[0] == key]
            return 200, {"items" if key.startswith("run/") else _LISTS.get(plural, plural): inside}
        return 404, not_found(path)

    def _put(self, key: str, asked: Asked, query: dict[str, str]) -> dict[str, Any]:
        body = dict(asked.body or {})
        given = next((query[each] for each in _IDS if each in query), None)
        if asked.method == "POST":
            name = given or (body.get("metadata") or body).get("name", "")
            key = f"{key}/{name.rpartition('/')[2] or len(self.resources)}"
        if given:
            body["name"] = f"{asked.path.partition('/')[2]}/{given}"
        if asked.method == "PATCH":
            body = self.resources.get(key, {}) | body.get("subscription", body)
        self.resources[key] = body
        return _answer(asked, body)


def _answer(asked: Asked, body: dict[str, Any]) -> dict[str, Any]:
    if asked.api not in _OPERATIONS:
        return body
    return {"name": f"projects/{PROJECT}/locations/us-central1/operations/1", "done": True, "response": body}


def not_found(path: str) -> dict[str, Any]:
    return {"error": {"code": 404, "status": "NOT_FOUND", "message": f"{path} was not found"}}


_SUFFIX = {"storage": "storage/v1/"}
_LISTS = {"b": "items", "notificationConfigs": "items", "serviceAccounts": "accounts"}


def _project(_: FakeGoogle, __: Asked, match: re.Match[str]) -> dict[str, Any]:
    return {"projectId": match[1], "projectNumber": NUMBER, "lifecycleState": "ACTIVE"}


def _services(google: FakeGoogle, _: Asked, __: re.Match[str]) -> dict[str, Any]:
    return {
        "services": [
            {"name": f"projects/{NUMBER}/services/{name}", "config": {"name": name}, "state": "ENABLED"}
            for name in sorted(google.enabled)
        ]
    }


def _enable(google: FakeGoogle, asked: Asked, match: re.Match[str]) -> dict[str, Any]:
    google.enabled.update(asked.body["serviceIds"])
    return {"name": "operations/1", "done": True, "response": {}}


def _identity(_: FakeGoogle, __: Asked, ___: re.Match[str]) -> dict[str, Any]:
    return {
        "name": "operations/1",
        "done": True,
        "response": {"email": f"service-{NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"},
    }


def _quota(google: FakeGoogle, _: Asked, __: re.Match[str]) -> dict[str, Any]:
    return {
        "quotaId": "x",
        "dimensionsInfos": [{"dimensions": {"region": "us-central1"}, "details": {"value": str(google.quota)}}],
    }


def _account(google: FakeGoogle, asked: Asked, match: re.Match[str]) -> dict[str, Any]:
    email = f"{asked.body['accountId']}@{PROJECT}.iam.gserviceaccount.com"
    made = {"name": f"projects/{PROJECT}/serviceAccounts/{email}", "email": email}
    google.resources[f"iam/{asked.path}/{email}"] = made
    return made


def _storage_agent(_: FakeGoogle, __: Asked, ___: re.Match[str]) -> dict[str, Any]:
    return {"email_address": f"service-{NUMBER}@gs-project-accounts.iam.gserviceaccount.com"}


def _ready(google: FakeGoogle, asked: Asked, match: re.Match[str]) -> dict[str, Any]:
    """Cloud Run's answer: what was asked, with a status that says that it is ready."""
    name = asked.body["metadata"]["name"]
    collection = asked.path.removesuffix(f"/{name}")
    meta = {
        "generation": 1,
        "resourceVersion": "1",
        "selfLink": f"/{collection}/{name}",
        "labels": {"cloud.googleapis.com/location": "us-central1"},
    }
    status = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}], "url": "https://x.run.app"}
    given = asked.body["metadata"]
    metadata = {**given, **meta, "labels": meta["labels"] | given.get("labels", {})}
    google.resources[f"run/{collection}/{name}"] = {**asked.body, "metadata": metadata, "status": status}
    return google.resources[f"run/{collection}/{name}"]


def _version(google: FakeGoogle, _: Asked, match: re.Match[str]) -> dict[str, Any]:
    return {"name": f"{match[1]}/versions/1", "state": "ENABLED"}


def _build(google: FakeGoogle, asked: Asked, match: re.Match[str]) -> dict[str, Any]:
    """The build has pushed its images by the time it is asked about."""
    build = asked.body | {
        "id": "1",
        "projectId": PROJECT,
        "name": f"{match[1]}/builds/1",
        "status": "SUCCESS",
        "logUrl": "https://logs",
        "createTime": "2026-11-22T00:00:00Z",
    }
    google.resources[f"cloudbuild/{asked.path}/1"] = build
    repository = asked.body["substitutions"]["_REPOSITORY"]
    region, _, rest = repository.partition("-docker.pkg.dev/")
    project, _, name = rest.partition("/")
    for image in ("worker", "dispatcher"):
        path = f"v1/projects/{project}/locations/{region}/repositories/{name}/packages/{image}/tags/{asked.body['substitutions']['_TAG']}"
        google.resources[f"artifactregistry/{path}"] = {
            "name": path.removeprefix("v1/"),
            "version": f"{path.removeprefix('v1/').rpartition('/tags')[0]}/versions/sha256:1",
        }
    return {
        "name": "operations/build/demo/1",
        "done": True,
        "metadata": {
            "@type": "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata",
            "build": build,
        },
        "response": build,
    }


def _upload(google: FakeGoogle, asked: Asked, match: re.Match[str]) -> dict[str, Any]:
    return {"location": f"http://storage.fake/uploads/{match[1]}"}


def _notify(google: FakeGoogle, asked: Asked, match: re.Match[str]) -> dict[str, Any]:
    link = f"https://www.googleapis.com/{asked.path}/1"
    google.resources[f"storage/{asked.path}/1"] = made = {**asked.body, "id": "1", "selfLink": link}
    return made


def _alert(google: FakeGoogle, asked: Asked, match: re.Match[str]) -> dict[str, Any]:
    """A policy or a channel, to which Google gives a name."""
    name = f"{match[1]}/" + re.sub(r"\W+", "-", asked.body["displayName"])
    google.resources[f"monitoring/v3/{name}"] = made = {**asked.body, "name": name}
    return made


def _uploaded(google: FakeGoogle, asked: Asked, match: re.Match[str]) -> dict[str, Any]:
    return {"bucket": match[1], "name": "source/x.tgz", "generation": "1", "size": str(asked.body["size"])}


_Special = Callable[[FakeGoogle, Asked, "re.Match[str]"], dict[str, Any]]
_SPECIAL: dict[tuple[str, str, str], _Special] = {
    ("cloudresourcemanager", "GET", r"v1/projects/([^/:]+)"): _project,
    ("serviceusage", "GET", r"v1/projects/[^/]+/services"): _services,
    ("serviceusage", "POST", r"v1/projects/[^/]+/services:batchEnable"): _enable,
    ("serviceusage", "POST", r"v1beta1/.*:generateServiceIdentity"): _identity,
    ("cloudquotas", "GET", r"v1[^/]*/projects/.*/quotaInfos/\w+"): _quota,
    ("iam", "POST", r"v1/projects/[^/]+/serviceAccounts"): _account,
    ("storage", "GET", r"storage/v1/projects/[^/]+/serviceAccount"): _storage_agent,
    ("storage", "POST", r"resumable/upload/storage/v1/b/([^/]+)/o"): _upload,
    ("storage", "PUT", r"uploads/([^/]+)"): _uploaded,
    ("storage", "POST", r"storage/v1/b/([^/]+)/notificationConfigs"): _notify,
    ("run", "POST", r"apis/(.*)/namespaces/([^/]+)/(jobs|services)"): _ready,
    ("run", "PUT", r"apis/(.*)/namespaces/([^/]+)/(jobs|services)/[^/]+"): _ready,
    ("secretmanager", "POST", r"v1/(.*):addVersion"): _version,
    ("monitoring", "POST", r"v3/(.*/(?:alertPolicies|notificationChannels))"): _alert,
    ("cloudbuild", "POST", r"v1/(projects/.*)/builds"): _build,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    google: FakeGoogle

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the requests are kept."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = {"size": len(raw)}  # a file
        api = next((each for each in APIS if each in parts.netloc), parts.netloc)
        asked = Asked(
            self.command,
            api,
            parts.path.strip("/").replace("%2F", "/").replace("projects/-/", f"projects/{PROJECT}/"),
            body,
        )
        self.google.asked.append(asked)
        status, answer = self.google.answer(asked, {key: values[0] for key, values in parse_qs(parts.query).items()})
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if "location" in answer:
            self.send_header("Location", answer["location"])
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # as http.server wants them called


@contextmanager
def running() -> Iterator[FakeGoogle]:
    google = FakeGoogle()
    handler = type("Handler", (_Handler,), {"google": google})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    google.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield google
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
