"""What is said to Ray's dashboard, and what its answers mean."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from prunus.cluster.errors import ClusterRefused, ClusterUnreachable
from prunus.cluster.ray_jobs import RayJobs
from prunus.configs import ComparisonSpec
from tests.cluster.test_fake import make_launch


class Dashboard:
    """Keeps requests; answers with what a test sets."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answer = httpx.Response(200, json={"submission_id": "x"})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.method == "GET":
            return httpx.Response(404)
        return self.answer if request.method == "POST" else httpx.Response(200)

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.requests[-1].content)
        return found


@pytest.fixture
def dashboard() -> Dashboard:
    return Dashboard()


def make_ray(dashboard: Dashboard, **more: Any) -> RayJobs:
    environment = {"env_vars": {"MLFLOW_TRACKING_TOKEN": "t"}}
    transport = httpx.MockTransport(dashboard)
    return RayJobs("http://ray:8265", "secret", "py", environment, transport=transport, **more)


def test_an_attempt_is_one_submission_of_its_driver(dashboard: Dashboard, tmp_path: Path) -> None:
    make_ray(dashboard).submit(make_launch(tmp_path))
    request = dashboard.requests[-1]
    assert (request.method, request.url.path) == ("POST", "/api/jobs/")
    assert request.headers["Authorization"] == "Bearer secret"
    assert dashboard.body["submission_id"] == "j-1-a1"
    assert dashboard.body["entrypoint"] == f"py -m prunus.cluster.driver {tmp_path}/attempts/1/launch.json"
    assert dashboard.body["runtime_env"]["env_vars"]["PRUNUS_ATTEMPT"] == "j-1-a1"
    assert dashboard.body["entrypoint_num_cpus"] == 0  # the ranks hold what the gang asked for


def test_a_comparison_holds_its_cpu_itself(dashboard: Dashboard, tmp_path: Path) -> None:
    """It runs in the driver, which Ray must not start where no CPU is free."""
    spec = ComparisonSpec.model_validate(
        {"name": "c", "compare": {"jobs": ["a", "b"]}, "resources": {"cpus_per_rank": 2}}
    )
    make_ray(dashboard).submit(make_launch(tmp_path).model_copy(update={"spec": spec}))
    assert dashboard.body["entrypoint_num_cpus"] == 2


def test_a_try_to_publish_is_a_submission_that_holds_no_cpu_and_is_no_process_of_the_attempt(
    dashboard: Dashboard, tmp_path: Path
) -> None:
    make_ray(dashboard).publish(make_launch(tmp_path), "j-1-p3")
    body = dashboard.body
    assert body["submission_id"] == "j-1-p3"
    assert body["entrypoint"] == f"py -m prunus.jobs.tracking.late_publish {tmp_path}/tracking/publish.json"
    assert body["entrypoint_num_cpus"] == 0
    assert body["metadata"]["prunus_job"] == "j-1"
    variables = body["runtime_env"]["env_vars"]
    assert variables["MLFLOW_TRACKING_TOKEN"] == "t"
    assert "PRUNUS_ATTEMPT" not in variables


def test_a_path_with_a_space_stays_one_argument(dashboard: Dashboard, tmp_path: Path) -> None:
    root = tmp_path / "my jobs"
    make_ray(dashboard).publish(make_launch(root), "j-1-p1")
    assert dashboard.body["entrypoint"] == f"py -m prunus.jobs.tracking.late_publish '{root}/tracking/publish.json'"


def test_shipped_code_comes_with_both(dashboard: Dashboard, tmp_path: Path) -> None:
    ray = make_ray(dashboard, ship_code=True)
    ray.publish(make_launch(tmp_path), "j-1-p1")
    assert [request.method for request in dashboard.requests] == ["GET", "PUT", "POST"]
    assert dashboard.body["runtime_env"]["py_modules"][0].startswith("gcs://_ray_pkg_")


def test_an_id_that_ray_knows_is_adopted(dashboard: Dashboard, tmp_path: Path) -> None:
    dashboard.answer = httpx.Response(500, text="Job with submission_id j-1-p1 already exists.")
    make_ray(dashboard).publish(make_launch(tmp_path), "j-1-p1")
    assert len(dashboard.requests) == 1


def test_the_drivers_output_is_whole() -> None:
    text = "line\n" * 100_000
    ray = RayJobs("http://ray:8265", transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"logs": text})))
    assert ray.driver_log("j-1-a1") == text


@pytest.mark.parametrize(("status", "error"), [(500, ClusterUnreachable), (401, ClusterRefused), (400, ClusterRefused)])
def test_other_errors_are_told_apart(dashboard: Dashboard, tmp_path: Path, status: int, error: type[Exception]) -> None:
    dashboard.answer = httpx.Response(status, text="no")
    with pytest.raises(error, match=r"j-1-p1|token"):
        make_ray(dashboard).publish(make_launch(tmp_path), "j-1-p1")
