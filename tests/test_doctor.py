"""doctor says what is wrong, and what to do about it."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from house import House, Run

DOCTOR = (sys.executable, "-m", "nightreel", "doctor")
CHECKS = ["python", "torch", "ffmpeg", "fonts", "weights", "scratch", "prices", "queue", "store"]


def lines(run: Run) -> dict[str, tuple[str, str]]:
    """State and message, by what was looked at."""
    split = [(line[:4].strip(), *line[6:].split(": ", 1)) for line in run.out.splitlines()]
    return {check: (state, message) for state, check, message in split}


def program(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def without_figures(told: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """What does not change from one moment to the next: others write to the same disk."""
    return {check: (state, re.sub(r"[\d.]+ GB free", "GB free", words)) for check, (state, words) in told.items()}


def test_a_sound_house_is_fine_however_often_it_is_asked(house: House) -> None:
    first, second = house.work(*DOCTOR), house.work(*DOCTOR, "--json")

    assert (first.code, second.code) == (0, 0), first.out
    assert list(lines(first)) == CHECKS
    assert "fail" not in {state for state, _ in lines(first).values()}
    told = json.loads(second.out)
    assert told["ok"]
    seen = {each["check"]: (each["state"], each["message"]) for each in told["checks"]}
    assert without_figures(seen) == without_figures(lines(first))

    # And it tells what there is
    assert lines(first)["python"] == ("ok", sys.version.split()[0])
    assert " on " in lines(first)["torch"][1]
    assert lines(first)["ffmpeg"][1].endswith("with libx264 and aac")
    assert lines(first)["scratch"][1].startswith(f"{house.scratch} has ")


def test_everything_that_is_wrong_is_told_with_the_mend(house: House) -> None:
    file = house.folder / "file"
    file.write_text("in the way")
    house.environment["IMAGEIO_FFMPEG_EXE"] = program(house.folder, "echo ' V..... h264_other  another encoder'")

    run = house.work(
        *DOCTOR,
        queue=f"sqlite:///{house.folder}",
        store=str(file),
        model="flux-schnell",
        scratch=str(file / "scratch"),
        price="cheap",
    )

    assert run.code == 3
    told = lines(run)
    assert {check for check, (state, _) in told.items() if state == "fail"} == {
        "ffmpeg", "weights", "scratch", "prices", "queue", "store",
    }  # fmt: skip
    assert "is a folder: name a file in it" in told["queue"][1]
    assert str(file) in told["store"][1]
    assert "lacks libx264 and aac: unset IMAGEIO_FFMPEG_EXE" in told["ffmpeg"][1]
    assert "set NIGHTREEL_WEIGHTS to the folder that holds flux-schnell/" in told["weights"][1]
    assert "set NIGHTREEL_SCRATCH to a folder that can" in told["scratch"][1]
    assert told["prices"][1].startswith("no price 'cheap'")


def test_a_gpu_that_torch_does_not_see_is_told(house: House) -> None:
    folder = house.folder / "bin"
    folder.mkdir()
    (folder / "torch.py").write_text(
        "class cuda:\n is_available = staticmethod(lambda: False)\n__version__ = '9.9+cpu'\n"
    )
    Path(program(folder, "echo 535.104")).rename(folder / "nvidia-smi")
    house.environment |= {"PATH": f"{folder}:{os.environ['PATH']}"}
    house.environment["PYTHONPATH"] = f"{folder}:{house.environment['PYTHONPATH']}"

    told = house.work(*DOCTOR)

    assert told.code == 0
    assert lines(told)["torch"] == (
        "warn",
        (
            "9.9+cpu sees no GPU, though there is one (driver 535.104): install requirements.txt, whose torch is built for "
            "CUDA"
        ),
    )


@pytest.mark.parametrize(
    ("torch", "state", "message"),
    [
        (
            "raise ImportError('libcudart.so.12: no such file')",
            "fail",
            "cannot be imported (ImportError: libcudart.so.12",
        ),
        (
            (
                "class cuda:\n is_available = staticmethod(lambda: True)\n"
                " class get_device_properties:\n  name = 'NVIDIA L4'; total_memory = 22 << 30\n"
                "  def __init__(self, number): pass\n__version__ = '9.9'\n"
            ),
            "ok",
            "9.9 on NVIDIA L4, 22.0 GiB",
        ),
    ],
)
def test_torch_is_asked_in_a_process_of_its_own(house: House, torch: str, state: str, message: str) -> None:
    folder = house.folder / "bin"
    folder.mkdir()
    (folder / "torch.py").write_text(torch)
    house.environment["PYTHONPATH"] = f"{folder}:{house.environment['PYTHONPATH']}"

    told = house.work(*DOCTOR)

    assert lines(told)["torch"][0] == state
    assert lines(told)["torch"][1].startswith(message)
