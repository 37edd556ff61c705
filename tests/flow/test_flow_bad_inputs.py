"""What cannot work fails with the class user_error and a message that names the value and the way out."""

from pathlib import Path
from typing import Any

import pytest

from prunus.configs import Campaign
from prunus.service.errors import Refused
from tests.bad_inputs import EXPECTED, bad_jobs
from tests.flow.flow_service import UpService
from tests.tiny_inputs import TinyInputs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
OVER_RAY = ("missing-file",)
"""Whose whole way to the user is looked at here; ``contract/test_bad_inputs.py`` has every one."""


@pytest.fixture(scope="module")
def failed(service: UpService, tiny: TinyInputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """These jobs, over. The server looks at local files when they are submitted, so one goes missing later."""
    root = tmp_path_factory.mktemp("bad")
    jobs = [job for job in bad_jobs(tiny, root) if job["name"] in OVER_RAY]
    campaign = Campaign.model_validate({"name": "bad", "jobs": jobs})
    with service.client as client:
        view = client.submit(campaign)
    (root / "nowhere.txt").unlink()
    assert service.cli("wait", view.id, timeout_s=1700).returncode == 1
    return {job["name"]: job for job in service.answer("list", "--campaign", view.id)}


@pytest.mark.parametrize("name", OVER_RAY)
def test_a_mistake_is_a_user_error_with_a_clear_message(service: UpService, failed: dict[str, Any], name: str) -> None:
    job = failed[name]
    assert job["state"] == "FAILED"
    assert "user_error" in job["why"] or job["attempts"][-1]["reason"] == "user_error", service.explain(job)
    for words in EXPECTED[name]:
        assert words in job["why"], job["why"]
    assert "Traceback" not in job["why"]
    assert "defect" not in job["why"]
    assert len(job["attempts"]) <= 1, "a user error is never tried again"


@pytest.mark.parametrize(
    "resources", [{"num_ranks": 1, "gpus_per_rank": 1}, {"num_ranks": 2, "cpus_per_rank": 2}, {"num_ranks": 1000}]
)
def test_more_than_the_cluster_can_ever_have_is_refused_at_submit(
    service: UpService, tiny: TinyInputs, tmp_path: Path, resources: dict[str, Any]
) -> None:
    job = bad_jobs(tiny, tmp_path)[4] | {"method": {"name": "dense"}, "resources": resources}
    job["train"] = {**job["train"], "batch_size": 1000}
    with service.client as client, pytest.raises(Refused) as refused:
        client.submit(Campaign.model_validate({"jobs": [job]}))
    assert "GPU" in str(refused.value) or "CPU" in str(refused.value)


def test_the_command_line_looks_for_files_before_it_submits(
    service: UpService, tiny: TinyInputs, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"name: r\ntask: {{name: masked_lm, data: {{train: {{files: [{tmp_path}/nowhere.txt]}}}}}}\n"
        f"model: {{from: {tiny.model}}}\ntrain: {{num_steps: 1, lr: {{peak: 1.0e-3}}}}\n",
        encoding="utf-8",
    )
    refused = service.cli("submit", str(recipe))
    assert refused.returncode == 2
    assert "nowhere.txt" in refused.stderr
