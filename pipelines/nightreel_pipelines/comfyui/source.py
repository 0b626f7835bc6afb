"""Keyframes by ComfyUI: recipes go out as prompts to several servers, pictures come back. Lives in the worker's parent."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings

from ..base import Abilities, Description, Tick
from ..errors import DrawingFailed, SourceUnavailable, Unrenderable
from ..models import ModelSpec
from ..recipe import Recipe
from ..remote import Drawn
from .api import Api
from .errors import CalledOff, Forgotten, NodeFailed, PromptRefused, ServerError, Silent
from .order import DEPTH, Order
from .settings import ComfyuiSettings
from .workflow import Workflow, parse, revision

if TYPE_CHECKING:  # these need websockets, and a plan does not
    from .fleet import Fleet
    from .server import Server

LOOK_S = 0.25  # between two ticks
END_S = 1.5  # that calling off may take
MULTIPLE = 16  # EmptySD3LatentImage takes sides in steps of 16 pixels
SIDES = (16, 16384)  # the least of that node, and ComfyUI's MAX_RESOLUTION


class Options(BaseModel):
    """What models.toml may say under `options`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workflow: tuple[str, ...] = ("package:flux-schnell.json", "package:flux-schnell-over-picture.json")


class ComfyuiSource:
    """Has keyframes drawn by one or several ComfyUI servers."""

    def __init__(self, spec: ModelSpec, settings: BaseSettings | None) -> None:
        """Reads the workflows; asks no server. Raises SourceUnavailable."""
        self._settings = settings if isinstance(settings, ComfyuiSettings) else ComfyuiSettings()
        if find_spec("websockets") is None:
            raise SourceUnavailable(f"model {spec.name} needs websockets: pip install 'nightreel[comfyui]'")
        if not self._settings.addresses:
            raise SourceUnavailable(f"model {spec.name} needs a server: set NIGHTREEL_COMFYUI_SERVERS")
        self._plain, self._over = _workflows(spec, self._settings)
        self._lock = threading.Lock()

    @property
    def lanes(self) -> int:
        """One more than servers: while one job's last keyframe is fetched, the next job's first one is drawn."""
        return len(self._settings.addresses) + 1

    def describe(self) -> Description:
        both = [each for each in (self._plain, self._over) if each]
        can = Abilities(("still", "move"), init=self._over is not None, multiple=MULTIPLE, sides=SIDES)
        return Description("comfyui/1", revision(*both), precision="", device="comfyui", abilities=can)

    def keyframes(self, recipes: Sequence[Recipe], given: Mapping[str, Path], tick: Tick) -> Iterator[Drawn]:
        batch = _Batch(self._fleet, self._settings.retries)
        orders = [self._order(recipe, given) for recipe in recipes]
        try:
            batch.begin(orders, len(self._settings.addresses) * DEPTH)
            for _ in orders:
                yield batch.next(tick)
        finally:
            batch.end()

    def health(self) -> Iterator[tuple[Literal["ok", "fail"], str]]:
        for address in self._settings.addresses:
            try:
                yield "ok", f"{address}: {_stats(Api(address, self._token).stats())}"
            except ServerError as exc:
                yield "fail", str(exc)

    def close(self) -> None:
        with self._lock:
            if "_fleet" in self.__dict__:
                self._fleet.close()

    @cached_property
    def _fleet(self) -> Fleet:
        from .fleet import Fleet

        return Fleet(self._settings.addresses, self._token, self._settings.timeout_s)

    @property
    def _token(self) -> str:
        return self._settings.token.get_secret_value() if self._settings.token else ""

    def _order(self, recipe: Recipe, given: Mapping[str, Path]) -> Order:
        if recipe.start is None:
            return Order(recipe, self._plain, None)
        assert self._over is not None, "abilities.check refuses it"
        return Order(recipe, self._over, given[recipe.start.picture])


@dataclass(slots=True)
class _Batch:
    """The keyframes of one job, drawn by as many threads as servers have room."""

    fleet: Fleet
    retries: int
    off: threading.Event = field(default_factory=threading.Event)
    _todo: queue.SimpleQueue[Order] = field(default_factory=queue.SimpleQueue)
    _done: queue.SimpleQueue[Drawn | Exception] = field(default_factory=queue.SimpleQueue)
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self, orders: Sequence[Order], at_once: int) -> None:
        for order in orders:
            self._todo.put(order)
        for _ in range(min(len(orders), at_once)):
            self._threads.append(threading.Thread(target=self._work, name="keyframe", daemon=True))
            self._threads[-1].start()

    def end(self) -> None:
        """Call off what is under way; waits a moment, so that a process which leaves has told the servers."""
        self.off.set()
        ends_at = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))

    def next(self, tick: Tick) -> Drawn:
        """The next one that is there. Raises what ended one, and what `tick` does."""
        while True:
            try:
                done = self._done.get(timeout=LOOK_S)
            except queue.Empty:
                tick()
                continue
            if isinstance(done, Exception):
                raise done
            tick()
            return done

    def _work(self) -> None:
        while not self.off.is_set():
            try:
                order = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._done.put(self._drawn(order))
            except CalledOff:
                return
            except Exception as exc:  # noqa: BLE001  # raised where it is waited for
                self._done.put(exc)
                return

    def _drawn(self, order: Order) -> Drawn:
        """By some server. Raises Unrenderable, DrawingFailed, SourceAway, SourceUnavailable, CalledOff."""
        refused: dict[Server, PromptRefused] = {}
        failed: list[Server] = []
        while True:
            with self.fleet.taken(order, self.off, [*refused, *failed]) as server:
                try:
                    return Drawn(order.recipe, server.draw(order, self.off), server.device)
                except CalledOff:
                    raise
                except PromptRefused as exc:
                    if server in refused:  # and so was it by every other one that is there
                        raise Unrenderable(f"workflow {order.workflow.name}: {exc}") from exc
                    refused[server] = exc
                    self.fleet.put_aside(server, exc, unless_alone=True)
                except (NodeFailed, Silent, Forgotten) as exc:
                    failed.append(server)
                    if len(failed) > self.retries:
                        raise DrawingFailed(str(exc)) from exc
                    order = replace(order, again=len(failed))
                    self.fleet.put_aside(server, exc, unless_alone=True)
                except ServerError as exc:
                    self.fleet.put_aside(server, exc)


def _stats(said: Mapping[str, Any]) -> str:
    """From /system_stats, such as: ComfyUI 0.3.64, NVIDIA L4, 20.1 of 22.0 GiB free."""
    devices = [each for each in said.get("devices") or () if isinstance(each, dict)]
    parts = [
        f"{each.get('name')}, {each.get('vram_free', 0) / 2**30:.1f} of {each.get('vram_total', 0) / 2**30:.1f} GiB free"
        for each in devices
    ]
    return "; ".join([f"ComfyUI {(said.get('system') or {}).get('comfyui_version', '?')}", *parts])


def _workflows(spec: ModelSpec, settings: ComfyuiSettings) -> tuple[Workflow, Workflow | None]:
    """The one that draws from noise, and the one that draws over a picture. The model's own entry wins."""
    try:
        options = Options.model_validate(spec.options)
    except ValidationError as exc:
        raise SourceUnavailable(f"model {spec.name}: options that ComfyUI's source does not know: {exc}") from exc
    names = options.workflow if "workflow" in options.model_fields_set else settings.workflows or options.workflow
    found = [parse(Path(name.removeprefix("package:")).name, _text(name)) for name in names]
    plain = [each for each in found if not each.over_picture]
    over = [each for each in found if each.over_picture]
    if len(plain) != 1 or len(over) > 1:
        raise SourceUnavailable(
            f"model {spec.name}: NIGHTREEL_COMFYUI_WORKFLOW must name one workflow without nightreel:image, and at most one"
            f" with it; it names {len(plain)} and {len(over)}"
        )
    return plain[0], over[0] if over else None


def _text(name: str) -> str:
    place = (
        files(__package__).joinpath("workflows", name.removeprefix("package:"))
        if name.startswith("package:")
        else Path(name)
    )
    try:
        return place.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise SourceUnavailable(f"workflow {name} cannot be read ({exc}): check NIGHTREEL_COMFYUI_WORKFLOW") from exc
