"""Other stream processors at the same job, on the same topic, under the same check; see README.md beside this."""
