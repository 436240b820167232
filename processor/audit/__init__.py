"""The audit: what was published is derived again from the log and compared."""
