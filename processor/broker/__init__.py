"""A real single-node Apache Kafka on 127.0.0.1: for the demo, the tests and the bench.

`parts` fetches Java and the jars, `settings` writes server.properties, `probe` tests whether the broker serves, `node`
runs it. The worker does not import this package: to the worker a broker is `kafka.bootstrap_servers`.
"""

from processor.broker.node import Broker, serve
from processor.broker.settings import Security

__all__ = ["Broker", "Security", "serve"]
