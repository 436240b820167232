"""The command `run-steps`: one module per command, with the rendering of what it prints."""
