"""Print config/processor.toml: `python -m processor.config`, which `make config` calls."""

import sys

from processor.config.toml import render

sys.stdout.write(render())
