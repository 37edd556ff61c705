"""Pure functions of the optimizer step t = 0 .. num_steps - 1: sparsity and learning rate.

Sources: Zhu and Gupta, "To prune, or not to prune" (arXiv 1710.01878), equation 1; Zafrir et al., "Prune Once for All"
(arXiv 2111.05754), section 3 and the scheduler published with it.
"""

import math
from dataclasses import dataclass

from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.methods.parp import Parp
from prunus.configs.methods.union import MethodSpec
from prunus.configs.specs.training import LearningRate
from prunus.configs.values.patterns import NOfM, parse_pattern


@dataclass(frozen=True)
class Window:
    """Half-open range of optimizer steps [begin, end)."""

    begin: int
    end: int


def window_steps(fractions: tuple[float, float], num_steps: int) -> Window:
    """Turn a window given in fractions of the job into optimizer steps (rounded to the nearest)."""
    return Window(round(fractions[0] * num_steps), round(fractions[1] * num_steps))


def cubic_sparsity(step: int, growth: Window, initial: float, final: float) -> float:
    """s(t) = s_f + (s_i - s_f) (1 - (t - t0) / (t1 - t0))^3, constant outside [t0, t1] (1710.01878, equation 1).

    Args:
        step: Optimizer steps done before this update.
        growth: t0 and t1; where they are equal, the jump to ``final`` happens at t0.
        initial, final: Sparsity in [0, 1).
    """
    if step >= growth.end:
        return final
    if step <= growth.begin:
        return initial
    left = 1.0 - (step - growth.begin) / (growth.end - growth.begin)
    return final + (initial - final) * left**3


def linear_sparsity(step: int, growth: Window, initial: float, final: float) -> float:
    """Straight from ``initial`` at t0 to ``final`` at t1, constant outside; arguments as for :func:`cubic_sparsity`."""
    if step >= growth.end:
        return final
    if step <= growth.begin:
        return initial
    return initial + (final - initial) * (step - growth.begin) / (growth.end - growth.begin)


def sparsity_at(step: int, num_steps: int, method: GradualMagnitude | Parp) -> float:
    """Sparsity that a method aims at after ``step`` of ``num_steps`` optimizer steps, in [0, 1)."""
    growth = window_steps(method.growth_window, num_steps)
    if isinstance(method, Parp):
        return linear_sparsity(step, growth, method.first_sparsity, method.final_sparsity)
    if method.schedule == "constant":
        sparsity = method.final_sparsity if step >= growth.begin else method.initial_sparsity
    else:
        rule = cubic_sparsity if method.schedule == "cubic" else linear_sparsity
        sparsity = rule(step, growth, method.initial_sparsity, method.final_sparsity)
    pattern = parse_pattern(method.pattern)
    if isinstance(pattern, NOfM):  # only so many steps on the way: 0, 1/4, 2/4
        return pattern.num_removed(sparsity, method.final_sparsity) / pattern.of
    return sparsity


def is_update_step(step: int, selection: Window, growth: Window, update_every: int) -> bool:
    """Whether masks are chosen anew after this step: every ``update_every`` steps of the selection window [begin, end],
    and at the end of growth, so that the target is reached exactly even if no regular update falls there."""
    if step == growth.end:
        return True
    return selection.begin <= step <= selection.end and (step - selection.begin) % update_every == 0


def is_parp_update(step: int, num_steps: int, update_every: int) -> bool:
    """Whether PARP prunes after this step: every ``update_every`` steps, and after the last one (0: the first mask)."""
    return step % update_every == 0 or step == num_steps


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


def tri_stage(step: int, num_steps: int, warmup: int, hold: int) -> float:
    """Rise, hold and fall of wav2vec 2.0's fine-tuning (fairseq's tri_stage, initial scale 0.01, final scale 0.05).

    t < w              0.01 + 0.99 t / w
    w <= t < w + h     1
    w + h <= t         exp(ln(0.05) (t - w - h) / (N - w - h))
    """
    if step < warmup:
        return 0.01 + 0.99 * step / warmup
    if step < warmup + hold:
        return 1.0
    return math.exp(math.log(0.05) * (step - warmup - hold) / max(1, num_steps - warmup - hold))
