"""Templates: one storyboard, and a row of vars for each video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightreel_queue.errors import InvalidJob
from nightreel_queue.job import Job
from nightreel_queue.local_files import LocalFiles
from nightreel_queue.manifest import Manifest, load_manifest, parse_manifest
from nightreel_queue.problems import parse_job

VARS = "vars: [{client: Acme, n: 3}, {client: Zoë & Co, n: 4}]\n"


def from_yaml(text: str) -> Manifest:
    return parse_manifest(text, "nightly.yaml", "yaml")


def told(text: str, files: LocalFiles | None = None) -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        parse_manifest(text, "nightly.yaml", "yaml", files=files)
    return [str(problem).removeprefix("nightly.yaml:") for problem in caught.value.problems]


def job(**fields: Any) -> Job:
    return parse_job(json.dumps({"shots": [{"prompt": "x"}]} | fields))


def test_each_job_becomes_a_video_for_each_row() -> None:
    manifest = from_yaml(f"{VARS}jobs: [{{id: 'a-{{client}}', shots: [x]}}, {{id: 'b-{{client}}', shots: [y]}}]")

    assert [each.id for each in manifest.jobs] == ["a-Acme", "a-Zoe-Co", "b-Acme", "b-Zoe-Co"]


def test_placeholders_may_stand_in_every_text_also_in_that_of_the_defaults() -> None:
    manifest = from_yaml(f"""{VARS}
defaults: {{style_prefix: "for {{client}}: ", labels: {{number: "no {{n}}"}}, shot: {{motion: {{walk: {{to: "{{n}} boats"}}}}}}}}
jobs:
- shots: ["{{n}} suns", {{prompt: "{{ Client }} and {{client}}"}}]
""")

    assert manifest.jobs[1] == job(
        style_prefix="for Zoë & Co: ",
        labels={"number": "no 4"},
        shots=[
            {"prompt": "4 suns", "motion": {"walk": {"to": "4 boats"}}},
            {"prompt": "Zoë & Co and Zoë & Co", "motion": {"walk": {"to": "4 boats"}}},
        ],
    )


def test_a_placeholder_alone_gives_a_number_where_one_belongs_and_text_elsewhere() -> None:
    text = """
vars: [{seed: 7, at: "1.5", zoom: 1 1.25, word: 12}]
seed: "{seed}"
labels: {word: "{word}"}
shots: [{prompt: "{word}", duration: "{at}", motion: {zoom: "{zoom}"}}, {prompt: x, motion: {zoom: [1, "{at}"]}}]
"""

    assert from_yaml(text).jobs == (
        job(
            seed=7,
            labels={"word": "12"},
            shots=[
                {"prompt": "12", "duration": 1.5, "motion": {"zoom": [1, 1.25]}},
                {"prompt": "x", "motion": {"zoom": [1, 1.5]}},
            ],
        ),
    )


def test_a_default_number_may_be_a_placeholder_too() -> None:
    manifest = from_yaml(
        f"{VARS}defaults: {{seed: '{{n}}', shot: {{duration: '{{n}}'}}}}\njobs: [{{shots: ['{{client}}']}}]"
    )

    assert [(each.seed, each.shots[0].duration) for each in manifest.jobs] == [(3, 3.0), (4, 4.0)]


def test_braces_are_written_twice() -> None:
    assert from_yaml(VARS + "shots: ['{{{client}}} {{x}}']").jobs[0].shots[0].prompt == "{Acme} {x}"


def test_without_vars_braces_are_just_braces() -> None:
    text = "jobs: [{labels: {a: '{b}'}, shots: ['{client} {{ }']}]"

    assert from_yaml(text).jobs == (job(labels={"a": "{b}"}, shots=[{"prompt": "{client} {{ }"}]),)
    assert parse_manifest("prompt\n{client}\n", "m", "csv").jobs[0].shots[0].prompt == "{client}"


def test_videos_without_an_id_are_called_after_their_fingerprints() -> None:
    manifest = from_yaml(VARS + "shots: ['{client}']").resolved("pocket")

    assert len({each.id for each in manifest.jobs}) == 2


def test_rows_that_make_the_same_video_make_it_once() -> None:
    manifest = from_yaml("vars: [{a: 1, b: 1}, {a: 1, b: 2}]\nshots: ['{a}']")

    assert (len(manifest.jobs), manifest.repeated) == (1, 1)


def test_a_column_that_nobody_uses_is_worth_a_remark() -> None:
    assert from_yaml("\nvars: [{a: 1, b: 2}]\nshots: ['{a}']").remarks == ("nightly.yaml:2: no placeholder uses 'b'",)


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("shots: ['{clint}']", "2: shots[0].prompt: unknown column 'clint'; did you mean 'client'?"),
        ("jobs:\n- shots: [x]\n- labels:\n    a: '{x}'\n  shots: [x]", "5: jobs[1].labels.a: unknown column 'x'; the columns here are: client, n"),
        ("shots: ['{client']", "2: shots[0].prompt: has a { without its other half: write {{ for a brace"),
        ("shots: ['client}']", "2: shots[0].prompt: has a } without its other half: write }} for a brace"),
        ("id: film\nshots: ['{client}']", "2: id: names all 2 videos 'film': put a placeholder into it, such as film-{client}"),
        ("shots: [x]\nseed: '{client}'", "3: seed: is 'Acme'; must be a whole number from 0 to 4294967295 (in row 1 of vars, line 1)"),
        ("shots: [x]\nid: '{client}.{n}'", "3: id: is 'Acme.3'; must be 1 to 64 letters, digits, - or _ (in row 1 of vars, line 1)"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_template_is_told_there_and_with_the_row(rest: str, problem: str) -> None:
    assert told(VARS + rest)[:1] == [problem]
    assert len(told(VARS + rest)) <= 2  # a row that is wrong in itself, too


@pytest.mark.parametrize("hole", ["{n: 4}", "{client: '', n: 4}", "{client: null, n: 4}"])
def test_a_hole_in_the_table_is_told_with_its_row_and_column(hole: str) -> None:
    text = f"vars:\n- {{client: Acme}}\n- {hole}\nshots: [x, 'for {{client}}']"

    assert told(text) == [
        "4: shots[1].prompt: row 2 of vars, line 3, has no 'client', which is wanted here: fill it in"
    ]


def test_a_hole_that_no_placeholder_needs_is_none() -> None:
    assert len(from_yaml("vars: [{a: 1, b: 2}, {a: 2}]\nshots: ['{a}']").jobs) == 2


def test_ids_that_come_out_the_same_are_told_with_both_rows() -> None:
    text = "vars:\n- {a: Ä, b: 1}\n- {a: A, b: 2}\nid: x-{a}\nshots: ['{b}']"

    assert told(text) == [
        "4: id: 'x-A' is taken by row 1 of vars, line 2, with other content (in row 2 of vars, line 3)"
    ]


@pytest.mark.parametrize(
    ("vars_", "problem"),
    [
        ("[]", "1: vars: is empty; must be a list of rows, or name a CSV file"),
        ("5", "1: vars: is 5; must be a list of rows, or name a CSV file"),
        ("[x]", "1: vars[0]: is 'x'; must be a mapping of names to values"),
        ("[{a: [1]}]", "1: vars[0].a: is [1]; must be text or a number"),
        ("[{a: 1, A: 2}]", "1: vars[0].A: is there twice as 'a': leave one out"),
        ("clients.csv", "1: vars: names a file, and this manifest may name none of this machine: write the rows here"),
    ],
)
def test_vars_that_are_no_table_are_refused(vars_: str, problem: str) -> None:
    assert told(f"vars: {vars_}\nshots: ['{{a}}']") == [problem]


class TestFiles:
    def test_rows_may_come_from_a_spreadsheet_beside_the_manifest(self, tmp_path: Path) -> None:
        (tmp_path / "tables").mkdir()
        (tmp_path / "tables/clients.csv").write_bytes("Client Name;At\nZoë;2,5\n\nAcme;3\n".encode("windows-1252"))
        path = tmp_path / "nightly.yaml"
        path.write_text("vars: tables/clients.csv\nshots: [{prompt: '{client name}', duration: '{at}'}]")

        manifest = load_manifest(path, local_files=True)

        assert [(each.shots[0].prompt, each.shots[0].duration) for each in manifest.jobs] == [("Zoë", 2.5), ("Acme", 3)]
        assert manifest.remarks == ("clients.csv: is not UTF-8; read as Windows-1252: look whether accents are right",)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("a,a\n1,2\n", "clients.csv:1: has two columns 'a': leave one out"),
            ("a\n1,2\n", "clients.csv:2: column 2 is '2', and has no name in the first row: give it one, or put text that holds a separator in quotes"),
            ("a\n", "clients.csv:1: has no rows below its first one: write the names of the columns, then a row for each video"),
            ("", "clients.csv:1: has no rows below its first one: write the names of the columns, then a row for each video"),
            ("b,a\n1,x\n\n2,\n", "nightly.yaml:2: shots[0].prompt: row 2 of clients.csv, line 4, has no 'a', which is wanted here: fill it in"),
        ],
    )  # fmt: skip
    def test_problems_of_the_table_name_its_file_and_line(self, tmp_path: Path, content: str, problem: str) -> None:
        (tmp_path / "clients.csv").write_text(content)
        path = tmp_path / "nightly.yaml"
        path.write_text("vars: clients.csv\nshots: ['{a}']")

        with pytest.raises(InvalidJob) as caught:
            load_manifest(path, local_files=True)
        assert str(caught.value) == problem

    def test_a_table_that_is_not_there_or_no_table_is_told_at_vars(self, tmp_path: Path) -> None:
        missing = tmp_path / "clients.csv"

        assert told("shots: [x]\nvars: clients.csv", LocalFiles(tmp_path)) == [
            f"2: vars: {missing}: cannot be read: No such file or directory"
        ]
        assert told("shots: [x]\nvars: clients.xlsx", LocalFiles(tmp_path)) == [
            "2: vars: is 'clients.xlsx'; must be a .csv or .tsv file, or rows"
        ]


pieces = st.sampled_from(["{a}", "{b}", "{", "}", "{{", "}}", "{ }", "x", " ", "{c}", "é"])


@given(st.lists(pieces, max_size=6).map("".join), st.text(max_size=5), st.sampled_from(["id", "seed", "style_prefix"]))
def test_any_template_and_cell_give_a_manifest_or_an_explanation(text: str, cell: str, field: str) -> None:
    document = {"vars": [{"a": cell, "b": 3}, {"a": "y", "b": 4}], field: text, "shots": ["x", text or "y"]}
    problems: Any = None
    try:
        parse_manifest(json.dumps(document), "fuzz", "json")
    except InvalidJob as exc:
        problems = exc.problems
    assert problems != ()
    assert all(problem.message for problem in problems or ())
