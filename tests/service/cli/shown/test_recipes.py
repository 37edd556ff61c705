"""The table of ``prunus submit --dry-run``."""

from typing import Any

import pytest

from prunus.service.cli.shown.recipes import plan_table
from tests.service.world import make_campaign, make_spec


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"name": "dense"}, "dense"),
        ({"name": "parp", "final_sparsity": 0.9}, "parp 0.9"),
        ({"name": "parp", "initial_sparsity": 0.6, "final_sparsity": 0.9}, "parp 0.6 to 0.9"),
        ({"name": "parp", "initial_sparsity": 0.0, "final_sparsity": 0.9}, "parp 0 to 0.9"),
        ({"name": "gradual_magnitude", "final_sparsity": 0.5}, "gradual_magnitude 0.5"),
        ({"name": "gradual_magnitude", "initial_sparsity": 0.5, "final_sparsity": 0.5}, "gradual_magnitude 0.5"),
    ],
)
def test_a_plan_says_from_which_sparsity_to_which(method: dict[str, Any], words: str) -> None:
    table = plan_table(make_campaign(make_spec("a", method=method)))
    assert [str(cell) for cell in table.columns[2].cells] == [words]
