"""What the ranks run on: DDP or ZeRO, precision."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from prunus.configs.values.base import Strict


class Engine(Strict):
    """How the ranks share the work: Accelerate over DeepSpeed ZeRO or over plain DDP."""

    strategy: Literal["ddp", "zero0", "zero1", "zero2", "zero3"] = "zero2"
    """DeepSpeed ZeRO stage, or plain DistributedDataParallel without DeepSpeed."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of forward and backward; master weights and Adam moments are fp32 always. ``fp16`` (for GPUs before
    bf16) scales the loss dynamically, skips steps that overflow, and needs zero1, zero2 or zero3."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Merged over ``configs/deepspeed/zeroN.json``; keys that prunus computes (batch sizes, precision,
    optimizer, stage) are refused."""

    @property
    def zero_stage(self) -> int | None:
        """ZeRO stage 0-3, or None for plain DDP."""
        return None if self.strategy == "ddp" else int(self.strategy[-1])

    @model_validator(mode="after")
    def _no_owned_keys(self) -> Self:
        owned = {
            "train_batch_size",
            "train_micro_batch_size_per_gpu",
            "gradient_accumulation_steps",
            "gradient_clipping",
            "bf16",
            "fp16",
            "optimizer",
            "scheduler",
        }
        clash = sorted(owned & set(self.deepspeed))
        if self.precision == "fp16" and self.zero_stage in {None, 0}:
            raise ValueError(
                f"precision fp16 with strategy {self.strategy} has no fp32 masters that masks could hold; use zero1, "
                "zero2 or zero3, or precision bf16"
            )
        zero = self.deepspeed.get("zero_optimization", {})
        if not isinstance(zero, dict):
            raise ValueError(f"deepspeed.zero_optimization must be a mapping of keys, got {zero!r}")
        if "stage" in zero:
            clash.append("zero_optimization.stage")
        offload = sorted(key for key in zero if key.startswith("offload_"))
        if offload:
            raise ValueError(
                f"deepspeed.zero_optimization.{offload[0]}: masks cannot follow weights off the device yet; use a "
                "higher ZeRO stage, more ranks or engine.activation_checkpointing"
            )
        if clash:
            raise ValueError(f"set by prunus, not here: {', '.join(clash)}; use train: and engine.strategy")
        if self.deepspeed and self.strategy == "ddp":
            raise ValueError("deepspeed settings have no effect with strategy ddp")
        return self
