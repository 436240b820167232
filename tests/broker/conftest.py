"""A broker with TLS, SASL and ACLs, and the certificates to enter it with and to be turned away with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from processor.broker import Broker, Security
from tests.conftest import started_or_skipped

USER, PASSWORD = "app", "app-pw"
"""Known to both SASL mechanisms; no ACL lets it do anything until a test grants it."""
ADMIN, ADMIN_PASSWORD = "admin", "admin-pw"
"""A super user."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A client's certificate and key, one PEM file each. `name` is its CN, and so its Kafka principal."""

    name: str
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class SecureBroker:
    """At `broker.bootstrap` everyone is a super user; `bootstrap_ssl` and `bootstrap_sasl_ssl` are guarded."""

    broker: Broker
    authority: Path
    app: Identity
    stranger: Identity
    """Signed by an authority the broker does not know."""
    other_authority: Path
    """Did not sign the broker's certificate."""


@pytest.fixture(scope="session")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """TLS that demands a client certificate; SASL (SCRAM-SHA-512 and PLAIN) over TLS; ACLs that allow nothing."""
    home = tmp_path_factory.mktemp("certificates")
    ours, theirs = trustme.CA(), trustme.CA()
    authority, other_authority = home / "ca.pem", home / "other-ca.pem"
    ours.cert_pem.write_to_path(authority)
    theirs.cert_pem.write_to_path(other_authority)
    server = ours.issue_cert("127.0.0.1", "localhost", common_name="broker")
    certificate = home / "broker.pem"
    certificate.write_bytes(_pkcs8(server) + b"".join(blob.bytes() for blob in server.cert_chain_pems))
    security = Security(
        certificate=certificate,
        authority=authority,
        users={USER: PASSWORD, ADMIN: ADMIN_PASSWORD},
        super_users=[ADMIN],
    )
    with started_or_skipped(security=security) as running:
        yield SecureBroker(
            running,
            authority,
            _identity(ours, "app", home),
            _identity(theirs, "stranger", home),
            other_authority,
        )


def _identity(authority: trustme.CA, name: str, home: Path) -> Identity:
    issued = authority.issue_cert(f"{name}.test", common_name=name)
    identity = Identity(name, home / f"{name}.pem", home / f"{name}.key")
    identity.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    identity.key.write_bytes(_pkcs8(issued))
    return identity


def _pkcs8(issued: trustme.LeafCert) -> bytes:
    """The private key in the one form Kafka reads from PEM files."""
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
