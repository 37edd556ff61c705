"""What a person wrote wrongly is told as file:line: path: what, got VALUE; remedy."""

import pickle

import pytest

from prunus.configs import ConfigError, RecipeErrors
from tests.configs.recipe_texts import JOB, campaign, job, load, refusal

PRUNE = "method: {name: gradual_magnitude, final_sparsity: %s}\n"


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (PRUNE % "1.2", "r.yaml:5: method.final_sparsity: must be less than 1, got 1.2; Share of the prunable weights"),
        (PRUNE % "-0.1", "r.yaml:5: method.final_sparsity: must be greater than or equal to 0, got -0.1"),
        (PRUNE % ".nan", "r.yaml:5: method.final_sparsity: must be a number, got '.nan'"),
        (PRUNE % "true", "final_sparsity must not be true or false, got true"),
        (PRUNE % "[0.5]", "r.yaml:5: method.final_sparsity: must be a number, got [0.5]"),
        ("method: {name: gradualmagnitude}\n", "r.yaml:5: method.name: unknown method 'gradualmagnitude'; known: "
         "dense, gradual_magnitude, locked, movement, parp; did you mean 'gradual_magnitude'?"),
        ("method: {final_sparsity: 0.5}\n",
         "r.yaml:5: method.name: is missing; known: dense, gradual_magnitude, locked, movement, parp"),
        ("method: dense\n", "r.yaml:5: method: must be a mapping of keys, got dense; write {name: dense}"),
        ("method:\n", "r.yaml:5: method: must be a mapping of keys, got null"),
        ("method: {name: locked, final_sparsity: 0.5}\n",
         "r.yaml:5: method.final_sparsity: unknown key 'final_sparsity'; known: mask, name, prunable"),
        ("method: {name: locked, mask: 'job:'}\n",
         "r.yaml:5: method.mask: not a job reference: 'job:'; write job:NAME"),
        ("method: {name: locked, prunable: {include: abc}}\n",
         "r.yaml:5: method.prunable.include: must be a list, got abc; write [abc]"),
        ("method: {name: locked, prunable: {exclude: ['(']}}\n", "not a regular expression: '('"),
        ("num_steps: 5\n", "r.yaml:5: num_steps: unknown key 'num_steps'; it belongs to train.num_steps"),
        ("trian: {}\n", "r.yaml:5: trian: unknown key 'trian'; did you mean 'train'?"),
        ("engine: {strategy: zero9}\n",
         "r.yaml:5: engine.strategy: must be 'ddp', 'zero0', 'zero1', 'zero2' or 'zero3'"),
        ("engine: {deepspeed: {fp16: {}}}\n", "r.yaml:5: engine: set by prunus, not here: fp16"),
        ("engine: {deepspeed: {zero_optimization: {stage: 1}}}\n", "zero_optimization.stage"),
        ("engine: {deepspeed: {zero_optimization: {offload_optimizer: {}}}}\n", "masks cannot follow weights"),
        ("engine: {precision: fp16, strategy: ddp}\n", "use zero1, zero2 or zero3, or precision bf16"),
        ("engine: {precision: fp16, strategy: zero0}\n", "use zero1, zero2 or zero3, or precision bf16"),
        ("engine: {deepspeed: {zero_optimization: 5}}\n", "must be a mapping of keys, got 5"),
        ("engine: {strategy: ddp, deepspeed: {x: 1}}\n", "no effect with strategy ddp"),
        ("labels: {a: 1}\n", "r.yaml:5: labels.a: must be text, got 1; put it in quotes"),
        ("timeout_s: 0\n", "r.yaml:5: timeout_s: must be greater than 0, got 0"),
        ("output: {register_as: a/b}\n", "r.yaml:5: output.register_as: must match pattern"),
        ("resources: {gpus_per_rank: 2}\n", "a rank drives one GPU: raise num_ranks instead"),
        ("resources: {num_ranks: true}\n", "num_ranks must not be true or false"),
        ("distillation: {teacher: org/t, task_weight: 0, teacher_weight: 0}\n", "nothing would be learned"),
        ("after: [true]\n", "r.yaml:5: after[0]: must be text, got true; put it in quotes"),
        ("schema_version: 2\n", "r.yaml:5: schema_version: must be 1, got 2"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_job(added: str, expected: str) -> None:
    assert expected in refusal(JOB + added)


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ("growth_window: [0.5, 0.1]", "growth_window begins after it ends: [0.5, 0.1]; swap the two"),
        ("selection_window: [0.9, 0.8]", "selection_window begins after it ends"),
        ("growth_window: [0.0, 0.9]", "selection_window ends at 0.8, before growth_window at 0.9"),
        ("selection_window: [0.2, 0.8]", "selection_window begins at 0.2, after growth_window at 0.0"),
        ("growth_window: [0.1, 0.2, 0.3]", "at most 2 items"),
        ("growth_window: [0.1]", "growth_window"),
        ("initial_sparsity: 0.95", "initial_sparsity 0.95 is above final_sparsity 0.9; sparsity only grows"),
    ],
)
def test_windows_that_cannot_work(windows: str, expected: str) -> None:
    method = f"method: {{name: gradual_magnitude, final_sparsity: 0.9, {windows}}}\n"
    assert expected in refusal(JOB + method)


@pytest.mark.parametrize(
    ("train", "ranks", "expected"),
    [
        ("batch_size: 10, micro_batch_size: 3", 1, "batch_size 10 is not a multiple of micro_batch_size 3"),
        ("batch_size: 10", 4, "r.yaml:4: train.batch_size 10 cannot be split over resources.num_ranks 4 x "
         "train.micro_batch_size auto; use a multiple of 4"),
        ("batch_size: 10, micro_batch_size: 5", 4, "use a multiple of 20"),
        ("batch_size: 2", 4, "use a multiple of 4"),
        ("num_epochs: 1", 1, "give exactly one of num_steps and num_epochs"),
        ("betas: [0.9, 1.0]", 1, "train.betas[1]: must be less than 1, got 1.0"),
        ("eval_every: 0", 1, "train.eval_every: must be greater than or equal to 1, got 0"),
        ("batch_size: 1.5", 1, "train.batch_size: must be a whole number, got 1.5"),
    ],
)  # fmt: skip
def test_lengths_and_batches_that_cannot_work(train: str, ranks: int, expected: str) -> None:
    text = job("a", train=f"{{num_steps: 10, lr: {{peak: 5e-5}}, {train}}}", resources=f"{{num_ranks: {ranks}}}")
    assert expected in refusal(text)


def test_a_batch_that_splits_is_taken() -> None:
    text = job(
        "a",
        train="{num_steps: 1, batch_size: 24, micro_batch_size: 3, lr: {peak: 1e-4}}",
        resources="{num_ranks: 4}",
    )
    [spec] = load(text).jobs
    assert (spec.micro_batch_size, spec.accumulation_steps) == (3, 2)


def test_rewinding_needs_mask_updates() -> None:
    text = job("a", train="{num_steps: 10, lr: {peak: 1e-4, schedule: linear_rewind}}")
    assert "follows the mask updates of gradual_magnitude, but method is dense; use linear" in refusal(text)
    assert load(text + PRUNE % "0.5").jobs[0].train.lr.schedule == "linear_rewind"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("task", "{name: mlm, data: {}}", "r.yaml:2: task.name: unknown task 'mlm'; known: masked_lm, classification"),
        ("task", "{name: masked_lm, data: {train: {files: a.txt}}}", "data.train.files: must be a list, got a.txt"),
        ("task", "{name: masked_lm, data: {train: {split: x}}}", "give exactly one of files and hub"),
        ("task", "{name: masked_lm, mask_probability: 0, data: {train: {hub: x}}}", "must be greater than 0, got 0"),
        ("task", "{name: classification, labels: [x, x], data: {train: {hub: x}, eval: {hub: x}}}", "a class twice: x"),
        ("model", "{from: a b}", "r.yaml:3: model.from: not a source: 'a b'; write job:NAME, models:/NAME@ALIAS"),
        ("model", "{from: 'models:/x'}", "not a registry reference: 'models:/x'; write models:/NAME@ALIAS"),
        ("name", "Big Name", "r.yaml:1: name: must match pattern"),
        ("name", "5", "r.yaml:1: name: must be text, got 5; put it in quotes"),
    ],
)
def test_a_wrong_value_of_a_needed_field(field: str, value: str, expected: str) -> None:
    assert expected in refusal(
        job("a", **{field: value}) if field != "name" else JOB.replace("name: a", f"name: {value}", 1)
    )


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    with pytest.raises(RecipeErrors) as caught:
        load("name: a\ntrian: {}\n")
    assert [(error.path, error.what) for error in caught.value.errors] == [
        ("task", "is missing"),
        ("model", "is missing"),
        ("train", "is missing"),
        ("trian", "unknown key 'trian'"),
    ]


def test_a_mistake_in_defaults_is_told_once_and_there() -> None:
    head = "campaign: c\ndefaults:\n  trian: {num_steps: 3}\n  engine: {strategy: zero9}\n"
    lines = refusal(campaign(JOB, job("b"), head=head)).split("\n")
    assert len(lines) == 2
    assert lines[0].startswith("r.yaml:4: defaults.engine.strategy: must be")
    assert lines[1] == "r.yaml:3: defaults.trian: unknown key 'trian'; did you mean 'train'?"


def test_a_mistake_of_one_job_is_told_at_its_line() -> None:
    head = "campaign: c\ndefaults:\n  engine: {strategy: zero1}\n"
    message = refusal(campaign(JOB, job("b", engine="{strategi: zero2}"), head=head))
    assert message == "r.yaml:13: jobs[1].engine.strategi: unknown key 'strategi'; did you mean 'strategy'?"


@pytest.mark.parametrize("text", ["- a\n", "abc\n", "5\n", "---\n"])
def test_a_recipe_must_be_a_mapping(text: str) -> None:
    assert refusal(text) == "r.yaml:1: a recipe is a mapping of keys; see `prunus recipes`"


def test_errors_survive_pickling() -> None:
    one = ConfigError("what", path="a.b", file="f.yaml", line=3, remedy="do")
    several = RecipeErrors([one, ConfigError("other")])
    assert str(pickle.loads(pickle.dumps(one))) == "f.yaml:3: a.b: what; do"
    again = pickle.loads(pickle.dumps(several))
    assert (str(again), [error.line for error in again.errors]) == (str(several), [3, None])
    assert not again.retryable


def test_rewinding_needs_room_after_growth() -> None:
    method = "{name: gradual_magnitude, final_sparsity: 0.9, growth_window: [0, 0.95], selection_window: [0, 1]}"
    text = job("late", method=method, train="{num_steps: 10, lr: {peak: 1.0e-4, schedule: linear_rewind}}")
    assert "leave at least 0.1" in refusal(text)
