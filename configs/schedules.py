"""Pure functions of the optimizer step t = 0 .. num_steps - 1: sparsity and learning rate.

Sources: Zhu and Gupta, "To prune, or not to prune" (arXiv 1710.01878), equation 1; Zafrir et al., "Prune Once for All"
(arXiv 2111.05754), section 3 and the scheduler published with it.
"""

import math
from dataclasses import dataclass


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


def is_update_step(step: int, selection: Window, growth: Window, update_every: int) -> bool:
    """Whether masks are chosen anew after this step: every ``update_every`` steps of the selection window [begin, end],
    and at the end of growth, so that the target is reached exactly even if no regular update falls there."""
    if step == growth.end:
        return True
    return selection.begin <= step <= selection.end and (step - selection.begin) % update_every == 0


def is_parp_update(step: int, num_steps: int, update_every: int) -> bool:
    """Whether PARP prunes after this step: every ``update_every`` steps, and after the last one (0: the first mask)."""
    return step % update_every == 0 or step == num_steps


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
