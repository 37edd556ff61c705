"""What the unit tests leave out where only the light install is there (no torch, no Ray): ``make test-python``.

Everything else of ``tests/configs``, ``tests/cluster``, ``tests/service`` and of this folder runs there.
"""

from importlib.util import find_spec

FOLDERS = ("benchmarks", "contract", "flow", "jobs")
"""Tests of what trains; each loads torch."""

FILES = (
    "cluster/test_driver.py",  # Ray Train's exceptions
    "service/cli/test_compare.py",  # compares in a process with torch
    "service/local/test_up.py",  # starts a stand-in for an installed Ray and MLflow
)

TESTS = (
    "cluster/test_deploy.py::test_ray_up_takes_the_file",  # Ray's own schema
    "configs/artifacts/compact/test_codec.py::test_compressed_tensors_writes_and_reads_the_same",
    "service/cli/test_plan.py::test_the_command_draws_every_job_without_a_server",  # matplotlib
    "service/cli/test_plan.py::test_the_picture",
    "test_packaging.py::test_folders_of_the_users_own_shadow_none_of_ours[by-hand]",  # python -m prunus.jobs
)

IS_LIGHT = find_spec("torch") is None


def is_left_out(node_id: str) -> bool:
    """Tell whether a test, by its id relative to ``tests/``, needs more than the light install."""
    folders = [f"{folder}/" for folder in FOLDERS]
    return node_id.startswith((*folders, *FILES, *TESTS))
