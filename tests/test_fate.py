"""What each error leads to. An error without a decision, in any package, fails a test here."""

from __future__ import annotations

import ast
import builtins
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightreel_pipelines.errors import (
    BadVideo,
    Cancelled,
    DrawingFailed,
    EncoderFailed,
    FilmFailed,
    InDoubt,
    OutOfMemory,
    PipelineError,
    SourceAway,
    SourceUnavailable,
    Unrenderable,
)
from nightreel_queue.errors import InvalidJob, LeaseLost, Problem, QueueError, QueueUnavailable
from nightreel_storage.batches import IdTaken
from nightreel_storage.errors import BadName, Conflict, Damaged, NotFound, StoreError, StoreFull, StoreUnavailable
from nightreel_storage.receipts import AlreadyEnded, Receipt, utc_now
from nightreel_worker.errors import (
    ChildDied,
    Forbidden,
    GaveUp,
    Missing,
    NameTaken,
    OverLimit,
    PassedOn,
    Preempted,
    Refused,
    RendererUnavailable,
    TooLarge,
    TooLate,
    Unreachable,
    WebError,
    WorkerError,
)
from nightreel_worker.fate import Fate, ends_run, fate_of

ROOT = Path(__file__).parent.parent
DONE = Receipt(state="done", batch="b", job="film", fingerprint="f", ended_at=utc_now())

FATES = [
    # queue
    (InvalidJob([Problem("is no job")]), Fate.REJECT),
    (QueueUnavailable("its file is gone"), Fate.HAND_BACK),
    (LeaseLost("settled by somebody else"), Fate.FORGET),
    (QueueError("anything else"), Fate.RETRY),
    # storage
    (AlreadyEnded(DONE), Fate.ENDED),
    (StoreUnavailable("no such folder"), Fate.HAND_BACK),
    (StoreFull("no room left"), Fate.HAND_BACK),
    (NotFound("deleted by hand just now"), Fate.RETRY),
    (Conflict("somebody was faster"), Fate.RETRY),
    (IdTaken("other content"), Fate.RETRY),
    (BadName("leads through a link"), Fate.REJECT),
    (StoreError("b/film.json cannot be read"), Fate.REJECT),
    (Damaged("b/film.json does not fit its checksum"), Fate.REJECT),
    # pipelines
    (Unrenderable("too long a prompt"), Fate.FAIL),
    (OutOfMemory("not enough memory for a keyframe of 2048x2048"), Fate.FAIL),
    (InDoubt("its order was not answered"), Fate.FAIL),
    (Cancelled(), Fate.ENDED),
    (FilmFailed("once"), Fate.RETRY),
    (EncoderFailed("ffmpeg ended early"), Fate.RETRY),
    (BadVideo("too short"), Fate.RETRY),
    (SourceUnavailable("turned into RendererUnavailable or Unrenderable before it gets here"), Fate.RETRY),
    (SourceAway("no server answers"), Fate.POSTPONE),
    (DrawingFailed("node 13 (KSampler): out of luck"), Fate.RETRY),
    (PipelineError("anything else"), Fate.RETRY),
    # worker
    (NameTaken("b/film.mp4 is there already"), Fate.FAIL),
    (GaveUp("after 3 attempts"), Fate.FAIL),
    (ChildDied("killed by SIGSEGV"), Fate.RETRY),
    (Preempted("told to leave"), Fate.HAND_BACK),
    (RendererUnavailable("torch is not installed"), Fate.HAND_BACK),
    (Refused("notify.topic: not one of this worker's"), Fate.FAIL),
    (Forbidden("a private address"), Fate.FAIL),
    (OverLimit("limits.max_seconds: it may take 60 s"), Fate.FAIL),
    (TooLate("limits.not_after: that has passed"), Fate.FAIL),
    (PassedOn("sketcher cannot make a walk"), Fate.PASS_ON),
    (Missing("there is no gs://pictures/x.png"), Fate.FAIL),
    (TooLarge("more than 20 MB"), Fate.FAIL),
    (Unreachable("no answer within 5 s"), Fate.RETRY),
    (WebError("anything else"), Fate.RETRY),
    (WorkerError("anything else"), Fate.RETRY),
    # and what nobody foresaw
    (OSError("disk of the scratch folder"), Fate.RETRY),
    (KeyError("a mistake of ours"), Fate.RETRY),
]

END_THE_RUN = {QueueUnavailable, StoreUnavailable, StoreFull, RendererUnavailable}

NEVER_AT_THE_LOOP = {
    "Unreadable": "parsers turn it into InvalidJob",
    "ObjectTooLarge": "`Inputs` turns it into TooLarge",
    "BadBackends": "`nightreel serve` and `nightreel backends` tell it",
    "BadEvent": "the dispatcher answers with it",
    "Busy": "the dispatcher takes the event when it comes again",
    "LauncherError": "the waker and the commands tell it",
    "LauncherUnavailable": "as LauncherError",
    "NoneMay": "as LauncherError",
    "QuotaExceeded": "as LauncherError",
    "NotAllowed": "as LauncherError",
    "NoMachine": "as LauncherError; the launcher of pods tries the next GPU first",
    "NoSuchPod": "as LauncherError",
    "Unfit": "as LauncherError",
    "NoPod": "`nightreel pods work` tells it",
    "NoFigures": "the waker tells it",
    "CannotServe": "`nightreel serve` tells it",
    "NotProven": "the dispatcher answers with it",
    "NotHad": "`nightreel download` tells it",
    "BadPrice": "a worker with a price that is none does not start",
    "BadSound": "the renderer turns it into Unrenderable",
    "BadTrace": "`nightreel simulate` tells it",
    "Changed": "`nightreel enqueue` tells it",
    "Unfilled": "manifests turn it into InvalidJob",
    "_Unusable": "manifests turn it into InvalidJob",
    "BadPicture": "the renderer turns it into Unrenderable",
    "ServerError": "ComfyUI's source decides: another server, DrawingFailed, SourceAway or Unrenderable",
    "Gone": "as ServerError",
    "Overloaded": "as ServerError",
    "NoEntry": "as ServerError",
    "PromptRefused": "as ServerError",
    "NodeFailed": "as ServerError",
    "Silent": "as ServerError",
    "Forgotten": "as ServerError",
    "CalledOff": "as ServerError; what called it off is raised",
    "NoPng": "ComfyUI's server turns it into Unrenderable",
    "BrokenPng": "ComfyUI's server turns it into a ServerError",
    "_BusyError": "Gemini's source waits, and turns it into SourceAway",
    "_AgainError": "`Renderer.render` starts again on it",
}


@pytest.mark.parametrize(("error", "fate"), FATES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_fate(error: Exception, fate: Fate) -> None:
    assert fate_of(error) is fate


@pytest.mark.parametrize("error", [error for error, _ in FATES], ids=lambda error: type(error).__name__)
def test_a_run_ends_only_with_what_every_other_job_would_meet_as_well(error: Exception) -> None:
    assert ends_run(error) is (type(error) in END_THE_RUN)


def test_every_error_of_every_package_has_a_decision() -> None:
    decided = {type(error).__name__ for error, _ in FATES} | NEVER_AT_THE_LOOP.keys()

    assert sorted(set(error_classes()) - decided) == []


def test_no_decision_outlives_its_error() -> None:
    ours = {type(error).__name__ for error, _ in FATES if not hasattr(builtins, type(error).__name__)}

    assert sorted((ours | NEVER_AT_THE_LOOP.keys()) - set(error_classes())) == []


@pytest.mark.parametrize("package", ["queue", "storage", "pipelines", "worker"])
def test_the_tree_in_the_docstring_is_the_tree_of_the_errors(package: str) -> None:
    module = importlib.import_module(f"nightreel_{package}.errors")
    lines = (module.__doc__ or "").split("\n\n", 1)[1].splitlines()

    # Each line names a class, indented below its base
    drawn: list[tuple[str, str]] = []
    above: dict[int, str] = {}
    for line in lines:
        name = line.lstrip("│├└─ ").split()[0]
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        above[depth] = name
        drawn.append((name, above[depth - 1] if depth else "Exception"))

    built = {
        (each.__name__, each.__base__.__name__ if each.__base__ else "")
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Exception)
    }
    assert set(drawn) == built


def error_classes() -> Iterator[str]:
    """Names of the exception classes in our packages, read from their sources so that no torch is imported."""
    bases = dict(classes())
    for name in bases:
        line = [name]
        while line[-1] in bases and bases[line[-1]]:
            line.append(bases[line[-1]])
        known = getattr(builtins, line[-1], None)
        if isinstance(known, type) and issubclass(known, BaseException):
            yield name


def classes() -> Iterator[tuple[str, str]]:
    """Classes of our packages, and the first base of each."""
    for file in sorted(ROOT.glob("*/nightreel*/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield node.name, ast.unparse(node.bases[0]).rpartition(".")[2] if node.bases else ""
