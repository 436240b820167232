"""Replay: read a range of the source, fold it afresh and judge what was published from it.

A replay is a set of independent tasks, one per source partition, for any `concurrent.futures.Executor`: a task is
data, `run_task` uses nothing but its argument, and the same task gives the same bytes wherever it runs. No producer
exists in this path and no group is joined.
"""
