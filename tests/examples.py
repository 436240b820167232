"""How many examples a property is tried with: RUN_STEPS_EXAMPLES says it, for those with a number of their own, too."""

from __future__ import annotations

import os
from typing import Final

USUAL: Final = 40
EXAMPLES: Final = int(os.environ.get("RUN_STEPS_EXAMPLES", USUAL))


def examples(usual: int) -> int:
    """Count the examples of a property that is usually tried with `usual`, in proportion to RUN_STEPS_EXAMPLES."""
    return max(1, usual * EXAMPLES // USUAL)
