"""An attempt's gang by Ray Train: how many ranks, what each holds, how they find each other."""

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from prunus.cluster.worker import run_rank
from prunus.configs import Launch
from prunus.configs.artifacts.layout import JobDirectory
from prunus.configs.specs.base import JobBase

_PROCESS_GROUP_TIMEOUT_S = 1800


def connect() -> None:
    """Join the Ray cluster that started this driver."""
    ray.init(log_to_driver=True)


def run_gang(launch: Launch, launch_path: str) -> None:
    """Start the gang, and wait for its end.

    Raises:
        Exception: Ray Train's, if the gang did not start or a rank failed.
    """
    build_trainer(launch, launch_path).fit()


def build_trainer(launch: Launch, launch_path: str) -> TorchTrainer:
    """Say to Ray Train what gang this attempt needs."""
    spec = launch.spec
    return TorchTrainer(
        run_rank,
        train_loop_config={"launch": launch_path},
        scaling_config=scaling(spec),
        torch_config=TorchConfig(
            backend="nccl" if spec.resources.gpus_per_rank else "gloo", timeout_s=_PROCESS_GROUP_TIMEOUT_S
        ),
        run_config=RunConfig(
            name=launch.attempt_id,
            storage_path=str(JobDirectory(launch.job_dir).attempt(launch.attempt) / "ray"),
            failure_config=FailureConfig(max_failures=0),  # the service retries, by class of failure
        ),
    )


def scaling(spec: JobBase) -> ScalingConfig:
    """Gang of a spec: ranks, and what each one holds."""
    need = spec.resources
    per_worker: dict[str, float] = {"CPU": need.cpus_per_rank}
    if need.gpus_per_rank:
        per_worker["GPU"] = need.gpus_per_rank
    return ScalingConfig(
        num_workers=need.num_ranks,
        use_gpu=need.gpus_per_rank > 0,
        resources_per_worker=per_worker,
        placement_strategy={"pack": "PACK", "spread": "SPREAD"}[need.placement],
    )
