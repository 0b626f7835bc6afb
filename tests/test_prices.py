"""Prices: by name from a dated list, or a number of dollars an hour."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from nightreel_worker.errors import BadPrice
from nightreel_worker.prices import Price, find_price, load_prices, machine_price


def write(folder: Path, text: str) -> Path:
    file = folder / "prices.toml"
    file.write_text(text)
    return file


def test_every_built_in_price_is_dated_and_says_what_it_is_of() -> None:
    for price in load_prices().values():
        assert price.dated is not None, price.name
        assert price.dated <= dt.datetime.now(dt.UTC).date(), price.name
        assert price.summary, price.name


def test_a_machine_costs_the_sum_of_its_parts() -> None:
    price = load_prices()["cloudrun-l4"]

    assert price.machine_usd_per_s == pytest.approx(0.0001867 + 8 * 0.000018 + 32 * 0.000002)
    assert price.machine_usd_per_hour == pytest.approx(1.42, abs=0.01)
    assert not price.of_a_service


def test_a_machine_without_a_gpu_has_a_price_of_parts_too(tmp_path: Path) -> None:
    prices = load_prices(write(tmp_path, "[cpu]\nvcpus = 2\nvcpu_usd_per_s = 0.00001\n"))

    assert prices["cpu"].machine_usd_per_s == pytest.approx(0.00002)


def test_the_operators_file_adds_prices_and_replaces_built_in_ones(tmp_path: Path) -> None:
    file = write(tmp_path, "[ours]\nusd_per_s = 0.5\n[local]\nusd_per_s = 0.001\ndated = 2026-01-02\n")

    assert find_price("ours", file).machine_usd_per_s == 0.5
    assert find_price("local", file).machine_usd_per_s == 0.001
    assert find_price("local", file).dated == dt.date(2026, 1, 2)
    assert find_price("cloudrun-l4", file) == find_price("cloudrun-l4")
    assert find_price("local").machine_usd_per_s == 0.0


def test_a_number_is_dollars_an_hour() -> None:
    assert find_price("1.8").machine_usd_per_s == pytest.approx(0.0005)
    assert find_price("0").machine_usd_per_s == 0.0
    assert find_price("1.8").name == "1.8 USD an hour"


@pytest.mark.parametrize("text", ["cloudrun-l5", "", "nan", "inf", "-1", "1,42", "$2"])
def test_a_price_that_is_none_is_told_with_those_there_are(text: str) -> None:
    with pytest.raises(BadPrice, match=r"Give US dollars an hour, or one of cloudrun-l4, .*local"):
        find_price(text)


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(BadPrice, match=r"no price 'cloudrun-l5': did you mean cloudrun-l4\?"):
        find_price("cloudrun-l5")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a]\n", "a: give one of the three: usd_per_s, its parts, or usd_per_video_s"),
        ("[a]\nusd_per_s = 1.0\nvcpus = 2\n", "a: give one of the three"),
        ("[a]\nusd_per_s = 1.0\nusd_per_video_s = 1.0\n", "a: give one of the three"),
        ("[a]\nusd_per_s = -1.0\n", "a.usd_per_s: .*greater than or equal to 0"),
        ("[a]\nusd_per_s = nan\n", "a.usd_per_s: .*finite"),
        ("[a]\nusd_per_h = 1.0\n", "a.usd_per_h: Extra"),
        ("usd_per_s = 1.0\n", r"usd_per_s stands outside a table: write \[NAME\] above it"),
        ("[a\n", "at line 1"),
    ],
)
def test_a_file_of_prices_that_makes_no_sense_is_refused_with_the_place(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(BadPrice, match=rf"cannot use prices file .*prices\.toml: .*{complaint}"):
        load_prices(write(tmp_path, text))


def test_a_file_of_prices_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadPrice, match=r"cannot use prices file .*none\.toml"):
        load_prices(tmp_path / "none.toml")


def test_a_service_is_paid_by_the_second_of_video_and_is_no_workers_price() -> None:
    service = find_price("gemini-veo")

    assert service.of_a_service
    assert service.cost_usd(seconds=100.0, video_s=8.0) == pytest.approx(3.2)
    with pytest.raises(BadPrice, match="price gemini-veo: is a service's"):
        machine_price("gemini-veo")
    assert machine_price("2").cost_usd(seconds=1800.0, video_s=8.0) == pytest.approx(1.0)


def test_a_price_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Price(name="x", usd_per_s=1.0).usd_per_s = 2.0  # type: ignore[misc]  # that is the point
