"""The benchmarks work, and write tables that can be read. Nothing is timed here: figures belong to docs/benchmarks.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pubsub_emulator
import pytest
from fake_gcs import NEEDED, find_binary

BENCH = Path(__file__).parent.parent / "bench"
OTHER_SECTION = "<!-- bench:other -->\n\nkeep me\n\n<!-- /bench:other -->"
RATIO = re.compile(r"\d+\.\d+ \(\d+\.\d+ to \d+\.\d+\)")

proc = pytest.mark.skipif(
    not (Path("/proc/self/smaps_rollup").exists() and Path("/proc/thread-self/children").exists()),
    reason="memory is read from Linux's /proc: smaps_rollup and children",
)


@pytest.fixture(scope="module")
def emulators() -> None:
    """Skips when one of the two is not installed; the benchmarks start their own."""
    if find_binary() is None:
        pytest.skip(NEEDED)
    try:
        pubsub_emulator.find_jar()
    except pubsub_emulator.Missing as exc:
        pytest.skip(str(exc))


def surroundings(folder: Path) -> dict[str, str]:
    """With a folder for temporary files, in which nothing may be left; torch's own cache, which it keeps, is elsewhere."""
    own = {"TMPDIR": str(folder / "tmp"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    return os.environ | own


def bench(script: str, folder: Path, *flags: str, section: str = "", quick: str = "--quick") -> str:
    """Run a benchmark's `quick` mode on a page that has an old section of it and another one; returns the page."""
    section = section or script
    docs = folder / "benchmarks.md"
    docs.write_text(
        f"# By hand\n\n<!-- bench:{section} -->\n\nan old table\n\n<!-- /bench:{section} -->\n\n{OTHER_SECTION}\n"
    )
    (folder / "tmp").mkdir()
    run = subprocess.run(
        (sys.executable, str(BENCH / f"{script}.py"), quick, "--docs", str(docs), *flags),
        env=surroundings(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert str(folder) not in run.stdout
    assert list((folder / "tmp").iterdir()) == []
    text = docs.read_text(encoding="utf-8")
    check_page(text, section, folder)
    return text


def tables(text: str) -> dict[str, list[list[str]]]:
    """The tables of a page by their titles, without the line under the head."""
    found = {}
    for title, body in re.findall(r"^### (.+?)\n\n((?:\|.*\n)+)", text, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
        found[title] = [rows[0], *rows[2:]]
    return found


def check_page(text: str, section: str, folder: Path) -> None:
    assert text.startswith("# By hand\n")
    assert OTHER_SECTION in text
    assert "an old table" not in text
    assert text.count(f"<!-- bench:{section} -->") == text.count(f"<!-- /bench:{section} -->") == 1
    assert "`python bench/" in text
    assert "Machine: " in text
    assert not re.search(r"/(tmp|home|work|root)/", text)
    assert str(folder) not in text
    for rows in tables(text).values():
        assert {len(row) for row in rows} == {len(rows[0])}
        assert all(cell for row in rows for cell in row)


def test_the_batch_benchmark_writes_its_own_section_of_the_docs(tmp_path: Path) -> None:
    text = bench("batch", tmp_path, "--model", "testcard")

    script, gpu, rest = tables(text).values()  # the section of the last two is new on this page
    assert [row[0] for row in script[1:]] == [
        "`nightreel render`",
        "one Python process a video",
        "simple loop, loads once",
    ]
    assert all(RATIO.fullmatch(row[2]) for row in script[2:])
    assert "2 of the script's 2 films are, frame by frame, those of nightreel" in text
    assert all(RATIO.fullmatch(row[2]) for row in gpu[1:])
    assert all(re.fullmatch(r"-?\d+\.\d+ s", row[1]) for row in rest[1:])


@proc
def test_the_memory_benchmark_writes_its_own_section_of_the_docs(tmp_path: Path) -> None:
    text = bench("memory", tmp_path, "--model", "testcard")

    parent, films = tables(text).values()
    assert parent[1][0].startswith("`nightreel work`")
    assert [row[0] for row in films[1:]] == ["renderer", "encoder", "parent", "decoder"]
    seen = [row for row in films[1:] if row[0] != "decoder" or row[1] != "not seen"]  # it lives for some 50 ms here
    assert all(int(cell.removesuffix(" MiB")) > 1 for row in seen for cell in row[1:3])


def test_the_motion_benchmark_writes_its_own_section_of_the_docs(tmp_path: Path) -> None:
    text = bench("motion", tmp_path, "--model", "testcard")

    rebuilt, flicker = tables(text).values()
    assert rebuilt[1][0] == "testsrc2"
    assert all(float(cell) > 10 for cell in rebuilt[1][1:4])
    assert len(flicker) == 6


def test_the_camera_benchmark_writes_its_own_section_of_the_docs(tmp_path: Path) -> None:
    text = bench("camera", tmp_path)

    shaking, speed = tables(text).values()
    assert text.count("<!-- bench:camera -->") == 1
    assert [row[0] for row in shaking[1:]] == ["pan, linear"]
    assert all(float(figure) > 0 for cell in shaking[1][1:] for figure in cell.split(" / "))
    assert [row[0] for row in speed[1:]] == ["pan"]


def test_the_plan_benchmark_writes_its_own_section_of_the_docs(tmp_path: Path) -> None:
    text = bench("plan", tmp_path, "--model", "testcard")

    compared, many, slept = tables(text).values()
    assert [row[0].partition(":")[0] for row in compared[1:]] == ["move"] * 3 + ["walk"] * 3 + ["feedback"] * 3 + [
        "in all"
    ] * 2
    assert all(RATIO.fullmatch(row[3]) for row in (*compared[1:], *slept[1:]))
    assert all(re.match(r"\d+", row[1]) for row in many[1:])


def test_a_quick_run_leaves_the_real_docs_alone(tmp_path: Path) -> None:
    pages = sorted((BENCH.parent / "docs").rglob("*.md"))
    before = [page.read_bytes() for page in pages]

    command = (sys.executable, str(BENCH / "simulate.py"), "--quick")
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=True)

    assert b"clairvoyant" in run.stdout
    assert [page.read_bytes() for page in pages] == before


CLOUD = {
    "jobs": ["workers", "how"],
    "publish": ["how"],
    "claim": ["who waits"],
    "sigterm": ["signal, queue"],
    "memory": ["process"],
    "gpu": ["GPU a job, place"],
}


@proc
@pytest.mark.usefixtures("emulators")
def test_each_measurement_of_the_cloud_benchmark_writes_its_own_section_of_the_docs(tmp_path: Path) -> None:
    text = bench("cloud", tmp_path, section="cloud-jobs")

    for name, heads in CLOUD.items():
        section = text.partition(f"<!-- bench:cloud-{name} -->")[2].partition(f"<!-- /bench:cloud-{name} -->")[0]
        found = list(tables(section).values())
        assert [rows[0][0] for rows in found] == heads
        for rows in found:
            assert {len(row) for row in rows} == {len(rows[0])}
            assert any(re.search(r"[1-9]", cell) for row in rows[1:] for cell in row[1:])


@proc
@pytest.mark.usefixtures("emulators")
def test_a_short_soak_on_both_emulators_ends_every_job_once(tmp_path: Path) -> None:
    text = bench("soak", tmp_path, "--emulators", "--jobs", "30", "--kill-every", "2", section="soak-emulators")

    assert "<!-- bench:soak-emulators -->" in text
    (rows,) = tables(text).values()
    outcome = {row[0]: row[1] for row in rows}
    assert outcome["receipts"] == "30 (30 done)"
    assert outcome["videos whose bytes are what the receipt says"] == "30"
    assert not outcome["killed"].startswith("0")
    assert outcome["messages left in the queue"] == outcome["dead letters"] == outcome["processes left"] == "0"


@proc
def test_the_manifest_benchmark_compares_all_forms_and_writes_its_section(tmp_path: Path) -> None:
    text = bench("manifests", tmp_path)

    assert text.count("<!-- bench:manifests -->") == text.count("<!-- /bench:manifests -->") == 1
    (rows,) = tables(text).values()
    assert [row[0] for row in rows[1:]] == [f"200 rows, {form}" for form in ("CSV", "JSONL", "YAML")]
    assert all(RATIO.fullmatch(row[3]) for row in rows[1:])
    assert all(int(cell.removesuffix(" MiB")) > 1 for row in rows[1:] for cell in row[4:])


def test_the_dispatcher_benchmark_asks_a_real_one_and_writes_its_section(tmp_path: Path) -> None:
    text = bench("dispatcher", tmp_path)

    assert text.count("<!-- bench:dispatcher -->") == text.count("<!-- /bench:dispatcher -->") == 1
    http, drop = tables(text).values()
    assert [row[0] for row in http[1:]] == ["1 at a time", "8 at a time"]
    assert all(float(cell.removesuffix(" ms")) > 0 for row in http[1:] for cell in row[1:])
    assert drop[1][0] == "200 rows, CSV"
    assert float(drop[1][1].removesuffix(" s")) > 1


def test_the_console_benchmark_asks_a_real_one_and_writes_its_section(tmp_path: Path) -> None:
    text = bench("console", tmp_path)

    (pages,) = tables(text).values()
    assert pages[1][0] == "tonight"
    assert pages[2][-1] == "0.0 kB"  # what has not changed is not sent
    assert all(float(row[2].removesuffix(" ms")) > 0 for row in pages[1:])


def test_the_gpu_benchmark_runs_tiny_without_a_gpu_and_writes_its_section(tmp_path: Path) -> None:
    found = tables(bench("gpu", tmp_path, "--only", "diffusers,fp8", quick="--tiny", section="full-flux"))

    assert set(found) == {"4 steps", "Loading", "8-bit weights against bf16"}
    assert [row[0] for row in found["4 steps"][1:]] == ["diffusers"] * 2 + ["fp8"] * 2
    assert all(float(row[3]) > 0 for row in found["4 steps"][1:])
    assert all(0 < float(row[1]) < 0.5 for row in found["8-bit weights against bf16"][1:])


@pytest.mark.usefixtures("emulators")
def test_the_cold_start_benchmark_tells_each_phase(tmp_path: Path) -> None:
    since, phases = tables(bench("cold", tmp_path, "--model", "testcard")).values()

    assert [row[0] for row in since[1:]] == ["plain script", "SQLite and a folder", "emulators"]
    assert all(re.fullmatch(r"\d+\.\d+ s", cell) for row in phases[1:] for cell in row[1:])


def test_the_precision_benchmark_writes_its_section(tmp_path: Path) -> None:
    found = tables(bench("precision", tmp_path))

    assert set(found) == {"Against fp32: pocket", "Against fp32: tiny (untrained)"}
    for rows in found.values():
        assert len(rows) == 5
        assert all(0 < float(row[4]) < 0.5 for row in rows[1:])


def test_the_film_benchmark_writes_its_section(tmp_path: Path) -> None:
    found = list(tables(bench("film", tmp_path)).values())

    whole, stages, presets, eight = found
    assert whole[1][0] == eight[1][0] == "8 camera moves"
    assert whole[-1][0] == "one ffmpeg command with zoompan"
    assert whole[-1][6:8] == ["1.00", "1.00"]
    assert {row[0] for row in stages[1:]} >= {"keyframe from PNG", "camera, a frame", "walk: a frame between"}
    assert [row[0] for row in presets[1:] if row[3] == "1.00"] == ["fast (ours)"]
    assert all(0.9 < float(row[5]) < 1 for row in presets[1:])
    for rows in found:
        assert {len(row) for row in rows} == {len(rows[0])}


def test_the_load_benchmark_times_loaders_until_the_first_step(tmp_path: Path) -> None:
    loads, phases = tables(bench("load", tmp_path)).values()

    assert [row[0] for row in loads[1:]] == ["from_pretrained, bf16, cold", "ours, fp8, cold"]
    assert [row[0] for row in phases[1:]] == ["from_pretrained, bf16", "ours, fp8"]
    for row in phases[2:]:
        assert all(re.fullmatch(r"\d+\.\d\d", cell) for cell in row[1:])
        opened, text, prompt, pictures, step = map(float, row[3:])
        assert opened <= text <= min(prompt, pictures) <= step


def test_the_simulation_benchmark_writes_its_section(tmp_path: Path) -> None:
    office, many = tables(bench("simulate", tmp_path)).values()

    assert [row[0] for row in office[1:3]] == ["clairvoyant", "nightreel"]
    assert 1 <= float(office[2][2]) < 1.15
    assert all(len(row) == 9 for row in office)
    assert [row[0] for row in many[1:]] == ["the wake rule and up to 20 workers", "the clairvoyant"]


def test_the_comfyui_benchmark_compares_the_source_with_the_api_and_writes_its_section(tmp_path: Path) -> None:
    (rows,) = tables(bench("comfyui", tmp_path)).values()

    assert [row[0] for row in rows[1:]] == ["API by hand, one prompt after the other", "nightreel's source"]
    assert all(float(row[1].removesuffix(" ms")) > 0 for row in rows[1:])
    assert RATIO.fullmatch(rows[2][2])
