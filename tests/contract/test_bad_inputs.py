"""What cannot work ends a job as user_error, with a message that names the value and the way out."""

from pathlib import Path

import pytest

from prunus.configs import JobSpec, StopReason
from prunus.jobs.by_hand import launch_by_hand
from tests.bad_inputs import EXPECTED, bad_jobs
from tests.contract.gang_runs import Gangs
from tests.tiny_inputs import TinyInputs

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_mistake_is_a_user_error_with_a_clear_message(
    gangs: Gangs, tiny: TinyInputs, tmp_path: Path, name: str
) -> None:
    (bad,) = [job for job in bad_jobs(tiny, tmp_path) if job["name"] == name]
    (tmp_path / "nowhere.txt").unlink()
    run = gangs.launch(launch_by_hand(JobSpec.model_validate(bad), gangs.new_directory()))
    assert run.exit_codes == [1]
    assert run.error.reason is StopReason.USER_ERROR
    for words in EXPECTED[name]:
        assert words in run.error.message
    assert "Traceback" not in run.error.message
    assert "defect" not in run.error.message
