"""Metrics and log lines of a worker, and the happenings that write them."""
