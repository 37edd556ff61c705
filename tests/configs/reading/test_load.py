"""Campaigns: matrix, vars, defaults, --set, references, order, files."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.configs import Campaign, ConfigError, load_file, load_text
from tests.configs.recipe_texts import JOB, campaign, job, load, refusal

PRUNE = job(
    "prune",
    matrix="{sparsity: [0.8, 0.9]}",
    method="{name: gradual_magnitude, final_sparsity: '${matrix.sparsity}'}",
)


def names(loaded: Campaign) -> list[str]:
    return [spec.name for spec in loaded.jobs]


# Matrix and variables


def test_a_matrix_makes_a_job_of_every_cell_and_keeps_the_type_of_values() -> None:
    loaded = load(campaign(PRUNE))
    assert names(loaded) == ["prune-0.8", "prune-0.9"]
    assert [spec.method.final_sparsity for spec in loaded.jobs] == [0.8, 0.9]  # type: ignore[union-attr]


def test_a_name_with_matrix_values_is_taken_as_written() -> None:
    text = PRUNE.replace("name: prune", "name: 's${matrix.sparsity}'", 1)
    assert names(load(campaign(text))) == ["s0.8", "s0.9"]


def test_the_campaigns_matrix_is_crossed_with_the_jobs() -> None:
    text = campaign(PRUNE, head="campaign: c\nmatrix: {seed: [1, 2]}\n")
    assert names(load(text)) == ["prune-1-0.8", "prune-1-0.9", "prune-2-0.8", "prune-2-0.9"]


def test_a_single_job_may_have_a_matrix() -> None:
    assert names(load(PRUNE)) == ["prune-0.8", "prune-0.9"]


@pytest.mark.parametrize("head", ["campaign: c\nmax_parallel: 3\n", "campaign: c\n"])
def test_a_campaign_says_how_many_of_its_jobs_may_run_at_a_time(head: str) -> None:
    assert load(campaign(PRUNE, head=head)).max_parallel == (3 if "max" in head else None)
    assert load_text(campaign(PRUNE, head=head), overrides=["max_parallel=5"]).max_parallel == 5


def test_a_single_job_with_a_matrix_may_say_so_too() -> None:
    assert load(PRUNE + "max_parallel: 1\n").max_parallel == 1


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("0", "max_parallel: must be greater than or equal to 1, got 0"),
        ("-2", "max_parallel: must be greater than or equal to 1, got -2"),
        ("many", "max_parallel: must be a whole number, got many"),
        ("1.5", "max_parallel: must be a whole number, got 1.5"),
        ("true", "max_parallel must not be true or false, got true; give a value"),
        ("3000000000", "max_parallel: must be less than or equal to 1000000, got 3000000000"),
    ],
)
def test_a_limit_that_is_none_is_refused_with_its_line(written: str, what: str) -> None:
    assert refusal(campaign(JOB, head=f"campaign: c\nmax_parallel: {written}\n")) == f"r.yaml:2: {what}"


def test_two_cells_of_one_name_are_refused() -> None:
    text = PRUNE.replace("[0.8, 0.9]", "[0.5, '0.5']")
    assert "two jobs are named 'prune-0.5'; rename one of them; in a matrix, write ${matrix.KEY} into name:" in refusal(
        campaign(text)
    )


def test_a_matrix_of_thousands_of_millions_is_refused_at_once() -> None:
    keys = ", ".join(f"k{i}: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" for i in range(12))
    message = refusal(campaign(JOB + f"matrix: {{{keys}}}\n"))
    assert "expands to 1,000,000,000,000 jobs or more, at most 2,000 are taken at once" in message


@pytest.mark.parametrize("matrix", ["[a]", "abc", "{s: 0.5}", "{s: []}", "{s: {a: 1}}"])
def test_a_matrix_of_the_wrong_form_is_refused(matrix: str) -> None:
    assert refusal(campaign(JOB + f"matrix: {matrix}\n")).startswith("r.yaml:7: jobs[0].matrix")


def test_variables_keep_their_type_alone_and_are_text_inside_text() -> None:
    text = "vars: {steps: 7, dir: data, corpus: '${vars.dir}/a.txt'}\n" + job(
        "a", train="{num_steps: '${vars.steps}', lr: {peak: 1e-4}}", labels="{n: 's${vars.steps}'}"
    ).replace("[a.txt]", "['${vars.corpus}']")
    [spec] = load(text).jobs
    assert spec.train.num_steps == 7
    assert spec.labels == {"n": "s7"}
    assert spec.task.data.train.files == ("data/a.txt",)


@pytest.mark.parametrize("name", ["vars.y", "env.HOME", "matrix.z", "x", ""])
def test_an_unknown_variable_is_refused_with_those_known(name: str) -> None:
    text = "vars: {x: 1}\n" + job("a", model=f"{{from: '${{{name}}}'}}")
    assert refusal(text) == f"r.yaml:4: model.from: unknown variable ${{{name}}}; known: vars.x"


def test_a_variable_without_a_value_is_not_written_into_a_text() -> None:
    text = "vars: {x: }\n" + job("a", model="{from: '${vars.x}/m'}")
    expected = "r.yaml:4: model.from: ${vars.x} has no value; write one, or set it: --set vars.NAME=value"
    assert refusal(text) == expected


@pytest.mark.parametrize(
    ("values", "expected"), [("[es, it, es]", "has 'es' more than once"), ("[1, 1, 2, 2]", "has 1, 2 more than once")]
)
def test_a_value_of_a_matrix_is_written_once(values: str, expected: str) -> None:
    message = refusal(campaign(JOB, head=f"campaign: c\nmatrix: {{k: {values}}}\n"))
    assert message == f"r.yaml:2: matrix.k: {expected}; write each value once"


@pytest.mark.parametrize("section", ["vars", "defaults", "matrix"])
@pytest.mark.parametrize("value", ["[a]", "abc", "5"])
def test_a_section_of_the_wrong_form_is_refused(section: str, value: str) -> None:
    message = refusal(campaign(JOB, head=f"campaign: c\n{section}: {value}\n"))
    assert message.startswith(f"r.yaml:2: {section}: must be a mapping of names to values, got")


# Defaults


def test_defaults_lie_under_a_job_deeply_and_lists_replace() -> None:
    head = "campaign: c\ndefaults:\n  train: {seed: 7, lr: {warmup: 0.5}}\n  engine: {strategy: zero1}\n"
    spec = load(campaign(JOB, head=head)).jobs[0]
    assert (spec.train.seed, spec.train.lr.warmup, spec.train.lr.peak) == (7, 0.5, 5e-5)
    assert spec.engine.strategy == "zero1"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (None, ("gradual_magnitude", 0.5, 7)),
        ("{final_sparsity: 0.9}", ("gradual_magnitude", 0.9, 7)),
        ("{name: gradual_magnitude, final_sparsity: 0.9}", ("gradual_magnitude", 0.9, 7)),
        ("{name: dense}", ("dense", None, None)),
        ("{name: gradual_magnitude, final_sparsity: 0.9, update_every: 1}", ("gradual_magnitude", 0.9, 1)),
    ],
)
def test_defaults_of_a_method_hold_for_the_same_method_alone(method: str | None, expected: tuple[Any, ...]) -> None:
    head = "campaign: c\ndefaults:\n  method: {name: gradual_magnitude, final_sparsity: 0.5, update_every: 7}\n"
    found = load(campaign(job("a", method=method) if method else JOB, head=head)).jobs[0].method
    assert (found.name, getattr(found, "final_sparsity", None), getattr(found, "update_every", None)) == expected


def test_null_takes_a_default_away() -> None:
    head = "campaign: c\ndefaults:\n  distillation: {teacher: org/t}\n"
    with_teacher, without = load(campaign(JOB, job("b", distillation="null"), head=head)).jobs
    assert with_teacher.distillation is not None
    assert without.distillation is None


def test_a_label_called_name_is_merged_like_any_other() -> None:
    head = "campaign: c\ndefaults:\n  labels: {name: x, team: t}\n"
    assert load(campaign(job("a", labels="{name: y}"), head=head)).jobs[0].labels == {"name": "y", "team": "t"}


# --set


def test_set_changes_a_job() -> None:
    [spec] = load(
        JOB, "train.num_steps=20", "labels.a=no", "distillation.teacher=org/t", "task.data.train.files=[x]"
    ).jobs
    assert spec.train.num_steps == 20
    assert spec.labels == {"a": "no"}
    assert spec.distillation is not None
    assert spec.task.data.train.files == ("x",)


def test_set_reaches_into_what_was_null() -> None:
    assert load(JOB + "distillation: null\n", "distillation.teacher=org/t").jobs[0].sources["teacher"] == "org/t"


def test_set_changes_jobs_defaults_vars_and_matrix_of_a_campaign() -> None:
    head = "campaign: c\nvars: {dir: a}\n"
    text = campaign(JOB, job("b-0.9", labels="{d: '${vars.dir}'}"), head=head)
    loaded = load(text, "jobs.b-0.9.train.num_steps=5", "defaults.train.seed=3", "vars.dir=z", "campaign=other")
    assert loaded.name == "other"
    assert [spec.train.num_steps for spec in loaded.jobs] == [10, 5]
    assert [spec.train.seed for spec in loaded.jobs] == [3, 3]
    assert loaded.jobs[1].labels == {"d": "z"}
    assert len(load(campaign(JOB), "matrix.s=[1,2]").jobs) == 2


def test_set_on_an_aliased_mapping_changes_that_place_alone() -> None:
    text = campaign(job("a", engine="&e {strategy: zero1}"), job("b", engine="*e"))
    loaded = load(text, "jobs.a.engine.strategy=zero3")
    assert [spec.engine.strategy for spec in loaded.jobs] == ["zero3", "zero1"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("", "not of the form a.b=value"),
        ("train", "not of the form a.b=value"),
        ("a..b=1", "not of the form a.b=value"),
        ("=1", "not of the form a.b=value"),
        ("name.x=1", "name is not a mapping"),
        ("task.data.train.files.0=x", "give all of it: --set task.data.train.files=[...]"),
        ("train.num_steps=[", "not YAML"),
        ("jobs.a.b=1", "the file is one job, not a campaign"),
        ("train.lr.peek=1", "--set train.lr.peek=1: train.lr.peek: unknown key 'peek'; did you mean 'peak'?"),
        ("train.num_steps=1.5", "--set train.num_steps=1.5: train.num_steps: must be a whole number, got 1.5"),
        ("train=", "--set train=: train: must be a mapping of keys, got null"),
    ],
)
def test_a_wrong_set_is_told_as_such(override: str, expected: str) -> None:
    message = refusal(JOB, override)
    assert message.startswith(f"--set {override}")
    assert expected in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("jobs.zz.x=1", "names no job; write jobs.NAME.field=value; jobs: a"),
        ("jobs.a=1", "names no job"),
        ("jobs=1", "names no job"),
        ("train.num_steps=1", "the file is a campaign; begin with jobs.NAME., defaults. or vars."),
        ("defaults=5", "must be a mapping of names to values, got 5"),
        ("vars.spede=1", "--set vars.spede=1: unknown variable 'spede'; did you mean 'speed'?"),
        ("vars.zz=1", "--set vars.zz=1: unknown variable 'zz'; known: speed"),
    ],
)
def test_a_wrong_set_on_a_campaign_is_told_as_such(override: str, expected: str) -> None:
    assert expected in refusal(campaign(JOB, head="campaign: c\nvars: {speed: 1}\n"), override)


def test_a_variable_without_a_value_of_its_own_may_be_set() -> None:
    text = job("a", labels="{n: 's${ vars.steps }'}")
    assert "unknown variable" in refusal(text)
    assert load(text, "vars.steps=7").jobs[0].labels == {"n": "s7"}
    assert "known: none" in refusal(JOB, "vars.steps=7")


# References between jobs


def test_parents_come_first_otherwise_the_order_is_as_written() -> None:
    text = campaign(job("d"), job("c", model="{from: 'job:a'}"), job("b", after="[c]"), JOB)
    assert names(load(text)) == ["d", "a", "c", "b"]


def test_a_job_after_a_matrix_waits_for_all_its_cells() -> None:
    last = load(campaign(PRUNE, job("last", after="[prune]"))).jobs[-1]
    assert last.after == ("prune-0.8", "prune-0.9")


def test_a_job_with_the_same_matrix_key_takes_its_own_cell() -> None:
    fine = job(
        "fine",
        model="{from: 'job:prune'}",
        after="[prune]",
        matrix="{sparsity: [0.8, 0.9]}",
        method="{name: locked, mask: 'job:prune'}",
    )
    by_name = {spec.name: spec for spec in load(campaign(PRUNE, fine)).jobs}
    assert by_name["fine-0.9"].after == ("prune-0.9",)
    assert by_name["fine-0.9"].sources == {"model": "job:prune-0.9", "mask": "job:prune-0.9"}
    assert by_name["fine-0.8"].parents == ("prune-0.8",)


def test_two_jobs_cannot_register_the_same_model_under_the_same_alias() -> None:
    both = [job("a", output="{register_as: m}"), job("b", output="{register_as: m}")]
    assert "jobs 'a' and 'b' both register m@current; give each its own name" in refusal(campaign(*both))
    load(campaign(job("a", output="{register_as: m}"), job("b", output="{register_as: m, alias: other}")))


def test_a_reference_to_several_cells_is_refused() -> None:
    message = refusal(campaign(PRUNE, job("b", model="{from: 'job:prune'}")))
    assert "b.model.from: job:prune stands for 2 jobs of a matrix (prune-0.8, prune-0.9); name one of them" in message


def test_a_reference_outside_the_campaign_is_the_servers_business() -> None:
    assert load(JOB.replace("org/x", "job:earlier")).jobs[0].parents == ("earlier",)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([JOB, JOB], "r.yaml:7: two jobs are named 'a'"),
        ([job("a", after="[zz]")], "job 'a' comes after 'zz', which is not in this campaign; jobs here: a"),
        ([job("a", after="[a]")], "in a circle: a -> a"),
        ([job("a", model="{from: 'job:a'}")], "in a circle: a -> a"),
        ([job("a", after="[b]"), job("b", model="{from: 'job:a'}")], "jobs wait for each other in a circle"),
        ([job("a", distillation="{teacher: 'job:b'}"), job("b", after="[a]")], "jobs wait for each other in a circle"),
        ([job("a", after="b")], "r.yaml:7: jobs[0].after: must be a list, got b; write [b]"),
        ([job("a", after="[1]")], "jobs[0].after[0]: must be text, got 1; put it in quotes"),
        ([job("a", after="[[b]]")], "jobs[0].after[0]: must be text, got [b]"),
    ],
)
def test_a_graph_that_cannot_run_is_refused(jobs: list[str], expected: str) -> None:
    assert expected in refusal(campaign(*jobs))


def test_a_long_chain_is_ordered() -> None:
    jobs = [job(f"j{i}", after=f"[j{i + 1}]") for i in range(150)] + [job("j150")]
    assert names(load(campaign(*jobs))) == [f"j{i}" for i in range(150, -1, -1)]


# The document


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("campaign: c\njobs: []\n", "r.yaml:2: jobs: has no job; write each job as - name: NAME"),
        ("campaign: c\njobs:\n", "r.yaml:2: jobs: has no job; write each job as - name: NAME"),
        ("campaign: c\njobs: 5\n", "r.yaml:2: jobs: must be a list of jobs"),
        ("campaign: c\njobs: [a]\n", "r.yaml:2: jobs[0]: must be a mapping of a job's fields, got 'a'"),
        ("campain: c\njobs: [{}]\n", "r.yaml:1: campain: unknown key 'campain'; a campaign has campaign, defaults"),
        ("campaign: c\n" + JOB, "r.yaml:1: campaign: belongs to a campaign, and there is no jobs: here"),
        (campaign(JOB, head="campaign: C D\n"), "r.yaml:1: campaign: must match pattern"),
        (campaign(JOB, head="campaign: c\nlabels: [a]\n"), "r.yaml:2: labels: must be a mapping of keys, got [a]"),
    ],
)
def test_a_campaign_of_the_wrong_form_is_refused(text: str, expected: str) -> None:
    assert expected in refusal(text)


def test_a_description_is_for_people() -> None:
    assert load("description: what it does\n" + JOB).jobs == load(JOB).jobs
    assert load(campaign(JOB, head="campaign: c\ndescription: x\nlabels: {t: v}\n")).labels == {"t": "v"}


def test_a_campaign_survives_json() -> None:
    loaded = load(campaign(PRUNE, job("b", labels="{a: 'ü'}")))
    assert Campaign.model_validate_json(loaded.model_dump_json(by_alias=True)) == loaded
    assert Campaign.model_validate(json.loads(loaded.model_dump_json())) == loaded


# Files and paths


def test_relative_paths_are_taken_from_the_given_directory(tmp_path: Path) -> None:
    text = job("a", model="{from: ./m}", distillation="{teacher: org/t}").replace(
        "[a.txt]", "[a.txt, ../b/*.txt, /abs.txt, 'hf://d/x']"
    )
    [spec] = load_text(text, base=tmp_path / "here").jobs
    assert spec.task.data.train.files == (
        str(tmp_path / "here/a.txt"),
        str(tmp_path / "b/*.txt"),
        "/abs.txt",
        "hf://d/x",
    )
    assert spec.model.source == str(tmp_path / "here/m")
    assert spec.distillation is not None and spec.distillation.teacher == "org/t"


def test_a_home_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.from: not a usable path: '~nobody-of-that-name/m'"):
        load_text(job("a", model="{from: '~nobody-of-that-name/m'}"), base=tmp_path)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read: No such file"):
        load_file(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_file(tmp_path)
    with pytest.raises(ConfigError, match="not a file name"):
        load_file(Path("a\0b"))
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_file(tmp_path / "latin.yaml")


def test_a_byte_order_mark_and_windows_lines_are_taken(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_bytes(b"\xef\xbb\xbf" + JOB.replace("\n", "\r\n").encode())
    assert names(load_file(tmp_path / "w.yaml")) == ["a"]


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="larger than"):
        load_file(Path("/dev/zero"))
