"""Once, at set-up: let DeepSpeed compile its small CPU communication operator, and import the stack so that its
bytecode is there.

``python -m jobs.warm_up``; without it the first job on a machine does it, which takes tens of seconds.
"""

import sys

from deepspeed.accelerator import get_accelerator

from jobs import run


def main() -> int:
    """Build the operator; a machine without a compiler is told what follows."""
    assert run is not None
    accelerator = get_accelerator()
    if accelerator.device_name() != "cpu":
        return 0
    builder = accelerator.create_op_builder("ShareMemCommBuilder")
    try:
        builder.load(verbose=False)
    except (RuntimeError, OSError) as error:
        sys.stderr.write(f"prunus: DeepSpeed's operator was not compiled ({error}); install a C++ compiler (g++)\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
