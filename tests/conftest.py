"""Fixtures that several test files share."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the renderer has it; torch reads it when it is first imported

pytest.register_assert_rewrite("house", "places", "queue_contract", "store_contract")

import far as far_away
import pubsub_emulator
from fake_gcs import NEEDED, FakeGcs, find_binary, running
from house import House  # after the line that makes its assertions tell what they saw
from places import LEASE_S, Places
from proxy import Proxy


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Make a house for real workers, on one machine unless it says where; options go to its model."""
    houses = []

    def make(places: Places | None = None, **options: str) -> House:
        houses.append(House(tmp_path, places, **options))
        return houses[-1]

    yield make
    for house in houses:
        house.close()


@pytest.fixture(params=["one machine", "cloud"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Build houses on each pair of queue and store, several in one test; each has a name and a folder of its own."""
    places = request.getfixturevalue("cloud") if request.param == "cloud" else None
    with houses(tmp_path, places) as house:
        yield house


@contextlib.contextmanager
def houses(folder: Path, cloud: Callable[[], Places] | None) -> Iterator[Callable[..., House]]:
    """Builds houses below `folder`, in the cloud if one is given, and closes them in the end."""
    with contextlib.ExitStack() as stack:

        def build(name: str, lease_s: float = LEASE_S) -> House:
            home = folder / name
            home.mkdir()
            at = cloud() if cloud else Places.on_one_machine(home)
            house = House(home, at.with_lease(lease_s))
            house.environment["NIGHTREEL_CANCEL_CHECK_S"] = "2"  # several at a time would be busy looking
            stack.callback(house.close)
            return house

        yield build


@pytest.fixture
def make_named(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Build several houses on this machine in one test; each has a name and a folder of its own."""
    with houses(tmp_path, None) as house:
        yield house


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """A house whose model makes trouble only when a prompt asks for it."""
    return make_house()


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[FakeGcs]:
    """A fake-gcs-server for all tests of one process; each makes a bucket of its own."""
    if find_binary() is None:
        pytest.skip(NEEDED)
    with running(FakeGcs()) as server:
        yield server


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pubsub_emulator.Emulator]:
    """Google's Pub/Sub emulator, one for all tests."""
    try:
        emulator = pubsub_emulator.Emulator(tmp_path_factory.mktemp("pubsub") / "emulator.log")
    except pubsub_emulator.Missing as exc:
        pytest.skip(str(exc))
    yield emulator
    emulator.stop()


@pytest.fixture
def cloud(
    emulator: pubsub_emulator.Emulator, gcs_server: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Places]:
    """Makes a queue and a bucket of its own on the emulators; this process finds them too."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.host)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    return lambda: Places.in_the_cloud(emulator, gcs_server)


@pytest.fixture(params=["folder", "bucket"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store of each kind; other processes find it too."""
    if request.param == "folder":
        return str(tmp_path / "out")
    server: FakeGcs = request.getfixturevalue("gcs_server")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    server.make_bucket(bucket)
    return f"gs://{bucket}/out"


@pytest.fixture
def far(
    emulator: pubsub_emulator.Emulator,
    make_house: Callable[..., House],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[far_away.Far]:
    """A house in the cloud, with a bucket server of its own, whose workers see both servers through proxies alone."""
    if find_binary() is None:
        pytest.skip(NEEDED)
    pubsub, gcs = Proxy(lambda: emulator.port), Proxy(lambda: server.port)
    server = FakeGcs(tmp_path / "buckets", public_port=gcs.port)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.host)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.port}")
    with contextlib.closing(pubsub), contextlib.closing(gcs), running(server):
        house = make_house(Places.in_the_cloud(emulator, server))
        house.environment |= {"PUBSUB_EMULATOR_HOST": pubsub.host, "STORAGE_EMULATOR_HOST": gcs.url}
        far_away.shorten_ack_deadlines(house)
        yield far_away.Far(house, emulator, server, pubsub, gcs)
        emulator.thaw()


@pytest.fixture(params=["one machine", "cloud"])
def any_house(request: pytest.FixtureRequest, make_house: Callable[..., House]) -> House:
    """A house on each pair of queue and store."""
    return make_house(request.getfixturevalue("cloud")() if request.param == "cloud" else None)
