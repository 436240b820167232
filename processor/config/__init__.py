"""Settings: read from a file and the environment, checked, frozen."""
