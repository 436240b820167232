"""Reconcile: compare the service's own lists of steps with what was published. `comparison` is pure."""
