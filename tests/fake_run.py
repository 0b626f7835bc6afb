"""A local server that speaks Cloud Run's and Cloud Monitoring's gRPC, with Google's own messages, and has faults on demand."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]  # has no types
from google.cloud import monitoring_v3, run_v2
from google.longrunning import operations_pb2  # type: ignore[import-untyped]  # has no types
from google.protobuf import any_pb2

JOB = "projects/demo/locations/us-central1/jobs/worker"
RUN, MONITORING = "google.cloud.run.v2", "google.monitoring.v3.MetricService"
Answer = Callable[[Any, grpc.ServicerContext], Any]


@dataclass(slots=True)
class Fault:
    """What happens to a method's next calls."""

    code: grpc.StatusCode
    words: str = "as the test asked"
    times: int = 10**6
    spared: int = 0
    """Calls that go well before."""
    after: bool = False
    """Is it done before the caller is told otherwise?"""


@dataclass(slots=True)
class FakeRun:
    """One job, its executions, and samples of subscriptions. Times are seconds since the epoch, by `now`."""

    now: Callable[[], float] = time.time
    dies: str = ""
    """With these words every execution fails at once."""
    slow_s: float = 0.0
    meanwhile: Callable[[], object] | None = None
    """Done once, between a list and its answer."""
    calls: Counter[str] = field(default_factory=Counter)
    faults: dict[str, Fault] = field(default_factory=dict)
    executions: dict[str, run_v2.Execution] = field(default_factory=dict)
    samples: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    """By subscription: when it was sampled, messages, age of the oldest in seconds."""
    port: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.port}")

    @property
    def up(self) -> list[str]:
        return [name for name, each in self.executions.items() if not each.completion_time]

    def end(self, id_: str, *, failed: str = "", at: float | None = None) -> None:
        """An execution ends, well unless there are words for its failure."""
        found = self.executions[id_]
        found.running_count, found.completion_time = 0, _time(self.now() if at is None else at)
        found.failed_count, found.succeeded_count = (1, 0) if failed else (0, 1)
        state = run_v2.Condition.State.CONDITION_FAILED if failed else run_v2.Condition.State.CONDITION_SUCCEEDED
        found.conditions = [run_v2.Condition(type_="Completed", state=state, message=failed)]

    def run(self, request: run_v2.RunJobRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        if request.name != JOB:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Resource '{request.name}' of kind 'JOB' does not exist")
        [override] = request.overrides.container_overrides
        with self._lock:
            id_ = f"worker-{len(self.executions):05d}"
            self.executions[id_] = run_v2.Execution(
                name=f"{JOB}/executions/{id_}",
                create_time=_time(self.now()),
                task_count=request.overrides.task_count,
                template=run_v2.TaskTemplate(containers=[run_v2.Container(image="worker", env=override.env)]),
                log_uri=f"https://console.cloud.google.com/logs/{id_}",
            )
            answer = any_pb2.Any()
            answer.Pack(run_v2.Execution.pb(self.executions[id_]))
            if self.dies:
                self.end(id_, failed=self.dies)
        return operations_pb2.Operation(name=f"projects/demo/operations/{id_}", metadata=answer)

    def list(self, request: run_v2.ListExecutionsRequest, _: grpc.ServicerContext) -> run_v2.ListExecutionsResponse:
        """Oldest first, and two a page: nobody promises another order."""
        begin = int(request.page_token or 0)
        page = list(self.executions.values())[begin : begin + 2]
        more = str(begin + 2) if begin + 2 < len(self.executions) else ""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        return run_v2.ListExecutionsResponse(executions=page, next_page_token=more)

    def cancel(self, request: run_v2.CancelExecutionRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        id_ = request.name.rpartition("/")[2]
        if id_ not in self.executions:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such execution")
        if id_ not in self.up:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it has ended")
        self.end(id_)
        self.executions[id_].succeeded_count, self.executions[id_].cancelled_count = 0, 1
        return operations_pb2.Operation(name=f"projects/demo/operations/cancel-{id_}")

    def time_series(
        self, request: monitoring_v3.ListTimeSeriesRequest, context: grpc.ServicerContext
    ) -> monitoring_v3.ListTimeSeriesResponse:
        if "one_of(" not in request.filter or request.name != "projects/demo":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, request.filter)
        index = 1 if "num_undelivered_messages" in request.filter else 2
        series = [
            _series(name, sample[0], int(sample[index]))
            for name, sample in self.samples.items()
            if f'"{name}"' in request.filter
        ]
        return monitoring_v3.ListTimeSeriesResponse(time_series=series)

    def faulty(self, name: str, answer: Answer) -> Answer:
        def called(request: Any, context: grpc.ServicerContext) -> Any:
            self.calls[name] += 1
            time.sleep(self.slow_s)
            fault = self.faults.get(name)
            if fault and fault.spared > 0:
                fault.spared -= 1
            elif fault and fault.times > 0:
                fault.times -= 1
                if fault.after:
                    answer(request, context)
                context.abort(fault.code, fault.words)
            return answer(request, context)

        return called


@contextlib.contextmanager
def running(server: FakeRun) -> Iterator[FakeRun]:
    """Serve until the end."""
    methods: dict[str, dict[str, tuple[Answer, Any, Any]]] = {
        f"{RUN}.Jobs": {"RunJob": (server.run, run_v2.RunJobRequest, operations_pb2.Operation)},
        f"{RUN}.Executions": {
            "ListExecutions": (server.list, run_v2.ListExecutionsRequest, run_v2.ListExecutionsResponse),
            "CancelExecution": (server.cancel, run_v2.CancelExecutionRequest, operations_pb2.Operation),
        },
        MONITORING: {
            "ListTimeSeries": (
                server.time_series,
                monitoring_v3.ListTimeSeriesRequest,
                monitoring_v3.ListTimeSeriesResponse,
            )
        },
    }
    grpc_server = grpc.server(ThreadPoolExecutor(8))
    for service, its in methods.items():
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                server.faulty(name, answer), request_deserializer=asked.deserialize, response_serializer=_bytes(given)
            )
            for name, (answer, asked, given) in its.items()
        }
        grpc_server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    try:
        yield server
    finally:
        grpc_server.stop(0).wait()


def _bytes(kind: Any) -> Callable[[Any], bytes]:
    serialize: Callable[[Any], bytes] = (
        operations_pb2.Operation.SerializeToString if kind is operations_pb2.Operation else kind.serialize
    )
    return serialize


def _series(subscription: str, at: float, value: int) -> monitoring_v3.TimeSeries:
    """Two points, the older one first: the API's order is another, and nobody promises one."""
    points = [
        monitoring_v3.Point(
            interval=monitoring_v3.TimeInterval(end_time=_time(moment)),
            value=monitoring_v3.TypedValue(int64_value=its),
        )
        for moment, its in ((at - 60, 10**6), (at, value))
    ]
    resource = {"type": "pubsub_subscription", "labels": {"subscription_id": subscription}}
    return monitoring_v3.TimeSeries(resource=resource, points=points)


def _time(moment: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC)
