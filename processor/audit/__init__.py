"""The audit: derive the published records again from the log, and compare."""
