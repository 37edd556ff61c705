"""What may happen to the weights: one frozen class per pruning method, on one page.

The code of a method is ``jobs/methods/<name>.py``; the numbers here are checked before anything is queued,
so that a wrong one costs no GPU. Windows are fractions of the job's optimizer steps.
"""

from typing import Annotated

from pydantic import Field

from prunus.configs.methods.dense import Dense
from prunus.configs.methods.gradual_magnitude import GradualMagnitude
from prunus.configs.methods.locked import Locked
from prunus.configs.methods.movement import Movement
from prunus.configs.methods.parp import Parp

MethodSpec = Annotated[Dense | GradualMagnitude | Locked | Movement | Parp, Field(discriminator="name")]
