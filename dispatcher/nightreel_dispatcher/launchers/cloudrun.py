"""Workers as executions of a Cloud Run job, with Google's SDK. The only module that imports it.

One execution is one worker. None of our calls is repeated by the SDK: a start whose answer was lost may have been done, and
the ledger of starts knows how to wait for that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import grpc  # type: ignore[import-untyped]  # has no types
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcTransport
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport

from .base import Execution, LauncherUnavailable, NotAllowed, QuotaExceeded, State

CALL_S = 15.0  # that an answer may take
ALL_S = 30.0  # after which no more workers of one start are asked for: the next look asks for the rest
KEPT_S = 3600.0  # that an execution is told of after its end
PAGE = 100
WAKE, ROUTE = "NIGHTREEL_WAKE_ID", "NIGHTREEL_ROUTE"
QUOTA_S = 300.0  # what a quota takes to be free again is not told; it is not seconds
LOG_IN = (
    "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file"
)


class CloudRun:
    """Starts executions of one job."""

    name = "cloudrun"

    def __init__(
        self,
        project: str,
        region: str,
        job: str,
        environment: Mapping[str, str] | None = None,
        channel: grpc.Channel | None = None,
    ) -> None:
        """environment: for each worker, over the job's own. channel: to another server than Google's."""
        self.job = f"projects/{project}/locations/{region}/jobs/{job}"
        self._environment, self._channel = dict(environment or {}), channel
        self._lock = threading.Lock()
        self._jobs: run_v2.JobsClient | None = None
        self._executions: run_v2.ExecutionsClient | None = None

    def start(self, count: int, wake: str, reason: str) -> Sequence[str]:
        """As in the protocol, one call for each worker."""
        started: list[str] = []
        begin = time.monotonic()
        while len(started) < count and time.monotonic() - begin < ALL_S:
            try:
                started.append(self._run(wake, reason))
            except (QuotaExceeded, NotAllowed):
                if started:
                    break
                raise
        return started

    def executions(self) -> Sequence[Execution]:
        """As in the protocol. All pages are read: no order of them is promised."""
        with self._translated("see its executions", "roles/run.viewer"):
            request = run_v2.ListExecutionsRequest(parent=self.job, page_size=PAGE)
            listed = [_execution(each) for each in self._open()[1].list_executions(request, timeout=CALL_S, retry=None)]
        now = time.time()
        return [each for each in listed if each.is_up or now - (each.ended_at or 0.0) < KEPT_S]

    def cancel(self, id: str) -> None:
        """As in the protocol: Cloud Run sends SIGTERM, and kills ten seconds later."""
        with self._translated("cancel an execution", "roles/run.jobsExecutorWithOverrides"):
            request = run_v2.CancelExecutionRequest(name=f"{self.job}/executions/{id}")
            try:
                self._open()[1].cancel_execution(request, timeout=CALL_S, retry=None)
            except exceptions.FailedPrecondition:
                return  # it has ended
            except exceptions.NotFound as exc:
                raise NotAllowed(f"there is no worker {id} of {self.job}; see: nightreel workers") from exc

    def _run(self, wake: str, reason: str) -> str:
        told = {**self._environment, WAKE: wake, ROUTE: reason}
        environment = [run_v2.EnvVar(name=name, value=value) for name, value in told.items()]
        override = run_v2.RunJobRequest.Overrides.ContainerOverride(env=environment)
        overrides = run_v2.RunJobRequest.Overrides(container_overrides=[override], task_count=1)
        with self._translated("start it", "roles/run.jobsExecutorWithOverrides"):
            request = run_v2.RunJobRequest(name=self.job, overrides=overrides)
            operation = self._open()[0].run_job(request, timeout=CALL_S, retry=None)
            return str(operation.metadata.name).rpartition("/")[2]

    def _open(self) -> tuple[run_v2.JobsClient, run_v2.ExecutionsClient]:
        """At the first use, so that a dispatcher starts without credentials and says what is missing."""
        with self._lock:
            if self._jobs is None or self._executions is None:
                channel = self._channel
                self._jobs = run_v2.JobsClient(transport=JobsGrpcTransport(channel=channel) if channel else None)
                self._executions = run_v2.ExecutionsClient(
                    transport=ExecutionsGrpcTransport(channel=channel) if channel else None
                )
            return self._jobs, self._executions

    @contextmanager
    def _translated(self, doing: str, role: str) -> Iterator[None]:
        try:
            yield
        except exceptions.PermissionDenied as exc:
            raise NotAllowed(
                f"may not {doing} ({self.job}): grant {role} on the job to the dispatcher's account"
            ) from exc
        except exceptions.NotFound as exc:
            mend = "deploy it, or set NIGHTREEL_DISPATCHER_PROJECT, _REGION and _JOB"
            raise NotAllowed(f"there is no job {self.job}: {mend}") from exc
        except (exceptions.Unauthenticated, GoogleAuthError) as exc:
            raise NotAllowed(f"no credentials for Google Cloud ({exc}): {LOG_IN}") from exc
        except exceptions.ResourceExhausted as exc:
            raise QuotaExceeded(f"Cloud Run has no quota left to {doing}: {exc.message}", QUOTA_S) from exc
        except (exceptions.InvalidArgument, exceptions.FailedPrecondition) as exc:
            raise NotAllowed(f"Cloud Run refused to {doing} ({self.job}): {exc.message}") from exc
        except (exceptions.GoogleAPICallError, exceptions.RetryError) as exc:
            words = exc.message or type(exc).__name__
            raise LauncherUnavailable(f"Cloud Run did not answer when asked to {doing}: {words}") from exc


def _execution(found: run_v2.Execution) -> Execution:
    words = next((each.message for each in found.conditions if each.type_ == "Completed" and each.message), "")
    return Execution(
        id=found.name.rpartition("/")[2],
        state=_state(found),
        started_at=found.create_time.timestamp(),
        wake=_wake(found),
        ended_at=found.completion_time.timestamp() if found.completion_time else None,
        words=" ".join(part for part in (words, f"log: {found.log_uri}" if found.log_uri else "") if part),
    )


def _state(found: run_v2.Execution) -> State:
    if found.completion_time:
        return "failed" if found.failed_count else "ended"
    return "running" if found.running_count else "starting"


def _wake(found: run_v2.Execution) -> str:
    """The environment of an execution is the job's with the overrides in it."""
    variables = [variable for container in found.template.containers for variable in container.env]
    return next((variable.value for variable in variables if variable.name == WAKE), "")
