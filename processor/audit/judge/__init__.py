"""The judge: verdicts on published records, pure like the core. Replay, explain and self-audit use it."""
