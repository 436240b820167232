"""Sign a report, and verify its signature: an in-toto statement (v1) in a DSSE envelope, signed with Ed25519.

The statement names manifest.json by its SHA-256 (and with it the root digest and every file), repeats what was asked
and found, and says who signed, when and with which program. A signature adds that the holder of a key said so: a person
who changes a report can compute all digests again, but not the signature. It does not make the report true.

https://github.com/in-toto/attestation (Statement v1), https://github.com/secure-systems-lab/dsse (v1).
The only importer of cryptography. docs/auditors-guide.md verifies the same with openssl and sha256sum.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from processor.audit.report.manifest import NAME, SIGNATURE, Manifest, ReportError
from processor.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:run-steps:replay-report:v1"

_MAX_BYTES: Final = 64 << 20
_MAX_KEY_BYTES: Final = 1 << 16
_MAX_SIGNATURES: Final = 100
_HINT_PRIVATE: Final = (
    "openssl genpkey -algorithm ed25519 -out key.pem; of an encrypted one: --sign <(openssl pkey -in F)"
)
_HINT_PUBLIC: Final = "openssl pkey -in key.pem -pubout -out public.pem"


class Signature(msgspec.Struct, frozen=True):
    """One signature of a DSSE envelope."""

    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, rename="camel"):
    """A DSSE envelope as JSON has it."""

    payload_type: str
    payload: str
    signatures: list[Signature]


class Signing(msgspec.Struct, frozen=True):
    """Claims of the signer. Only the key is proven.

    Attributes:
        key: SHA-256 of the public key (DER, SubjectPublicKeyInfo).
        who: a name, as the signer gave it; "" if none was given.
        when: the signer's clock, ISO 8601.
        program: version of the program that signed; `commit` of its source, None where that is not known.
    """

    key: str
    who: str
    when: str
    program: str
    commit: str | None


class SigningKey:
    """An Ed25519 private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key_id = _key_id(private.public_key())

    def sign(self, payload: bytes) -> bytes:
        return self._private.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload))


def require_extra() -> None:
    """Raises UsageError: the library that signs is not installed."""
    if find_spec("cryptography") is None:
        raise UsageError(
            "replay: --sign, --trust: need the extra `sign` (not installed: cryptography)",
            hint="pip install 'run-steps[audit,sign]'",
        )


def signing_key(path: Path) -> SigningKey:
    """Load a private key from a PEM file.

    Raises:
        UsageError: it cannot be read, is encrypted, or is not an Ed25519 key.
    """
    require_extra()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_pem(path, "--sign"), None)
    except (TypeError, ValueError, UnsupportedAlgorithm):  # its message may quote the file
        raise UsageError(
            f"replay: --sign: {path}: not a PEM private key without a password", hint=_HINT_PRIVATE
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"replay: --sign: {path}: not an Ed25519 key", hint=_HINT_PRIVATE)
    return SigningKey(key)


class TrustedKey:
    """An Ed25519 public key."""

    def __init__(self, public: Ed25519PublicKey) -> None:
        self._public = public
        self.key_id = _key_id(public)

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            self._public.verify(signature, signed)
        except InvalidSignature:
            return False
        return True


def trusted_key(path: Path) -> TrustedKey:
    """Load a public key from a PEM file.

    Raises:
        UsageError: it cannot be read, or is not an Ed25519 key.
    """
    require_extra()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_pem(path, "--trust"))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"replay: --trust: {path}: not a PEM public key", hint=_HINT_PUBLIC) from None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"replay: --trust: {path}: not an Ed25519 key", hint=_HINT_PUBLIC)
    return TrustedKey(key)


def _pem(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(f"replay: {option}: {path}: {error.strerror}", hint="name a PEM file") from None


def _key_id(public: Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that DSSE signs (its PAE): type and payload with their lengths."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement(manifest: Manifest, manifest_bytes: bytes, signing: Signing) -> dict[str, Any]:
    """The in-toto statement of a report."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": NAME, "digest": {"sha256": sha256(manifest_bytes).hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"report": _report(manifest), "signing": msgspec.to_builtins(signing)},
    }


def _report(manifest: Manifest) -> dict[str, Any]:
    """Fields of the manifest that the statement repeats, for a reader who has the statement alone."""
    about = manifest.about
    return {
        "root": manifest.root,
        "evidence": manifest.evidence,
        "verdict": manifest.verdict.value,
        "created": manifest.created,
        "program": about.program,
        "fold_version": about.fold_version,
        "settings": {
            "rules": msgspec.to_builtins(about.rules),
            "rules_digest": manifest.rules_digest,
            "outcome_topics": about.outcome_topics,
            "dead_letter": about.dead_letter,
            "narrowed": about.narrowed,
            "verified": about.verified,
        },
        "topic": about.topic,
        "source": about.source,
        "ranges": [
            {
                "partition": one.partition,
                "begin": one.begin,
                "end": one.end,
                "complete": one.complete,
                "records": one.records,
                "chain": one.chain,
            }
            for one in manifest.ranges
        ],
    }


def sign(
    folder: Path, manifest: Manifest, key: SigningKey, *, who: str, when: str, program: str, commit: str | None
) -> Path:
    """Write the signed statement into a report folder, beside the manifest that lies there; returns the file."""
    signing = Signing(key.key_id, who, when, program, commit)
    said = statement(manifest, (folder / NAME).read_bytes(), signing)
    payload = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    envelope = Envelope(
        PAYLOAD_TYPE,
        b64encode(payload).decode(),
        [Signature(key.key_id, b64encode(key.sign(payload)).decode())],
    )
    path = folder / SIGNATURE
    part = folder / f".{SIGNATURE}.part"
    part.write_bytes(json.dumps(msgspec.to_builtins(envelope), sort_keys=True, indent=1).encode() + b"\n")
    part.replace(path)
    return path


class Verified(msgspec.Struct, frozen=True):
    """Result of verifying a signature: faults, one sentence each; who signed, if one verifies."""

    problems: list[str]
    signing: Signing | None = None


def verify(folder: Path, manifest: Manifest, trusted: Sequence[TrustedKey]) -> Verified:
    """Verify the signature of a report with one of the trusted keys, and that it is over this manifest.

    Nothing of the payload is read before the signature over it holds.

    Args:
        manifest: as `manifest.read` gives it.
    """
    try:
        envelope = read_envelope(folder)
        if envelope is None:
            return Verified([f"{SIGNATURE}: missing: the report is not signed"])
        payload = b64decode(envelope.payload, validate=True)
        key = _verifying(envelope, payload, trusted)
        if key is None:
            return Verified([f"{SIGNATURE}: no signature by a trusted key over this payload"])
        said = json.loads(payload)
        signing = msgspec.convert(said["predicate"]["signing"], Signing)
    except ReportError as error:
        return Verified([error.message])
    except (Base64Error, ValueError, KeyError, TypeError, RecursionError, msgspec.ValidationError):
        return Verified([f"{SIGNATURE}: not an envelope or a statement of ours"])
    expected = json.loads(json.dumps(statement(manifest, (folder / NAME).read_bytes(), signing)))
    problems = []
    if signing.key != key.key_id:
        problems.append(f"{SIGNATURE}: names another key than the one that signed")
    if said != expected:
        problems.append(f"{SIGNATURE}: signed was another manifest than the one in this folder")
    return Verified(problems, None if problems else signing)


def _verifying(envelope: Envelope, payload: bytes, trusted: Sequence[TrustedKey]) -> TrustedKey | None:
    """The trusted key under which a signature holds. `keyid` is a hint, and not believed."""
    if envelope.payload_type != PAYLOAD_TYPE:
        return None
    signed = pre_authentication_encoding(envelope.payload_type, payload)
    for one in envelope.signatures[:_MAX_SIGNATURES]:
        signature = b64decode(one.sig, validate=True)
        for key in trusted:
            if key.verifies(signature, signed):
                return key
    return None


def read_envelope(folder: Path) -> Envelope | None:
    """The envelope of a report folder; None if it has none.

    Raises:
        ReportError: it cannot be read.
    """
    path = folder / SIGNATURE
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReportError(f"{SIGNATURE}: {error.strerror}", hint="the folder was changed") from None
    if len(content) > _MAX_BYTES:
        raise ReportError(f"{SIGNATURE}: larger than {_MAX_BYTES} bytes", hint="this is no signature of ours")
    try:
        return msgspec.json.decode(content, type=Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ReportError(f"{SIGNATURE}: not a DSSE envelope", hint="the file was changed") from None
