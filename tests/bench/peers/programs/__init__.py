"""One program per peer, run by the interpreter of its own environment; they import nothing of ours but `job`."""
