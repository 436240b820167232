"""The dialect of run steps: the step of a run, its events and their texts (docs/semantics.md)."""
