"""`run-steps doctor`: what a worker needs of a live cluster, checked without changing anything."""
