"""pods: workers on RunPod. Each is a pod of ours, told by its name; others in the account are never touched."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import typer

from nightreel_dispatcher.launchers.base import LauncherError, NotAllowed
from nightreel_dispatcher.launchers.runpod import Launched, RunPod, end, resume, stop
from nightreel_dispatcher.launchers.runpod_api import RunPodApi
from nightreel_dispatcher.launchers.runpod_order import prefix
from nightreel_dispatcher.launchers.runpod_settings import RunPodSettings
from nightreel_dispatcher.launchers.runpod_shapes import Pod
from nightreel_dispatcher.own_pod import NoPod, OwnPod, work_command
from nightreel_dispatcher.pod_start import Outcome, PodStart
from nightreel_dispatcher.pods import find_silent, look, sweep
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_storage.connect import open_store
from nightreel_storage.receipts import utc_now
from nightreel_worker.settings import Settings

from .common import (
    EXIT_BAD_INPUT,
    EXIT_NOT_ALL_MADE,
    EXIT_OK,
    EXIT_UNAVAILABLE,
    JsonFlag,
    ModelFlag,
    QueueFlag,
    StoreFlag,
    complain,
    errors_in_one_line,
    settings_of,
    settings_with,
)
from .pods_table import row, show

POLL_S = 5.0  # between two looks at pods that are starting
IdArgument = Annotated[str | None, typer.Argument(help="The pod's id.", show_default=False)]
AllFlag = Annotated[bool, typer.Option("--all", help="All pods of this store.")]

pods = typer.Typer(help="Workers on RunPod.", no_args_is_help=True)


@pods.command("start")
def pods_start(
    count: Annotated[int, typer.Option("-n", "--count", help="How many.", min=1, max=100)] = 1,
    gpu: Annotated[str | None, typer.Option("--gpu", help="GPUs that will do, the best first, by commas.")] = None,
    spot: Annotated[
        bool | None, typer.Option("--spot/--on-demand", help="Spot pods, which may be taken away; or not.")
    ] = None,
    queue: QueueFlag = None,
    store: StoreFlag = None,
    model: ModelFlag = None,
) -> None:
    """Start pods, and wait until the worker of each is at work."""
    settings = settings_with(queue=queue, store=store, model=model)
    own = settings_of(RunPodSettings, gpus=gpu, spot=spot)
    with _errors_in_one_line():
        launcher = RunPod.of(settings, own)
        kept = open_store(settings.store)  # raises before anything is paid
        begun = utc_now()
        launched = launcher.launch(count, f"{begun:%Y%m%dT%H%M%S}-{os.urandom(2).hex()}")
        _tell_prices(launched)
        api = RunPodApi(own.key, own.endpoint)
        starts = [PodStart(api, kept, each.id, own.ready_timeout_s, begun, _print) for each in launched]
        outcomes = _wait(starts)
    for each in outcomes:
        words = "ready" if each.ready else "not ready"
        _print(f"{each.id}: {words} after {each.paid_s:.0f} s, which cost {each.usd:.4f} USD; {each.words}")
    if len(launched) < count:
        complain(f"{len(launched)} of {count} pods could be started: RunPod has no more such machines now")
    if len(launched) < count or not all(each.ready for each in outcomes):
        raise typer.Exit(EXIT_NOT_ALL_MADE)


@pods.command("list")
def pods_list(store: StoreFlag = None, as_json: JsonFlag = False) -> None:
    """Say which pods there are, what they do and what they cost."""
    settings, _, api = _open(store)
    with _errors_in_one_line():
        found = look(api, open_store(settings.store, make=False), prefix(settings.store))
    now = time.time()
    if as_json:
        print(json.dumps({"pods": [row(each, now) for each in found]}))
    else:
        show(found, now)


@pods.command("stop")
def pods_stop(id: IdArgument = None, every: AllFlag = False, store: StoreFlag = None) -> None:
    """Stop pods: their workers leave in order, and nothing is billed for their GPUs any more."""
    _each(store, id, every, lambda pod: pod.is_up, stop, "stopped")


@pods.command("resume")
def pods_resume(
    id: Annotated[str, typer.Argument(help="The pod's id.", show_default=False)], store: StoreFlag = None
) -> None:
    """Start a pod again that was stopped."""
    own = settings_of(RunPodSettings)

    def begin(api: RunPodApi, id: str) -> None:
        resume(api, id, own.max_usd_per_hour)

    _each(store, id, False, lambda pod: not pod.is_up, begin, "started")


@pods.command("terminate")
def pods_terminate(id: IdArgument = None, every: AllFlag = False, store: StoreFlag = None) -> None:
    """Delete pods, running or stopped. A network volume stays."""
    _each(store, id, every, lambda pod: True, end, "deleted")


@pods.command("sweep")
def pods_sweep(
    really: Annotated[bool, typer.Option("--stop", help="Stop them; without this flag nothing is changed.")] = False,
    store: StoreFlag = None,
) -> None:
    """Say which pods cost although no worker is at work there."""
    settings, own, api = _open(store)
    with _errors_in_one_line():
        seen = look(api, open_store(settings.store, make=False), prefix(settings.store))
    silent = find_silent(seen, utc_now(), own.ready_timeout_s, own.silent_s)
    swept = sweep(api, silent) if really else silent
    for each in swept:
        done = f"NOT STOPPED: {each.problem}" if each.problem else "stopped" if really else "to be stopped"
        _print(f"{each.seen.pod.id}: {each.why}, {each.seen.pod.cost:g} USD an hour: {done}")
    if not silent:
        _print(f"{sum(each.pod.is_up for each in seen)} pods are up, none is silent.")
    elif not really:
        _print("Nothing was stopped: add --stop to stop these.")
    if any(each.problem for each in swept):
        raise typer.Exit(EXIT_UNAVAILABLE)


@pods.command("work")
def pods_work() -> None:
    """In a pod: work until nothing waits, then delete the pod, whatever happened."""
    try:
        pod = OwnPod(os.environ, complain)
    except NoPod as exc:
        complain(str(exc))
        raise typer.Exit(EXIT_BAD_INPUT) from None
    pod.run(work_command())


def _open(store: str | None) -> tuple[Settings, RunPodSettings, RunPodApi]:
    settings, own = settings_with(store=store), settings_of(RunPodSettings)
    with _errors_in_one_line():
        return settings, own, RunPodApi(own.key, own.endpoint)


def _wait(starts: Sequence[PodStart]) -> list[Outcome]:
    waiting, outcomes = list(starts), list[Outcome]()
    try:
        while waiting:
            looked = {each: each.look(utc_now()) for each in waiting}
            outcomes += [outcome for outcome in looked.values() if outcome]
            waiting = [each for each, outcome in looked.items() if outcome is None]
            time.sleep(POLL_S if waiting else 0.0)
    except KeyboardInterrupt:
        complain("the pods go on: nightreel pods list")
        raise
    return outcomes


def _tell_prices(launched: Sequence[Launched]) -> None:
    for each in launched:
        _print(f"{each.id}: {each.gpu}, {each.usd_per_hour:g} USD an hour")
        if abs(each.usd_per_hour - each.listed_usd_per_hour) > 0.0005:
            _print(f"{each.id}: it was listed at {each.listed_usd_per_hour:g} USD an hour")


def _each(
    store: str | None,
    id: str | None,
    every: bool,
    wanted: Callable[[Pod], bool],
    act: Callable[[RunPodApi, str], None],
    done: str,
) -> None:
    """Do something to one pod, or to all of ours that it applies to. One that cannot be had does not keep the others."""
    settings, _, api = _open(store)
    with _errors_in_one_line():
        if bool(id) == every:
            raise InvalidJob([Problem("give the id of a pod, or --all")])
        ours = api.pods(prefix(settings.store))
        chosen = [pod for pod in ours if (wanted(pod) if every else pod.id == id)]
        if id and not chosen:
            raise InvalidJob([Problem(f"{id} is no pod of {settings.store}; see: nightreel pods list")])
    exit_code = EXIT_OK
    for pod in chosen:
        try:
            act(api, pod.id)
        except LauncherError as exc:
            complain(f"{pod.id}: not {done}: {exc}")
            exit_code = max(exit_code, EXIT_BAD_INPUT if isinstance(exc, NotAllowed) else EXIT_UNAVAILABLE)
        else:
            _print(f"{pod.id}: {done}")
    if not chosen:
        _print(f"no pod is there to be {done}")
    if exit_code:
        raise typer.Exit(exit_code)


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        with errors_in_one_line():
            yield
    except LauncherError as exc:
        complain(str(exc))
        raise typer.Exit(EXIT_BAD_INPUT if isinstance(exc, NotAllowed) else EXIT_UNAVAILABLE) from None


def _print(text: str) -> None:
    print(text, flush=True)
