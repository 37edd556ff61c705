"""No input ends in anything but a campaign or our error: mappings, bent campaigns and overrides made by hypothesis."""

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.configs import Campaign, ConfigError, load_text
from tests.configs.recipe_texts import JOB, campaign, job

PRUNE = job(
    "prune",
    matrix="{sparsity: [0.8, 0.9]}",
    method="{name: gradual_magnitude, final_sparsity: '${matrix.sparsity}'}",
)
WORDS = [
    "name",
    "task",
    "model",
    "method",
    "train",
    "jobs",
    "vars",
    "matrix",
    "defaults",
    "campaign",
    "labels",
    "after",
    "engine",
    "data",
    "lr",
    "peak",
    "from",
    "teacher",
    "num_steps",
    "dense",
    "locked",
    "masked_lm",
    "gradual_magnitude",
    "final_sparsity",
    "files",
    "distillation",
    "deepspeed",
    "zero_optimization",
    "job:a",
    "${vars.x}",
    "${matrix.x}",
    "./x",
    "~",
    "~x",
    "a",
    "output",
    "resources",
    "prunable",
    "include",
    "mask",
    "description",
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2**70), st.floats(), st.sampled_from(WORDS), st.text(max_size=6)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
GOOD = yaml.safe_load(campaign(PRUNE, job("b", after="[prune]")))


def loads_or_refuses(text: str, *overrides: str) -> None:
    try:
        loaded = load_text(text, file="r.yaml", overrides=overrides, base=Path("/base"))
    except ConfigError as error:
        assert str(error)
    else:
        assert isinstance(loaded, Campaign)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6))
def test_any_mapping_is_a_campaign_or_a_config_error(document: dict[str, Any]) -> None:
    loads_or_refuses(yaml.safe_dump(document, allow_unicode=True))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_a_good_campaign_bent_anywhere_is_a_campaign_or_a_config_error(data: st.DataObject) -> None:
    document = json.loads(json.dumps(GOOD))
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(VALUES)
        break
    loads_or_refuses(yaml.safe_dump(document, allow_unicode=True))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*WORDS, "b", "prune"]), min_size=1, max_size=4), st.text(max_size=8))
def test_any_override_is_taken_or_refused(parts: list[str], value: str) -> None:
    loads_or_refuses(JOB, f"{'.'.join(parts)}={value}")
    loads_or_refuses(yaml.safe_dump(GOOD), f"jobs.{'.'.join(parts)}={value}", f"{'.'.join(parts)}={value}")
