"""The dialect of Responses streams: a response is the run, an output item the step (docs/responses.md)."""
