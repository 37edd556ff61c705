"""The learning rate over a job's optimizer steps. Pure.

Source of ``linear_rewind``: the scheduler published with "Prune Once for All" (Zafrir et al., arXiv 2111.05754).
"""

from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.methods.union import MethodSpec
from prunus.configs.schedules import tri_stage, window_steps
from prunus.configs.specs.training import LearningRate


def lr_factor(step: int, num_steps: int, lr: LearningRate, method: MethodSpec) -> float:
    """Share of the peak learning rate at a step, >= 0.

    ``linear_rewind`` (2111.05754; the published scheduler): with N steps, warm-up w, growth [b, e), P = e - b and
    updates every f steps
      t < w         t / w
      w <= t < b    (N - P - t) / (N - P - w)
      b <= t < e    (N - P - t + r) / (N - P - w), r = floor((t - b) / f) f, so that the decay is rewound at each update
      e <= t        (N - t) / (N - P - w)
    """
    warmup = round(lr.warmup * num_steps)
    if lr.schedule == "tri_stage":
        return tri_stage(step, num_steps, warmup, round(lr.hold * num_steps))
    if step < warmup:
        return step / warmup
    if lr.schedule == "constant":
        return 1.0
    if lr.schedule == "linear":
        return max(0.0, (num_steps - step) / max(1, num_steps - warmup))
    assert isinstance(method, GradualMagnitude), "checked by JobSpec"
    growth = window_steps(method.growth_window, num_steps)
    paused = growth.end - growth.begin
    length = max(1, num_steps - paused - warmup)
    if step >= growth.end:
        return max(0.0, (num_steps - step) / length)
    if step < growth.begin:
        return max(0.0, (num_steps - paused - step) / length)
    # The published formula rewinds to r whole intervals after b; written relative to b it needs no offset.
    rewound = (step - growth.begin) // method.update_every * method.update_every
    return max(0.0, (num_steps - paused - step + rewound) / length)
