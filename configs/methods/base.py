"""What every method's spec answers, whatever its fields: where masks change, and how sparse they are meant to be."""

from prunus.configs.values.base import Strict


class MethodBase(Strict):
    """Base of all methods' specs. Steps count optimizer steps done, 0 .. num_steps."""

    def updates_after(self, step: int, num_steps: int) -> bool:
        """Whether masks are chosen after this step."""
        del step, num_steps
        return False

    def sparsity_at(self, step: int, num_steps: int) -> float | None:
        """Sparsity that is aimed at after this step, in [0, 1); None where it follows from something else."""
        del step, num_steps
        return None
