"""doctor says what is wrong, and what to do about it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from house import House

DOCTOR = (sys.executable, "-m", "nightreel", "doctor")


def test_a_sound_house_is_fine_however_often_it_is_asked(house: House) -> None:
    for _ in range(2):
        run = house.work(*DOCTOR)

        assert run.code == 0, run.err
        assert run.out.splitlines() == ["Python: fine", "queue: fine", "store: fine"]


def test_everything_that_is_wrong_is_told_with_the_mend(house: House) -> None:
    (house.folder / "file").write_text("in the way")

    run = house.work(*DOCTOR, queue=f"sqlite:///{house.folder}", store=str(house.folder / "file"))

    assert run.code == 3
    python, queue, store = run.out.splitlines()
    assert python == "Python: fine"
    assert queue.startswith("queue: ")
    assert "is a folder: name a file in it" in queue
    assert str(Path(house.folder / "file")) in store


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("echo 'NVIDIA L4, 535.216.03, 23034 MiB'", "GPU: NVIDIA L4, driver 535.216.03, 23034 MiB"),
        ("echo 'No devices were found'; exit 6", "GPU: there is none that can be used: No devices were found"),
    ],
)
def test_a_gpu_is_told_with_its_driver(house: House, tmp_path: Path, program: str, told: str) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(f"#!/bin/sh\n{program}\n")
    smi.chmod(0o755)
    house.environment["PATH"] = f"{smi.parent}{os.pathsep}{os.environ['PATH']}"

    assert house.work(*DOCTOR).out.splitlines()[0] == told
