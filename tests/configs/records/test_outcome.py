"""Strict for what people write, lenient for what our own processes wrote; sources in four forms."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from prunus.configs import JobSpec, Launch, Outcome, Progress, RankError, StopReason
from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.specs.output import Output
from prunus.configs.values.sources import job_name, source_kind
from tests.configs.recipe_texts import JOB, load

SPEC = load(JOB).jobs[0]
LAUNCH = {
    "prunus_version": "0.1.0", "job_id": "j1", "job_name": "a", "attempt": 1, "attempt_id": "j1-a1", "token": "1",
    "job_dir": "/s/jobs/j1", "cache_dir": "/s/cache", "spec": SPEC.model_dump(by_alias=True),
}  # fmt: skip
RECORDS: list[tuple[Any, dict[str, Any]]] = [
    (Launch, LAUNCH),
    (Outcome, {"attempt_id": "j1-a1", "token": "1", "reason": "succeeded"}),
    (Progress, {"attempt_id": "j1-a1", "time": 1.0, "phase": "training"}),
    (RankError, {"rank": 0, "reason": "user_error", "message": "m", "time": 1.0}),
]


@pytest.mark.parametrize(("kind", "data"), RECORDS)
def test_a_record_of_a_newer_writer_is_read(kind: Any, data: dict[str, Any]) -> None:
    read = kind.model_validate(data | {"added_later": {"x": 1}})
    assert read == kind.model_validate(data)
    assert kind.model_validate_json(read.model_dump_json()) == read


def test_a_spec_refuses_unknown_keys_also_inside_a_launch() -> None:
    with pytest.raises(ValidationError, match="extra"):
        JobSpec.model_validate(SPEC.model_dump(by_alias=True) | {"added": 1})
    spec = SPEC.model_dump(by_alias=True) | {"added": 1}
    with pytest.raises(ValidationError, match="extra"):
        Launch.model_validate(LAUNCH | {"spec": spec})


def test_specs_are_frozen_and_equal_by_content() -> None:
    assert load(JOB).jobs[0] == SPEC
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.name = "b"  # type: ignore[misc]


def test_an_unknown_reason_is_refused() -> None:
    with pytest.raises(ValidationError):
        Outcome.model_validate({"attempt_id": "x", "token": "1", "reason": "tired"})
    assert {reason.value for reason in StopReason} >= {"succeeded", "user_error", "out_of_memory", "worker_lost"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.0, 1.2])
def test_sparsity_is_a_share_below_one(value: float) -> None:
    with pytest.raises(ValidationError):
        GradualMagnitude(final_sparsity=value)


def test_the_papers_numbers_are_the_defaults() -> None:
    method = GradualMagnitude(final_sparsity=0.9)
    assert (method.initial_sparsity, method.growth_window, method.selection_window) == (0.0, (0.0, 0.5), (0.0, 0.8))
    assert (method.scope, method.regrow) == ("per_layer", True)
    assert SPEC.train.weight_decay == 0.01
    assert SPEC.train.lr.warmup == 0.01


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("job:a-0.9", "job"),
        ("models:/Name_1@prod", "registry"),
        ("/a/b", "directory"),
        ("./a", "directory"),
        ("../a", "directory"),
        ("~/a", "directory"),
        (".", "directory"),
        ("bert-base-uncased", "hub"),
        ("org/name", "hub"),
    ],
)
def test_a_source_has_one_of_four_forms(reference: str, kind: str) -> None:
    assert source_kind(reference) == kind


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "job:",
        "job:a b",
        "job:a/b",
        "job:../x",
        "models:/a",
        "models:/a/1",
        "models:a@b",
        "a/b/c",
        "a b",
        "-x",
        "s3://b/x",
        "a\n",
    ],
)
def test_anything_else_is_no_source(reference: str) -> None:
    with pytest.raises(ValueError, match="write"):
        source_kind(reference)


def test_the_name_of_a_job_reference() -> None:
    assert job_name("job:a-0.9") == "a-0.9"


@pytest.mark.parametrize("alias", ["latest", "LATEST", "v1", "v12"])
def test_an_alias_that_mlflow_keeps_for_itself_is_refused(alias: str) -> None:
    with pytest.raises(ValidationError, match="reserved by MLflow; use another word"):
        Output(alias=alias)
    assert Output(alias="prod").alias == "prod"
    assert Output().alias == "current"


def test_an_outcome_with_a_nan_metric_is_read_back() -> None:
    outcome = Outcome(attempt_id="j-a1", token="1", reason=StopReason.SUCCEEDED, metrics={"eval/loss": float("nan")})
    read = Outcome.model_validate_json(outcome.model_dump_json())
    assert math.isnan(read.metrics["eval/loss"])
