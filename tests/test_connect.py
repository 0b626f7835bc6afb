"""Addresses choose queues and stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightreel_queue.base import Message
from nightreel_queue.connect import open_queue
from nightreel_queue.errors import QueueUnavailable
from nightreel_storage.connect import open_store
from nightreel_storage.errors import StoreUnavailable
from nightreel_worker.settings import Settings


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    for url in ("sqlite:///here.db", f"sqlite:///{tmp_path}/there.db"):
        open_queue(url).close()

    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["here.db", "there.db"]


def test_the_lease_is_an_option_of_the_address(tmp_path: Path) -> None:
    queue = open_queue(f"sqlite:///{tmp_path}/queue.db?lease_s=33")
    queue.publish([Message(b"x")])

    delivery = queue.pull()

    assert delivery is not None
    assert delivery.lease_s == 33
    queue.close()


@pytest.mark.parametrize("store", ["out", "a#b", "what?", "50%", "with blanks", "naïve"])
def test_the_default_queue_lies_in_the_store_whatever_that_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(store=store)

    open_queue(settings.queue_url).close()

    assert (tmp_path / store / ".nightreel/queue.db").is_file()


def test_a_bucket_has_no_default_queue() -> None:
    with pytest.raises(QueueUnavailable, match="name a queue too"):
        _ = Settings(store="gs://bucket/films").queue_url


@pytest.mark.parametrize(
    "url", ["jobs.db", "sqlite://jobs.db", "sqlite:///", "redis:///x", "sqlite:///x?lease_s=0", "sqlite:///x?leese_s=9"]
)
def test_any_other_address_of_a_queue_is_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(QueueUnavailable, match=r"sqlite:///FILE|lease_s, from 1 to 600"):
        open_queue(url)


def test_a_store_that_is_no_folder_is_refused() -> None:
    with pytest.raises(StoreUnavailable, match="give a folder"):
        open_store("ftp://somewhere/out")
