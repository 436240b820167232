"""Publish a service's event stream to the source topic."""

from processor.publish.publisher import RunPublisher

__all__ = ["RunPublisher"]
