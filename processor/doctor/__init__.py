"""`run-steps doctor`: check a live cluster for what a worker needs, without changing anything."""
