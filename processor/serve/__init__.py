"""The live worker: poll, apply, commit; its restore, its supervisor and its HTTP endpoints."""
