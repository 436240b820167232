"""A real single-node Apache Kafka on 127.0.0.1: for the demo, the tests and the bench.

`parts` gets what it is made of (Java, jars), `settings` says what it is told, `probe` whether it serves, `node`
runs it. Nothing in the worker knows of this package: to the worker a broker is `kafka.bootstrap_servers`.
"""

from processor.broker.node import Broker, serve
from processor.broker.settings import Security

__all__ = ["Broker", "Security", "serve"]
