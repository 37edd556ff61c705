"""Launches, as the service writes them."""

from pathlib import Path

from prunus.configs import JobSpec, Launch


def launch_of(root: Path, num_ranks: int) -> Launch:
    spec = {
        "name": "j",
        "task": {"name": "masked_lm", "data": {"train": {"files": ["text.txt"]}}},
        "model": {"from": "some/model"},
        "train": {"num_steps": 1, "batch_size": 12, "lr": {"peak": 1e-3}},
        "resources": {"num_ranks": num_ranks},
    }
    return Launch(
        prunus_version="0",
        job_id="j",
        job_name="j",
        attempt=1,
        attempt_id="j-a1",
        token="1",
        job_dir=str(root),
        cache_dir=str(root),
        spec=JobSpec.model_validate(spec),
    )
