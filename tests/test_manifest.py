"""Manifests: three forms of file, shared defaults, and problems that name file, line and field."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nightreel_queue import yaml_text
from nightreel_queue.errors import InvalidJob
from nightreel_queue.job import Job
from nightreel_queue.manifest import KINDS, MAX_FILE_BYTES, Kind, Manifest, from_prompt, load_manifest, parse_manifest
from nightreel_queue.motions import Feedback, FeedbackMotion, Move, Walk, WalkMotion
from nightreel_queue.problems import parse_job
from nightreel_queue.transitions import Transition
from nightreel_queue.trees import MAX_VALUES
from nightreel_queue.yaml_text import read_yaml

settings.register_profile("patient", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("patient")

EXAMPLES = Path(__file__).parent.parent / "examples"


def from_yaml(text: str) -> Manifest:
    return parse_manifest(text, "nightly.yaml", "yaml")


def from_lines(*rows: Any) -> Manifest:
    return parse_manifest("\n".join(map(json.dumps, rows)), "nightly.jsonl", "jsonl")


def told(text: str, kind: Kind = "yaml") -> list[str]:
    """The problems as a user reads them, less the file's name."""
    with pytest.raises(InvalidJob) as caught:
        parse_manifest(text, f"nightly.{kind}", kind)
    return [str(problem).removeprefix(f"nightly.{kind}:") for problem in caught.value.problems]


def told_of_lines(*rows: Any) -> list[str]:
    return told("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "jsonl")


def job(**fields: Any) -> Job:
    return parse_job(json.dumps({"shots": [{"prompt": "x"}]} | fields))


class TestForms:
    def test_a_manifest_holds_jobs(self) -> None:
        manifest = from_yaml("batch: night\njobs:\n- id: a\n  shots: [{prompt: x}]\n- id: b\n  shots: [y, z]\n")

        assert (manifest.name, manifest.batch, manifest.repeated) == ("nightly.yaml", "night", 0)
        assert manifest.jobs == (job(id="a"), job(id="b", shots=[{"prompt": "y"}, {"prompt": "z"}]))

    def test_a_document_with_shots_is_one_job_and_its_batch_is_the_manifests(self) -> None:
        manifest = from_yaml("version: 1\nbatch: night\nid: a\nshots: [x]\n")

        assert manifest.batch == "night"
        assert manifest.jobs == (job(id="a"),)

    def test_yaml_json_and_json_lines_say_the_same(self) -> None:
        head: dict[str, Any] = {"version": 1, "batch": "b", "defaults": {"seed": 3, "shot": {"duration": 2}}}
        rows = [{"id": "a", "shots": ["x", {"prompt": "🌅"}]}, {"shots": [{"prompt": "y", "duration": 5}]}]
        whole = head | {"jobs": rows}

        manifests = [
            parse_manifest(yaml.safe_dump(whole, allow_unicode=True), "m", "yaml"),
            parse_manifest(json.dumps(whole, indent="\t"), "m", "json"),
            parse_manifest("\n\n".join(map(json.dumps, [head, *rows])), "m", "jsonl"),
        ]

        assert manifests[0] == manifests[1] == manifests[2]
        assert [shot.duration for shot in manifests[0].jobs[0].shots] == [2, 2]

    def test_json_lines_need_no_head(self) -> None:
        assert from_lines({"shots": ["x"]}).jobs == (job(),)

    @pytest.mark.parametrize("suffix", [".yaml", ".yml", ".YAML", ".json", ".jsonl"])
    def test_the_suffix_tells_the_form(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"storyboard{suffix}"
        path.write_text('{"shots": ["x"]}', encoding="utf-8")

        assert load_manifest(path).jobs == (job(),)

    @pytest.mark.parametrize("kind", ["yaml", "json", "jsonl"])
    def test_a_byte_order_mark_and_crlf_are_fine(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"windows.{kind}"
        path.write_bytes(b'\xef\xbb\xbf{"shots": ["x"]}\r\n\r\n')

        assert load_manifest(path).jobs == (job(),)

    def test_crlf_counts_as_one_line(self) -> None:
        assert told("jobs:\r\n- shots: [x]\r\n  sed: 1\r\n") == [
            "3: jobs[0].sed: unknown field 'sed'; did you mean 'seed'?"
        ]

    def test_json_lines_are_split_at_newlines_only(self) -> None:
        row = json.dumps({"shots": ["one\u2028two\x85three"]}, ensure_ascii=False)

        assert parse_manifest(row, "m", "jsonl").jobs[0].shots[0].prompt == "one\u2028two\x85three"

    @pytest.mark.parametrize("name", ["nightly.yaml", "storyboard.jsonl", "films.csv", "greetings.yaml", "prompts.txt"])
    def test_the_examples_are_sound(self, name: str) -> None:
        manifest = load_manifest(EXAMPLES / name, local_files=True)

        assert {job.render.model for job in manifest.jobs} == {None if name == "prompts.txt" else "pocket"}
        assert manifest.remarks == ()
        assert all(4 <= job.duration_s <= 8 for job in manifest.jobs)


class TestYaml:
    """Plain words mean what YAML 1.2 says, not what 1.1 said."""

    @pytest.mark.parametrize(
        ("word", "value"),
        [
            ("9:16", "9:16"),
            ("1:1", "1:1"),
            ("12:30:45", "12:30:45"),
            ("no", "no"),
            ("on", "on"),
            ("Yes", "Yes"),
            ("2026-01-31", "2026-01-31"),
            ("1_000", "1_000"),
            ("=", "="),
            ("true", True),
            ("False", False),
            ("~", None),
            ("", None),
            ("null", None),
            ("12", 12),
            ("-3", -3),
            ("0o17", 15),
            ("0x1F", 31),
            ("017", 17),
            ("1.5", 1.5),
            (".5", 0.5),
            ("1e3", 1000.0),
            (".inf", float("inf")),
            ("'12'", "12"),
            ('"true"', "true"),
            ("!!str 12", "12"),
        ],
    )
    @pytest.mark.parametrize("loader", [yaml.CSafeLoader, yaml.SafeLoader])
    def test_a_plain_word_means(
        self, monkeypatch: pytest.MonkeyPatch, loader: type[Any], word: str, value: Any
    ) -> None:
        monkeypatch.setattr(yaml_text, "_LOADER", loader)

        tree = read_yaml(f"a: {word}")

        assert tree is not None
        assert tree.plain() == {"a": value}
        assert type(tree.plain()["a"]) is type(value)

    def test_an_upright_aspect_needs_no_quotes(self) -> None:
        assert from_yaml("output: {aspect: 9:16}\nshots: [x]").jobs[0].output.size == (720, 1280)

    def test_anchors_aliases_and_merge_keys_work(self) -> None:
        text = """\
jobs:
- output: &small {width: 64, height: 64}
  shots: [&sun {prompt: sun, motion: still}]
- output: {<<: *small, height: 128, fps: 24}
  shots: [*sun, {<<: [{duration: 3}, *sun, {duration: 9, seed: 5}]}]
"""
        second = from_yaml(text).jobs[1]

        assert (second.output.width, second.output.height, second.output.fps) == (64, 128, 24)
        assert second.shots[1].model_dump(exclude_defaults=True) == {
            "prompt": "sun",
            "motion": "still",
            "duration": 3,
            "seed": 5,
        }

    def test_a_problem_in_a_merged_field_is_told_where_it_is_written(self) -> None:
        assert told("jobs:\n- shots:\n  - &a\n    prompt: x\n    duration: 99\n  - {<<: *a, seed: 1}\n") == [
            "5: jobs[0].shots[0].duration: is 99; must be a number from 0.2 to 60",
            "5: jobs[0].shots[1].duration: is 99; must be a number from 0.2 to 60",
        ]

    @pytest.mark.parametrize("loader", [yaml.CSafeLoader, yaml.SafeLoader])
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("seed: 1\nshots: [x]\nseed: 2", "3: gives 'seed' twice, in lines 1 and 3: keep one"),
            ("jobs:\n- {shots: [x],\n   shots: [y]}", "3: gives 'shots' twice, in lines 2 and 3: keep one"),
            ("a: &a {}\nb: {<<: *a, <<: *a}", "2: gives '<<' twice, in line 2: keep one"),
            ("a: {<<: 5}", "1: << merges mappings only"),
            ("shots: [*sun]", "1: *sun has no &sun before it"),
            ("a: &a\n- *a", "2: *a has no &a before it"),
            ("a: !!python/name:os.system x", "1: the tag 'tag:yaml.org,2002:python/name:os.system' means nothing here: leave it out"),
            ("a: !thing {}", "1: the tag '!thing' means nothing here: leave it out"),
            ("? [a, b]\n: c", "1: uses a list, a mapping or an alias as a field's name"),
            ("shots: [x]\n---\nshots: [y]", "2: starts a second document (---): use one file for each"),
            ("seed: " + "9" * 5000, "1: holds a number of more than 100 digits"),
            ("seed: 0x" + "f" * 5000, "1: holds a number of more than 100 digits"),
            ("a:\n  " + "[" * 50 + "]" * 50, "2: is nested more than 50 deep"),
            ("a: \x07", "1: holds a control character, which YAML does not allow"),
        ],
    )  # fmt: skip
    def test_what_yaml_allows_and_we_do_not_is_one_problem(
        self, monkeypatch: pytest.MonkeyPatch, loader: type[Any], text: str, problem: str
    ) -> None:
        monkeypatch.setattr(yaml_text, "_LOADER", loader)

        assert told(text) == [problem]

    def test_fifty_levels_are_allowed(self) -> None:
        assert read_yaml("[" * 50 + "]" * 50) is not None

    def test_levels_behind_an_alias_count(self) -> None:
        deep = f"a: &a {'[' * 30}{']' * 30}\nb: {'[' * 30}*a{']' * 30}"

        assert told(deep) == ["2: is nested more than 50 deep"]

    @pytest.mark.parametrize(
        ("text", "line", "word"),
        [
            ("jobs:\n\t- shots: [x]", "2", "tab"),
            ("jobs:\n- shots: [x", "3", "not YAML"),
            ("jobs: 'x", "1", "not YAML"),
            ("a: @b", "1", "quotes"),
        ],
    )
    def test_broken_yaml_is_told_with_its_line(self, text: str, line: str, word: str) -> None:
        (problem,) = told(text)

        assert problem.startswith(f"{line}: ")
        assert word in problem

    def test_an_alias_bomb_is_refused_without_unfolding_it(self) -> None:
        levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
        (problem,) = told("\n".join(["a0: &a0 [x]", *levels]))

        assert problem.endswith(f"comes to more than {MAX_VALUES:,} values, aliases unfolded: split it")

    def test_defaults_are_no_bomb_either(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Few values in the file, many once every job has its defaults."""
        monkeypatch.setattr("nightreel_queue.gather.MAX_VALUES", 1000)
        shots = ", ".join(["x"] * 120)
        jobs = "".join(f"- {{seed: {number}}}\n" for number in range(10))

        assert told(f"defaults: {{shots: [{shots}]}}\njobs:\n{jobs}") == [
            "11: jobs[8]: brings the file to more than 1,000 values, defaults and vars spread out: split it"
        ]


class TestDefaults:
    def test_mappings_merge_and_all_else_replaces(self) -> None:
        manifest = from_yaml("""\
defaults:
  output: {width: 64, height: 64, fps: 24}
  labels: {show: one, by: me}
  seed: 5
  shot: {duration: 2, motion: {zoom: [1, 2], ease: in}}
jobs:
- output: {fps: 30}
  labels: {by: you}
  shots: [x, {prompt: y, duration: 3, motion: {zoom: [1, 3]}}, {prompt: z, motion: still}]
""")
        (merged,) = manifest.jobs

        assert (merged.output.size, merged.output.fps, merged.seed) == ((64, 64), 30, 5)
        assert merged.labels == {"show": "one", "by": "you"}
        assert [shot.duration for shot in merged.shots] == [2, 3, 2]
        assert [shot.model_dump()["motion"] for shot in merged.shots[1:]] == [
            {"zoom": (1, 3), "pan": None, "rotate": None, "focus": (0.5, 0.5), "ease": "in"},
            "still",
        ]

    def test_a_shot_may_have_another_kind_of_motion_than_the_defaults(self) -> None:
        manifest = from_yaml("""\
defaults: {shot: {motion: {feedback: {zoom: 1.2, strength: 0.4}}}}
jobs:
- shots:
  - {prompt: x, motion: {zoom: [1, 3], ease: in}}
  - {prompt: y, motion: {walk: {to: z}}}
  - {prompt: z, motion: {feedback: {zoom: 1.5}}}
""")
        motions = [shot.motion for shot in manifest.jobs[0].shots]

        assert motions == [
            Move(zoom=(1, 3), ease="in"),
            WalkMotion(walk=Walk(to="z")),
            FeedbackMotion(feedback=Feedback(zoom=1.5, strength=0.4)),
        ]

    def test_a_job_may_name_an_aspect_where_the_defaults_name_sides_and_the_other_way_round(self) -> None:
        manifest = from_yaml("""\
defaults: {output: {width: 64, height: 64}}
jobs: [{output: {aspect: 1:1}, shots: [x]}]
""")
        other_way = from_yaml("""\
defaults: {output: {aspect: 1:1}}
jobs: [{output: {width: 64, height: 64}, shots: [x]}]
""")

        assert manifest.jobs[0].output.size == (720, 720)
        assert other_way.jobs[0].output.size == (64, 64)

    def test_a_job_may_cut_where_the_defaults_take_their_time(self) -> None:
        manifest = from_yaml("defaults: {transition: {duration: 1}}\njobs: [{transition: {type: cut}, shots: [x, y]}]")

        assert manifest.jobs[0].transition_after(0) == (Transition(type="cut"), 0)

    def test_null_takes_a_default_back(self) -> None:
        manifest = from_yaml("defaults: {shot: {seed: 5}}\njobs: [{shots: [x, {prompt: x, seed: null}]}]")

        assert [shot.seed for shot in manifest.jobs[0].shots] == [5, None]

    def test_every_job_may_have_the_same_shots(self) -> None:
        manifest = from_lines({"defaults": {"shots": ["x"]}}, {"seed": 1}, {"seed": 2})

        assert [job.shots[0].prompt for job in manifest.jobs] == ["x", "x"]

    def test_a_default_may_be_half_of_what_jobs_complete(self) -> None:
        manifest = from_yaml("""\
defaults: {output: {width: 64}, shot: {motion: {ease: in}}}
jobs: [{output: {height: 128}, shots: [{prompt: x, motion: {rotate: 3}}]}]
""")

        assert manifest.jobs[0].output.size == (64, 128)

    @pytest.mark.parametrize(
        ("defaults", "problem"),
        [
            ("sed: 1", "2: defaults.sed: unknown field 'sed'; did you mean 'seed'?"),
            ("seed: -1", "2: defaults.seed: is -1; must be a whole number from 0 to 4294967295"),
            ("output: {aspect: 16/9}", "2: defaults.output.aspect: must look like 16:9"),
            ("output: 5", "2: defaults.output: is 5; must be a mapping of aspect, width, height, fps, crf"),
            ("shot: {promt: x}", "2: defaults.shot.promt: unknown field 'promt'; did you mean 'prompt'?"),
            ("shot: {duration: 99}", "2: defaults.shot.duration: is 99; must be a number from 0.2 to 60"),
            ("shot: 5", "2: defaults.shot: is 5; must be a mapping of a shot's fields"),
            ("shots: [{seed: 1}]", "2: defaults.shots[0].prompt: is missing; must be text of 1 to 8000 characters"),
            ("id: x", "2: defaults.id: names one job: give it in the job"),
            ("batch: x", "2: defaults.batch: belongs at the top of the manifest"),
            ("shot: {transition: {}}", "2: defaults.shot.transition: belongs beside shot, not in it: defaults.transition holds after every shot"),
        ],
    )  # fmt: skip
    def test_a_mistake_in_the_defaults_is_told_once_and_there_whether_jobs_use_it_or_not(
        self, defaults: str, problem: str
    ) -> None:
        every_field = {"seed": 1, "output": {"aspect": "1:1"}, "shots": [{"prompt": "y", "duration": 2}]}
        unused = json.dumps(every_field)
        used = "{shots: [x]}, {shots: [y]}"

        assert told(f"defaults:\n  {defaults}\njobs: [{unused}]") == [problem]
        assert told(f"defaults:\n  {defaults}\njobs: [{used}]") == [problem]

    def test_defaults_that_do_not_suit_a_job_are_told_there_with_the_job(self) -> None:
        text = """\
defaults:
  transition: {duration: 3}
jobs:
- shots: [x, y]
- shots: [x, {prompt: y, duration: 2}]
"""
        assert told(text) == [
            "2: defaults.transition.duration: 3 s is longer than shot 1 or 2 (2 s): shorten it, or cut (seen in the job of line 5)"
        ]

    def test_a_jobs_own_mistake_is_told_in_the_job_though_the_defaults_have_the_field_too(self) -> None:
        text = "defaults:\n  shot: {motion: {zoom: [1, 2]}}\njobs:\n- shots:\n  - prompt: x\n    motion: {zoom: [1]}"

        assert told(text) == ["6: jobs[0].shots[0].motion.zoom: is [1]; must be a list of 2 numbers from 1 to 4"]

    def test_defaults_must_be_a_mapping(self) -> None:
        assert told("defaults: [x]\njobs: [{shots: [x]}]") == [
            '1: defaults: is ["x"]; must be a mapping of a job\'s fields'
        ]


class TestProblems:
    def test_three_bad_rows_of_a_hundred_are_exactly_three_problems_in_order(self) -> None:
        rows: list[Any] = [{"id": f"v{number}", "shots": ["x"]} for number in range(100)]
        rows[16] = {"shots": [{"promt": "x"}]}
        rows[4] = {"shots": ["x"], "seed": -1}
        rows[70] = '{"shots": ["x"'

        assert told_of_lines(*rows) == [
            "5: seed: is -1; must be a whole number from 0 to 4294967295",
            "17: shots[0].promt: unknown field 'promt'; did you mean 'prompt'?",
            "71: is not JSON: , or ] belongs here (column 15)",
        ]

    def test_a_problem_names_the_line_of_its_field_or_of_what_it_is_missing_from(self) -> None:
        text = """\
jobs:
  - id: a
    shots:
      - x
      - duration: 3
        motion:
          zoom: [1, 9]
  - id: b
"""
        assert told(text) == [
            "5: jobs[0].shots[1].prompt: is missing; must be text of 1 to 8000 characters",
            "7: jobs[0].shots[1].motion.zoom[1]: is 9; must be a number from 1 to 4",
            "8: jobs[1].shots: is missing; must be a list of 1 to 120 items",
        ]

    def test_a_value_that_starts_below_its_field_is_told_at_the_field(self) -> None:
        assert told("shots: [x]\nseed:\n\n  none") == [
            "2: seed: is 'none'; must be a whole number from 0 to 4294967295"
        ]

    def test_json_has_lines_too(self) -> None:
        text = json.dumps({"jobs": [{"shots": ["x"], "output": {"fps": 99}}]}, indent=1)

        assert told(text, "json") == ["8: jobs[0].output.fps: is 99; must be a whole number from 8 to 60"]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", " holds nothing: write jobs, or the shots of one video"),
            ("# soon\n\n# really\n", " holds nothing: write jobs, or the shots of one video"),
            ("---\n", " holds nothing: write jobs, or the shots of one video"),
            ("a red sun", "1: is 'a red sun'; must be a mapping with jobs, or with shots"),
            ("- shots: [x]", "1: is a list of 1 items; must be a mapping with jobs, or with shots"),
            ("{}", "1: has neither jobs nor shots"),
            ("version: 1\nbatch: x", "1: has neither jobs nor shots"),
            ("batch: x\njob: []", "2: job: unknown field 'job'; did you mean 'jobs'?"),
            ("batch: x\njobs: []", "2: jobs: is empty; must be a list of at least one job"),
            ("jobs:", "1: jobs: is empty; must be a list of at least one job"),
            ("jobs: x", "1: jobs: is 'x'; must be a list of at least one job"),
            ("jobs:\n- x", "2: jobs[0]: is 'x'; must be a mapping of a job's fields"),
            ("version: 2\njobs: [{shots: [x]}]", "1: version: is 2; must be 1"),
            ("batch: a b\njobs: [{shots: [x]}]", "1: batch: is 'a b'; must be 1 to 64 letters, digits, - or _"),
            ("batch: 5\nshots: [x]", "1: batch: is 5; must be 1 to 64 letters, digits, - or _: put it in quotes"),
            ("jobs: [{shots: [x]}]\nshots: [x]", "2: shots: unknown field 'shots'; the fields here are: batch, defaults, jobs, vars, version"),
            ("jobs:\n- shots: [x]\n  batch: b", "3: jobs[0].batch: belongs at the top of the manifest"),
            ("shots: [x]\ndefaults: {}", "2: defaults: unknown field 'defaults'; the fields here are: audio, batch, id, labels, limits, notify, output, priority, render, seed, seed_mode, shots, style_prefix, style_suffix, transition, version"),
        ],
    )  # fmt: skip
    def test_a_document_that_is_no_manifest_is_one_clear_problem(self, text: str, problem: str) -> None:
        assert told(text) == [problem]

    @pytest.mark.parametrize(
        ("rows", "problem"),
        [
            ([], " holds no jobs"),
            ([{"batch": "b", "defaults": {}}], " holds no jobs"),
            ([["x"]], "1: is [\"x\"]; must be a mapping of a job's fields"),
            ([{"defaults": {}, "shots": ["x"]}, {"shots": ["x"]}], "1: shots: unknown field 'shots'; did you mean"),
            ([{"shots": ["x"]}, {"defaults": {}, "shots": ["y"]}], "2: defaults: belongs on the first line, and alone there"),
            ([{"shots": ["x"]}, {"batch": "b", "shots": ["y"]}], "2: batch: belongs at the top of the manifest"),
        ],
    )  # fmt: skip
    def test_lines_that_are_no_manifest_are_one_clear_problem(self, rows: list[Any], problem: str) -> None:
        found = told_of_lines(*rows)

        assert len(found) == 1
        assert found[0].startswith(problem.partition("; did")[0])

    def test_a_job_that_no_message_could_carry_is_refused(self) -> None:
        heavy = [{"prompt": "界" * 8000, "duration": 1}] * 60

        (problem,) = told_of_lines({"shots": heavy})

        assert problem.startswith("1: is 1,441,")
        assert problem.endswith(" bytes as JSON; a job may have 1,047,576")

    def test_half_a_character_is_refused_in_every_form(self) -> None:
        for kind in ("yaml", "json"):
            assert "half a character" in told('{"shots": ["\ud83d"]}', kind)[0]
        assert "half a character" in told_of_lines('{"shots": ["\\ud83d"]}')[0]


class TestFiles:
    def refusal(self, path: Path) -> str:
        with pytest.raises(InvalidJob) as caught:
            load_manifest(path)
        (problem,) = caught.value.problems
        return str(problem)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "nightly.yaml"

        assert self.refusal(path) == f"{path}: cannot be read: No such file or directory"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "nightly.yaml"
        path.touch(mode=0o000)

        assert self.refusal(path) == f"{path}: cannot be read: Permission denied"

    def test_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "nightly.yaml").mkdir()

        assert self.refusal(tmp_path / "nightly.yaml") == "nightly.yaml: is a folder: name a file"

    @pytest.mark.parametrize("name", ["nightly.xlsx", "nightly", "nightly.yaml.bak"])
    def test_a_suffix_that_nobody_knows(self, tmp_path: Path, name: str) -> None:
        assert self.refusal(tmp_path / name).endswith("; must be .yaml, .yml, .json, .jsonl, .csv, .tsv, .txt")

    def test_a_file_that_is_not_utf_8(self, tmp_path: Path) -> None:
        path = tmp_path / "nightly.yaml"
        path.write_bytes(b"shots:\n- caf\xe9\n")

        assert self.refusal(path) == "nightly.yaml:2: is not UTF-8: save the file as UTF-8"

    def test_a_file_that_is_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "nightly.jsonl"
        path.touch()
        os.truncate(path, MAX_FILE_BYTES + 1)

        assert self.refusal(path) == "nightly.jsonl: is larger than 256 MB: split it"


class TestRepetition:
    def test_the_same_job_is_kept_once(self) -> None:
        manifest = from_lines(
            {"id": "a", "shots": ["x"]}, {"shots": ["x"]}, {"id": "a", "shots": ["x"]}, {"shots": ["x"]}
        )

        assert manifest.jobs == (job(id="a"), job())
        assert manifest.repeated == 2

    def test_the_same_id_with_other_content_is_a_problem_with_both_lines(self) -> None:
        assert told_of_lines({"id": "a", "shots": ["x"]}, {"shots": ["x"]}, {"id": "a", "shots": ["y"]}) == [
            "3: id: 'a' is taken by line 1, with other content"
        ]

    def test_the_same_video_with_other_labels_is_a_problem_too(self) -> None:
        urgent = {"shots": ["x"], "priority": "urgent"}

        assert told_of_lines({"id": "a", "shots": ["x"]}, {"id": "a", **urgent}) == [
            "2: id: 'a' is taken by line 1, with another priority or labels"
        ]
        assert told_of_lines({"shots": ["x"]}, urgent) == [
            "2: is the video of line 1 with another priority or labels: give each its own id"
        ]

    def test_jobs_that_become_the_same_with_the_model_are_kept_once(self) -> None:
        manifest = from_lines({"shots": ["x"]}, {"shots": ["x"], "render": {"model": "pocket"}})

        assert (len(manifest.jobs), manifest.repeated) == (2, 0)
        assert (len(manifest.resolved("pocket").jobs), manifest.resolved("pocket").repeated) == (1, 1)
        assert len(manifest.resolved("flux-schnell").jobs) == 2

    def test_jobs_that_differ_but_come_to_one_id_are_refused(self) -> None:
        taken = job().resolved(model="pocket", batch="b").id

        with pytest.raises(InvalidJob, match=f"nightly.jsonl: holds different jobs that come to the id '{taken}'"):
            from_lines({"shots": ["x"]}, {"id": taken, "shots": ["y"]}).resolved("pocket")


class TestBatch:
    def test_a_batch_is_called_after_its_file_and_content(self) -> None:
        manifest = from_lines({"shots": ["x"]}, {"id": "b", "shots": ["y"]}).resolved("pocket")

        assert manifest.batch.startswith("nightly-")
        assert len(manifest.batch) == len("nightly-") + 8
        assert {job.batch for job in manifest.jobs} == {manifest.batch}
        assert [job.id for job in manifest.jobs] == [manifest.jobs[0].fingerprint[:16], "b"]

    def test_the_same_jobs_make_the_same_batch_in_any_order_and_others_another(self) -> None:
        rows = [{"id": "a", "shots": ["x"]}, {"id": "b", "shots": ["y"]}]
        swapped = [{"id": "a", "shots": ["y"]}, {"id": "b", "shots": ["x"]}]
        batch = from_lines(*rows).resolved("pocket").batch

        assert from_lines(*rows[::-1], rows[0]).resolved("pocket").batch == batch
        assert from_lines(*rows[:1]).resolved("pocket").batch != batch
        assert from_lines(*swapped).resolved("pocket").batch != batch
        assert from_lines(*rows).resolved("flux-schnell").batch != batch

    def test_a_batch_that_the_file_names_is_kept(self) -> None:
        manifest = from_yaml("batch: night\nshots: [x]").resolved("pocket")

        assert (manifest.batch, manifest.jobs[0].batch) == ("night", "night")

    def test_resolving_twice_is_resolving_once(self) -> None:
        once = from_lines({"shots": ["x"]}).resolved("pocket")

        assert once.resolved("flux-schnell") == once

    @pytest.mark.parametrize(
        ("file", "start"),
        [
            ("Été 2026 (v2).yaml", "Ete-2026-v2-"),
            ("夜.yaml", "batch-"),
            ("a" * 100 + ".yaml", "a" * 55 + "-"),
            ("..yaml", "batch-"),
        ],
    )
    def test_a_file_of_any_name_makes_a_batch_that_names_outputs(self, file: str, start: str) -> None:
        manifest = parse_manifest("shots: [x]", file, "yaml").resolved("pocket")

        assert manifest.batch.startswith(start)
        assert len(manifest.batch) == len(start) + 8 <= 64
        assert parse_job(manifest.jobs[0].to_json()) == manifest.jobs[0]


class TestPrompt:
    def test_a_prompt_is_a_manifest_of_one_shot_called_after_its_words(self) -> None:
        manifest = from_prompt("A red sun, over blue hills!")
        (only,) = manifest.jobs

        assert manifest.name == only.id == "A-red-sun-over-blue-hills"
        assert [(shot.prompt, shot.duration) for shot in only.shots] == [("A red sun, over blue hills!", 4)]
        assert manifest.resolved("pocket").batch.startswith("A-red-sun-over-blue-hills-")

    def test_a_prompt_in_any_script_makes_a_name(self) -> None:
        assert from_prompt("赤い太陽").jobs[0].id == "video"

    @pytest.mark.parametrize("prompt", ["", "  ", "y" * 8001, "\ud83d"])
    def test_a_prompt_that_no_shot_takes_is_refused(self, prompt: str) -> None:
        with pytest.raises(InvalidJob) as caught:
            from_prompt(prompt)

        assert [problem.field for problem in caught.value.problems] == ["prompt"]


def _accepts_or_explains(text: str, kind: Kind) -> None:
    problems: Any = None
    try:
        parse_manifest(text, "fuzz", kind)
    except InvalidJob as exc:
        problems = exc.problems
    assert problems != ()
    for problem in problems or ():
        assert problem.message
        assert problem.place.startswith("fuzz")


kinds: st.SearchStrategy[Kind] = st.sampled_from(["yaml", "json", "jsonl"])
pieces = st.sampled_from(
    [
        "jobs: ",
        "defaults: ",
        "shot: ",
        "shots: ",
        "- ",
        "  ",
        "\n",
        "prompt: x",
        "&a ",
        "*a",
        "<<: ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        '"batch": ',
        '"defaults": ',
        '"shots": ',
        "motion: ",
        "zoom: [1, 2]",
        "~",
        "!!int ",
        "\t",
        "'",
        '"',
        "#",
        "---\n",
        "? ",
    ]
)


@given(st.text(st.characters()) | st.lists(pieces, max_size=20).map("".join), kinds)
def test_any_text_gives_a_manifest_or_an_explanation(text: str, kind: Kind) -> None:
    _accepts_or_explains(text, kind)


@given(st.sampled_from(["nightly.yaml", "storyboard.jsonl"]), st.data())
def test_a_damaged_manifest_gives_a_manifest_or_an_explanation(name: str, data: st.DataObject) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(pieces | st.text(max_size=2)) + text[at + data.draw(st.integers(0, 20)) :]

    _accepts_or_explains(text, "jsonl" if name.endswith("jsonl") else "yaml")


fields = st.sampled_from(
    ["shots", "shot", "prompt", "motion", "zoom", "output", "width", "transition", "type", "id", "seed", "labels", "x"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=3),
    max_leaves=10,
)


@given(values, st.lists(values, max_size=3), kinds)
def test_any_values_as_defaults_and_jobs_give_a_manifest_or_an_explanation(
    defaults: Any, rows: list[Any], kind: Kind
) -> None:
    if kind == "jsonl":
        text = "\n".join(map(json.dumps, [{"defaults": defaults}, *rows]))
    else:
        text = json.dumps({"defaults": defaults, "jobs": rows})

    _accepts_or_explains(text, kind)


@pytest.mark.parametrize("name", ["broken.yaml", "broken.jsonl", "broken.csv"])
def test_the_reference_page_shows_what_a_user_would_see(name: str) -> None:
    page = (Path(__file__).parent.parent / "docs/reference/manifest.md").read_text(encoding="utf-8")
    _, source, _, output, *_ = page.split(f"`{name}`,")[1].split("```")

    with pytest.raises(InvalidJob) as caught:
        parse_manifest(source.partition("\n")[2], name, KINDS[Path(name).suffix])

    assert str(caught.value) == output.removeprefix("text\n").strip()


@pytest.mark.parametrize("index", [0, 1])
def test_the_manifests_of_the_reference_page_are_sound(index: int) -> None:
    page = (Path(__file__).parent.parent / "docs/reference/manifest.md").read_text(encoding="utf-8")
    form, _, source = page.split("```")[1 + 2 * index].partition("\n")

    manifest = parse_manifest(source, "page", "jsonl" if form == "json" else "yaml")

    assert (manifest.batch, [job.id for job in manifest.jobs]) == ("tuesday", ["harbour", "hills"])


@pytest.mark.parametrize(
    ("heading", "kind", "ids"),
    [
        ("Tables", "csv", ["harbour", "hills"]),
        (
            "Lists",
            "txt",
            ["a-yellow-sun-over-a-calm-sea-by-day-d7f2bb15", "a-red-sun-over-blue-hills-at-sunset-4921d045"],
        ),
        ("Templates", "yaml", ["Zoe-Sons", "Acme"]),
    ],
)
def test_the_other_manifests_of_the_reference_page_are_sound(heading: str, kind: Kind, ids: list[str]) -> None:
    page = (Path(__file__).parent.parent / "docs/reference/manifest.md").read_text(encoding="utf-8")
    source = page.split(f"\n## {heading}\n")[1].split("```")[1].partition("\n")[2]

    manifest = parse_manifest(source, "page", kind)

    assert [job.id for job in manifest.jobs] == ids
    assert manifest.remarks == ()


def test_the_tables_and_the_storyboard_of_the_spreadsheet_page_are_sound(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs/how-to/spreadsheet.md").read_text(encoding="utf-8")
    tables = [part.split("\n\n")[0].splitlines() for part in page.split("\n\n|")[1:]]
    for name, lines in zip(("films.csv", "clients.csv"), tables, strict=True):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|---")]
        (tmp_path / name).write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    (tmp_path / "greetings.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])

    films = load_manifest(tmp_path / "films.csv")
    greetings = load_manifest(tmp_path / "greetings.yaml", local_files=True)

    assert [(job.id, len(job.shots)) for job in films.jobs] == [("harbour", 2), ("hills", 1)]
    assert [job.id for job in greetings.jobs] == ["greeting-Acme", "greeting-Zoe-Sons"]
    assert films.remarks == greetings.remarks == ()
