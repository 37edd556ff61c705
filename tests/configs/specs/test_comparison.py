"""A job that compares, from YAML to its spec: whom it waits for, and what it may not say."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from prunus.configs import AnySpec, Campaign, ComparisonSpec, JobSpec, load_text
from prunus.configs.artifacts.comparison.result import Comparison, Entry
from tests.configs.recipe_texts import JOB, campaign, job, load, refusal

PRUNE = job(
    "prune",
    matrix="{language: [es, fr], sparsity: [0.5, 0.8]}",
    method="{name: gradual_magnitude, final_sparsity: '${matrix.sparsity}'}",
)
CELLS = ["prune-es-0.5", "prune-es-0.8", "prune-fr-0.5", "prune-fr-0.8"]


def comparing(jobs: str, more: str = "") -> str:
    return f"name: compare\ncompare: {{jobs: {jobs}{more}}}\n"


def the_comparison(loaded: Campaign) -> ComparisonSpec:
    (found,) = [spec for spec in loaded.jobs if isinstance(spec, ComparisonSpec)]
    return found


def test_a_name_with_a_matrix_stands_for_all_its_cells() -> None:
    loaded = load(campaign(comparing("[a, prune]"), JOB, PRUNE))
    spec = the_comparison(loaded)
    assert spec.compare.jobs == ("a", *CELLS)
    assert list(spec.parents) == ["a", *CELLS]
    assert loaded.jobs[-1] is spec  # all that it compares comes first
    assert (spec.resources.num_ranks, spec.compare.by) == (1, ("method",))


def test_a_comparison_with_a_matrix_has_the_cells_that_agree_with_its_own() -> None:
    text = comparing("[prune]", ", by: [method.final_sparsity]") + "matrix: {language: [es, fr]}\n"
    found = {spec.name: spec.parents for spec in load(campaign(PRUNE, text)).jobs if isinstance(spec, ComparisonSpec)}
    assert found == {"compare-es": tuple(CELLS[:2]), "compare-fr": tuple(CELLS[2:])}


def test_what_exists_already_is_named_as_everywhere() -> None:
    spec = the_comparison(load(comparing("['job:old', './dir', 'models:/m@current']")))
    assert spec.sources == {"old": "job:old", "./dir": "./dir", "models:/m@current": "models:/m@current"}
    assert (spec.parents, spec.names) == (("old",), ())


def test_directories_are_taken_from_where_the_recipe_is_submitted() -> None:
    loaded = load_text(comparing("[./dir, 'job:old']"), base=Path("/base"))
    assert the_comparison(loaded).compare.jobs == ("/base/dir", "job:old")


def test_of_the_defaults_it_takes_labels_alone_and_it_stands_beside_the_campaigns_matrix() -> None:
    head = (
        "campaign: c\nmatrix: {seed: [1, 2]}\ndefaults:\n  labels: {team: x}\n  engine: {strategy: zero1}\n"
        "  resources: {num_ranks: 2}\n  train: {batch_size: 8}\n"
    )
    loaded = load(campaign(JOB, comparing("[a]"), head=head))
    assert [spec.name for spec in loaded.jobs] == ["a-1", "a-2", "compare"]
    spec = the_comparison(loaded)
    assert (spec.labels, spec.parents, spec.resources.num_ranks) == ({"team": "x"}, ("a-1", "a-2"), 1)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ("[a, nope]", "compare.jobs: job 'compare' compares 'nope', which is not in this campaign; jobs here: a, "
         "compare; for an earlier one write job:nope"),
        ("[a, compare]", "job 'compare' reads from 'compare', which compares and leaves neither model nor mask"),
        ("[a]", "jobs names 1 to compare (a); name at least two, or a job of this campaign with a matrix"),
        ("[]", "jobs names 0 to compare"),
        ("[a, 'job:a']", "jobs names a twice; name each once"),
        ("[a, org/x]", "jobs names 'org/x', which is no job and no directory; write a name of this campaign, job:NAME"),
        ("a", "compare.jobs: must be a list, got a; write [a]"),
        ("[a, 5]", "compare.jobs[1]: must be text, got 5"),
        ("[a, b], by: []", "by names nothing; name a label"),
        ("[a, b], bye: [x]", "unknown key 'bye'; did you mean 'by'?"),
    ],
)  # fmt: skip
def test_a_comparison_that_cannot_work(jobs: str, expected: str) -> None:
    assert expected in refusal(campaign(JOB, comparing(jobs)))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train: {num_steps: 1}", "r.yaml:9: jobs[1]: train belongs to a job that trains, and compare: makes this one "
         "compare; take train out, or write two jobs"),
        ("resources: {num_ranks: 2}", "r.yaml:9: jobs[1]: resources.num_ranks 2 and gpus_per_rank 0: a comparison runs "
         "on one rank without GPUs; leave both out"),
        ("resources: {gpus_per_rank: 1}", "gpus_per_rank 1: a comparison runs on one rank without GPUs"),
        ("lables: {a: b}", "r.yaml:9: jobs[1].lables: unknown key 'lables'; did you mean 'labels'?"),
    ],
)  # fmt: skip
def test_a_line_that_has_no_place_in_it(line: str, expected: str) -> None:
    assert expected in refusal(campaign(JOB, comparing("[a, 'job:b']") + line + "\n"))


def test_a_misspelt_kind_is_guessed() -> None:
    assert "unknown key 'comapre'; did you mean 'compare'?" in refusal(JOB + "comapre: {jobs: [b, c]}\n")


def test_jobs_that_wait_for_their_comparison_go_in_a_circle() -> None:
    message = refusal(campaign(JOB, job("b", after="[compare]"), comparing("[a, b]")))
    assert "jobs wait for each other in a circle" in message and "mask: or compare:" in message


def test_a_comparison_is_no_model() -> None:
    message = refusal(campaign(JOB, comparing("[a, 'job:x']"), job("b", model="{from: 'job:compare'}")))
    assert "job 'b' reads from 'compare', which compares and leaves neither model nor mask" in message


def test_both_kinds_survive_the_wire_and_the_kind_is_told_by_what_is_there() -> None:
    loaded = load(campaign(JOB, PRUNE, comparing("[a, prune]")))
    assert Campaign.model_validate_json(loaded.model_dump_json(by_alias=True)) == loaded
    either: TypeAdapter[AnySpec] = TypeAdapter(AnySpec)
    kinds = [type(either.validate_json(spec.model_dump_json(by_alias=True))) for spec in loaded.jobs]
    assert kinds == [JobSpec] * 5 + [ComparisonSpec]
    # What the store reads: keys of another release are dropped.
    newer = loaded.jobs[-1].model_dump(mode="json") | {"added": 1}
    assert either.validate_python(newer, extra="ignore") == loaded.jobs[-1]
    with pytest.raises(ValidationError, match="added"):
        either.validate_python(newer)


def test_the_answer_is_read_back_and_names_the_metrics_of_the_whole_data() -> None:
    whole = Entry(name="a", source="s", metrics={"eval/wer": 0.5, "eval/wer/es": 0.5})
    other = Entry(name="b", source="s", metrics={"eval/cer": 1})
    found = Comparison(by=("method",), entries=(whole, other), masked=("a", "b"), iou_kept=((1.0, None), (None, 1.0)))
    assert Comparison.model_validate_json(found.model_dump_json()) == found
    assert found.metric_names == ["eval/cer", "eval/wer"]
