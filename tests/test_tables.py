"""Manifests as tables and as lists of prompts: what spreadsheets export, and problems that name line and column."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightreel_queue.columns import known_columns
from nightreel_queue.errors import InvalidJob
from nightreel_queue.job import Job
from nightreel_queue.manifest import Kind, Manifest, load_manifest, parse_manifest
from nightreel_queue.problems import parse_job

HEADER = "job,prompt,duration,motion.zoom\n"


def from_csv(text: str) -> Manifest:
    return parse_manifest(text, "films.csv", "csv")


def told(text: str, kind: Kind = "csv") -> list[str]:
    """The problems as a user reads them, less the file's name."""
    with pytest.raises(InvalidJob) as caught:
        parse_manifest(text, f"films.{kind}", kind)
    return [str(problem).removeprefix(f"films.{kind}:") for problem in caught.value.problems]


def job(**fields: Any) -> Job:
    return parse_job(json.dumps({"shots": [{"prompt": "x"}]} | fields))


class TestRows:
    def test_rows_with_one_job_are_its_shots_in_order(self) -> None:
        manifest = from_csv("job,prompt,output.aspect\na,one,9:16\na,two,\nb,three,\n")

        assert manifest.jobs == (
            job(id="a", output={"aspect": "9:16"}, shots=[{"prompt": "one"}, {"prompt": "two"}]),
            job(id="b", shots=[{"prompt": "three"}]),
        )

    def test_without_a_job_column_each_row_is_a_video_of_its_own(self) -> None:
        assert from_csv("id,prompt\na,one\nb,two\n").jobs == (
            job(id="a", shots=[{"prompt": "one"}]),
            job(id="b", shots=[{"prompt": "two"}]),
        )
        assert from_csv("prompt\nx\n").jobs == (job(),)

    def test_columns_are_the_fields_of_jobs_and_shots_by_their_dotted_names(self) -> None:
        text = (
            "id,prompt,duration,motion.zoom,motion.ease,motion.pan,shot.seed,seed,output.fps,transition.type,"
            "labels.client,render.steps,priority,init.image,init.strength\n"
            "a,x,2.5,1 1.2,in,-0.1 0,4,5,24,cut,7,2,urgent,gs://pictures/a.jpg,0.5\n"
        )
        shot = {
            "prompt": "x",
            "duration": 2.5,
            "motion": {"zoom": [1, 1.2], "pan": [-0.1, 0], "ease": "in"},
            "seed": 4,
            "init": {"image": "gs://pictures/a.jpg", "strength": 0.5},
        }
        own = {"seed": 5, "output": {"fps": 24}, "transition": {"type": "cut"}, "render": {"steps": 2}}

        assert from_csv(text).jobs == (job(id="a", shots=[shot], labels={"client": "7"}, priority="urgent", **own),)

    def test_each_kind_of_motion_has_its_columns(self) -> None:
        manifest = from_csv("job,prompt,motion,motion.walk.to,motion.feedback.rate\na,x,still,,\na,x,,y,\na,x,,,2\n")

        assert manifest.jobs == (
            job(
                id="a",
                shots=[
                    {"prompt": "x", "motion": "still"},
                    {"prompt": "x", "motion": {"walk": {"to": "y"}}},
                    {"prompt": "x", "motion": {"feedback": {"rate": 2}}},
                ],
            ),
        )

    def test_every_field_that_a_cell_can_give_has_a_column(self) -> None:
        """Else a field that is new in the schema could not be reached from a table."""
        names = set(known_columns())

        assert names >= {"id", "output.width", "notify.webhook", "image", "init.strength", "motion.walk.seed"}
        assert names >= {"seed", "shot.seed", "transition.duration", "shot.transition.duration", "motion.feedback.pan"}
        assert not names & {"batch", "version", "shots", "output", "labels", "shot", "shot.prompt"}

    def test_an_empty_cell_gives_nothing(self) -> None:
        assert from_csv("prompt,seed,motion.zoom,labels.by\nx,,  ,\n").jobs == (job(),)

    def test_what_a_job_has_once_may_stand_in_all_of_its_rows(self) -> None:
        text = "job,prompt,seed\na,x,3\na,y,3\na,z,\n"

        assert from_csv(text).jobs[0].seed == 3

    def test_whole_numbers_with_a_point_are_whole_numbers(self) -> None:
        """Programs write so when a column has empty cells."""
        assert from_csv("prompt,seed,output.fps\nx,7.0,24.0\n").jobs == (job(seed=7, output={"fps": 24}),)

    def test_rows_that_say_the_same_are_kept_once(self) -> None:
        manifest = from_csv("prompt\nx\ny\nx\n")

        assert (len(manifest.jobs), manifest.repeated) == (2, 1)


class TestExports:
    """What spreadsheets write."""

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_separators_and_line_ends_are_found_out(self, separator: str, end: str) -> None:
        lines = [("job", "prompt", "duration"), ("a", "x", "2"), ("a", "y", "3")]
        manifest = from_csv(end.join(map(separator.join, lines)) + end)

        assert manifest.jobs == (job(id="a", shots=[{"prompt": "x", "duration": 2}, {"prompt": "y", "duration": 3}]),)

    def test_a_tsv_may_have_commas_in_its_header(self) -> None:
        assert parse_manifest("prompt\tduration\none, two, three\t2\n", "m.tsv", "tsv").jobs[0].shots[0].prompt == (
            "one, two, three"
        )

    def test_excels_own_line_about_the_separator_is_no_row(self) -> None:
        assert from_csv("sep=;\r\nprompt;duration\r\nx;2,5\r\n").jobs == (
            job(shots=[{"prompt": "x", "duration": 2.5}]),
        )

    def test_decimal_commas_are_read_where_columns_are_separated_by_semicolons(self) -> None:
        manifest = from_csv("prompt;duration;motion.zoom\nx, y;2,5;1,0 1,25\n")

        assert manifest.jobs == (job(shots=[{"prompt": "x, y", "duration": 2.5, "motion": {"zoom": [1.0, 1.25]}}]),)
        assert told('prompt,duration\nx,"2,5"\n') == ["2: duration: is '2,5'; must be a number from 0.2 to 60"]

    @pytest.mark.parametrize(
        "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom", "windows-1252"]
    )
    def test_encodings_are_found_out_and_a_guess_is_told(self, tmp_path: Path, encoding: str) -> None:
        text = "prompt;labels.by\r\n“Café”, 5 € … naïve;Zoë\r\n"
        path = tmp_path / "films.csv"
        if encoding.endswith("-bom"):
            path.write_bytes(("\ufeff" + text).encode(encoding.removesuffix("-bom")))
        else:
            path.write_bytes(text.encode(encoding))

        manifest = load_manifest(path)

        assert manifest.jobs == (job(shots=[{"prompt": "“Café”, 5 € … naïve"}], labels={"by": "Zoë"}),)
        guess = "films.csv: is not UTF-8; read as Windows-1252: look whether accents are right"
        assert manifest.remarks == ((guess,) if encoding == "windows-1252" else ())

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (b"prompt\nx\n\x81\n", "films.csv:3: is neither UTF-8 nor Windows-1252: save the file as UTF-8"),
            (b"PK\x03\x04\x00\x00", "films.csv: is no text: save it as CSV or text in UTF-8"),
            (b"\xff\xfep\x00\x00\xd8", "films.csv:1: is not the UTF-16-LE it says: save the file as UTF-8"),
        ],
    )
    def test_what_is_no_text_is_refused(self, tmp_path: Path, data: bytes, problem: str) -> None:
        path = tmp_path / "films.csv"
        path.write_bytes(data)

        with pytest.raises(InvalidJob) as caught:
            load_manifest(path)
        assert str(caught.value) == problem

    def test_quotes_hold_separators_line_ends_and_quotes(self) -> None:
        manifest = from_csv('prompt,labels.a\n"a ""red"" sun,\nlow",x\n')

        assert manifest.jobs == (job(shots=[{"prompt": 'a "red" sun,\nlow'}], labels={"a": "x"}),)

    def test_headers_may_have_capitals_and_blanks(self) -> None:
        assert from_csv(" Prompt ,Style Prefix,LABELS.Client\nx,a ,b\n").jobs == (
            job(style_prefix="a", labels={"client": "b"}),
        )

    def test_empty_rows_and_columns_are_nothing(self) -> None:
        assert from_csv("\n,,,\nprompt,,duration,\n\nx,,2,\n,,,\n \n").jobs == (
            job(shots=[{"prompt": "x", "duration": 2}]),
        )


class TestProblems:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("promt\nx\n", "1: unknown column 'promt'; did you mean 'prompt'?"),
            ("prompt,zoom\nx,1\n", "1: unknown column 'zoom'; did you mean 'motion.zoom'?"),
            ("prompt,Prompt \nx,y\n", "1: has two columns 'prompt': leave one out"),
            ("prompt,job,id\nx,a,a\n", "1: has columns job and id: keep job, which joins rows to one video, or id, one a row"),
            ("prompt\nx,y\n", "2: column 2 is 'y', and has no name in the first row: give it one, or put text that holds a separator in quotes"),
            ("prompt,,seed\nx,y,1\n", "2: column 2 is 'y', and has no name in the first row: give it one, or put text that holds a separator in quotes"),
            ("prompt,duration\nx,soon\n", "2: duration: is 'soon'; must be a number from 0.2 to 60"),
            ("prompt,shot.seed\nx,-1\n", "2: shot.seed: is -1; must be a whole number from 0 to 4294967295"),
            ("prompt,motion.zoom\nx,1-1.2\n", "2: motion.zoom: is '1-1.2'; must be two numbers with a blank between: 1 1.2"),
            ("prompt,motion.zoom\nx,1 9\n", "2: motion.zoom[1]: is 9; must be a number from 1 to 4"),
            ("prompt,motion,motion.zoom\nx,still,1 2\n", "2: motion.zoom: motion and motion.zoom do not go together: empty one of the two"),
            ("prompt,motion.walk.to,motion.zoom\nx,y,1 2\n", "2: motion.zoom: does not go with the other fields here: take one or the other"),
            ("prompt,shot.transition.type\nx,cut\n", "2: shot.transition: no shot follows: leave it out"),
            ("prompt,labels.A b!\nx,y\n", "2: labels['a_b!']: is not a label's name; must be a lower-case letter, then at most 62 lower-case letters, digits, - or _"),
            ("seed\n1\n", "2: prompt: is missing; must be text of 1 to 8000 characters"),
            ("job,prompt\na,x\n,y\n", "3: job: is empty: write the name of the video that this shot belongs to"),
            ("job,prompt\na,x\nb,y\na,z\n", "4: job: 'a' began in line 2: put its rows below each other"),
            ("job,prompt,seed\na,x,1\na,y,2\n", "3: seed: is 2, and 1 in line 2: a video has one; leave it out here"),
            ("job,prompt,seed\na,x,\na,y,2\n", "3: seed: stands here, and not in line 2, where its video begins: write it there"),
            ("id,prompt\na,x\na,y\n", "3: id: 'a' is taken by line 2, with other content"),
            ('prompt\n"x"y\n', "2: has a quote within a quoted cell: write it twice"),
            ('prompt\ny\n"x\nz\n', "3: has a quoted cell that does not end: close it, and write a quote within a cell twice"),
            ("", " holds no jobs"),
            ("prompt,seed\n,,\n", " holds no jobs"),
        ],
    )  # fmt: skip
    def test_a_problem_names_line_and_column(self, text: str, problem: str) -> None:
        assert told(text) == [problem]

    def test_lines_are_those_of_the_file_also_behind_cells_of_several_lines(self) -> None:
        text = 'prompt,duration,seed\n"one\ntwo\r\nthree",soon,0\nx,2,-1\n'

        assert told(text) == [
            "4: duration: is 'soon'; must be a number from 0.2 to 60",
            "5: seed: is -1; must be a whole number from 0 to 4294967295",
        ]

    def test_every_problem_is_told_and_nothing_is_taken(self) -> None:
        assert len(told(HEADER + "a,x,soon,1\na,,2,1 1.2\nb,x,2,1 9\n")) == 4

    def test_a_thousand_problems_are_enough(self) -> None:
        problems = told("prompt,duration\n" + "x,soon\n" * 1001)

        assert len(problems) == 1001
        assert problems[-1] == " has 1 more problems: mend these first"

    def test_more_jobs_than_a_batch_may_have_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nightreel_queue.gather.MAX_JOBS", 3)

        assert len(from_csv("prompt,seed\n" + "x,1\nx,2\nx,3\n").jobs) == 3
        assert told("prompt,seed\n" + "x,1\nx,2\nx,3\nx,4\nx,5\n") == [
            "5: brings the file to more than 3 jobs: split it"
        ]


class TestPrompts:
    def test_each_line_is_a_video_called_after_its_words(self) -> None:
        manifest = parse_manifest("# landscapes\na red sun\n\n  a boat, at sea \r\n", "list.txt", "txt")

        assert [(each.id, [shot.prompt for shot in each.shots]) for each in manifest.jobs] == [
            ("a-red-sun-900a2103", ["a red sun"]),
            ("a-boat-at-sea-e5524c6b", ["a boat, at sea"]),
        ]

    def test_a_name_stays_the_same_whatever_the_other_lines_say(self) -> None:
        alone = parse_manifest("a boat\n", "list.txt", "txt").jobs[0]

        assert alone in parse_manifest("a sun\na boat\na boat \n", "list.txt", "txt").jobs

    def test_prompts_that_begin_alike_have_names_of_their_own(self) -> None:
        start = "a very long prompt " * 20
        manifest = parse_manifest(f"{start} one\n{start} two\n赤い\n", "list.txt", "txt")

        assert len({each.id for each in manifest.jobs}) == 3
        assert all(len(str(each.id)) <= 64 for each in manifest.jobs)

    def test_a_prompt_that_no_shot_takes_is_told_with_its_line(self) -> None:
        assert told("x\n" + "y" * 8001, "txt") == [
            "2: is 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…' (8001 characters); must be text of 1 to 8000 characters"
        ]

    def test_a_table_that_calls_itself_a_list_is_told(self) -> None:
        """Excel's Unicode text ends in .txt."""
        assert told("prompt\tseed\n", "txt") == [
            "1: holds a tab, as a table's rows do: call a table .tsv, or write a blank instead"
        ]

    def test_a_list_of_remarks_holds_no_jobs(self) -> None:
        assert told("# x\n\n", "txt") == [" holds no jobs"]


def accepts_or_explains(read: Callable[[], Manifest]) -> None:
    problems: Any = None
    try:
        read()
    except InvalidJob as exc:
        problems = exc.problems
    assert problems != ()
    assert all(problem.message and problem.place.startswith("films.csv") for problem in problems or ())


cells = st.text(st.characters(), max_size=6) | st.sampled_from(
    ['"', "\n", "\r", ";", ",", "\t", "1 2", "still", "gs://a/b"]
)
headers = st.sampled_from([*known_columns(), "labels.a", "", "x"])


@given(
    st.lists(headers, max_size=5), st.lists(st.lists(cells, max_size=5), max_size=4), st.sampled_from([",", ";", "\t"])
)
def test_any_table_gives_a_manifest_or_an_explanation(header: list[str], rows: list[list[str]], separator: str) -> None:
    text = "\n".join(map(separator.join, [header, *rows]))
    kinds: list[Kind] = ["csv", "tsv", "txt"]
    for kind in kinds:
        accepts_or_explains(partial(parse_manifest, text, "films.csv", kind))


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode("utf-16")))
def test_any_bytes_give_a_manifest_or_an_explanation(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "films.csv"
    path.write_bytes(b"prompt\n" + data)
    accepts_or_explains(lambda: load_manifest(path))
