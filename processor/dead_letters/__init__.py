"""Dead letters: read them, select them, and redrive them to the source topic exactly once."""
