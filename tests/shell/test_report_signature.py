"""The signature of a report: made, verified by us and by others, and found missing or wrong whatever a forger does."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from processor.audit.judge.verdicts import Verdict
from processor.audit.report.folder import check
from processor.audit.report.manifest import NAME, SIGNATURE, Outcome, encoded, read
from processor.audit.report.signature import (
    PAYLOAD_TYPE,
    Verified,
    pre_authentication_encoding,
    sign,
    signing_key,
    trusted_key,
    verify,
)
from processor.audit.source_commit import source_commit
from processor.cli import main as cli
from processor.errors import UsageError
from tests.shell.reports import PROGRAM, make

GUIDE = Path(__file__).parents[2] / "docs" / "auditors-guide.md"
WHEN = "2026-11-29T03:00:00+00:00"


def pem_of(private: Ed25519PrivateKey) -> tuple[bytes, bytes]:
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair, a signed report that found a difference, and the report that a forger would put in its place."""
    home = tmp_path_factory.mktemp("made")
    private, public = pem_of(Ed25519PrivateKey.generate())
    (home / "key.pem").write_bytes(private)
    (home / "public.pem").write_bytes(public)
    folder = home / "report"
    make(folder, partitions=1, steps=6, wrong=(Verdict.DIFFERENT,), created="then")
    key = signing_key(home / "key.pem")
    sign(folder, read(folder), key, who="Jane Doe", when=WHEN, program=PROGRAM, commit="c0ffee")
    make(home / "forged", partitions=1, steps=6, created="then")
    return home


@pytest.fixture
def keys(made: Path) -> tuple[Path, Path]:
    """(private, public)"""
    return made / "key.pem", made / "public.pem"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "forged", tmp_path / "forged")
    return Path(shutil.copytree(made / "report", tmp_path / "report"))


def verified(folder: Path, public: Path) -> Verified:
    return verify(folder, read(folder), [trusted_key(public)])


def payload_of(folder: Path) -> dict[str, object]:
    envelope = json.loads((folder / SIGNATURE).read_text())
    found: dict[str, object] = json.loads(base64.b64decode(envelope["payload"]))
    return found


def forged_as_proven(folder: Path) -> None:
    """What somebody does who has the folder, the code and no key: findings erased, all digests computed anew."""
    forged = folder.parent / "forged"
    shutil.move(folder / SIGNATURE, forged / SIGNATURE)
    shutil.rmtree(folder)
    forged.rename(folder)


def test_a_signed_report_is_whole_and_verifies(folder: Path, keys: tuple[Path, Path]) -> None:
    assert check(folder, program=PROGRAM).problems == []
    found = verified(folder, keys[1])
    assert found.problems == []
    assert found.signing is not None
    assert (found.signing.who, found.signing.when, found.signing.commit) == ("Jane Doe", WHEN, "c0ffee")


def test_the_statement_says_who_when_with_what_and_what_was_found(folder: Path) -> None:
    said, manifest = payload_of(folder), read(folder)
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["subject"] == [{"name": NAME, "digest": {"sha256": sha256((folder / NAME).read_bytes()).hexdigest()}}]
    predicate = said["predicate"]
    assert isinstance(predicate, dict)
    report = predicate["report"]
    assert (report["root"], report["verdict"]) == (manifest.root, "difference found")
    assert report["fold_version"] == manifest.about.fold_version
    assert report["settings"]["rules"] == msgspec.to_builtins(manifest.about.rules)
    assert [(one["begin"], one["end"], one["chain"]) for one in report["ranges"]] == [
        (one.begin, one.end, one.chain) for one in manifest.ranges
    ]
    assert predicate["signing"]["who"] == "Jane Doe"


def test_a_report_whose_digests_were_computed_anew_is_found(folder: Path, keys: tuple[Path, Path]) -> None:
    forged_as_proven(folder)
    assert check(folder, program=PROGRAM).problems == [], "all digests agree: this is why reports are signed"
    assert read(folder).verdict is Outcome.PROVEN
    assert verified(folder, keys[1]) == Verified(
        [f"{SIGNATURE}: signed was another manifest than the one in this folder"]
    )


def test_a_forger_may_not_sign_with_a_key_of_his_own(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, _ = pem_of(Ed25519PrivateKey.generate())
    (tmp_path / "other.pem").write_bytes(private)
    forged_as_proven(folder)
    other = signing_key(tmp_path / "other.pem")
    said = sign(folder, read(folder), other, who="Jane Doe", when=WHEN, program=PROGRAM, commit=None).read_text()
    assert verified(folder, keys[1]).problems == [f"{SIGNATURE}: no signature by a trusted key over this payload"]
    # `keyid` is a hint that anybody can write.
    true_id = signing_key(keys[0]).key_id
    (folder / SIGNATURE).write_text(said.replace(other.key_id, true_id))
    assert verified(folder, keys[1]).problems


@pytest.mark.parametrize("manner", ["payload", "type", "who", "cut", "no list", "no base64", "gone", "empty", "huge"])
def test_a_changed_envelope_is_found(folder: Path, keys: tuple[Path, Path], manner: str) -> None:
    path = folder / SIGNATURE
    envelope = json.loads(path.read_text())
    payload = base64.b64decode(envelope["payload"])
    match manner:
        case "payload":
            payload = payload.replace(b"difference found", b"proven")
        case "who":
            payload = payload.replace(b"Jane", b"John")
        case "type":
            envelope["payloadType"] = "text/plain"
        case "cut":
            envelope["signatures"] = []
        case "no list":
            envelope["signatures"] = {"sig": "x"}
        case "no base64":
            envelope["signatures"][0]["sig"] = "***"
    envelope["payload"] = base64.b64encode(payload).decode()
    path.write_text(json.dumps(envelope))
    if manner == "gone":
        path.unlink()
    elif manner == "empty":
        path.write_bytes(b"")
    elif manner == "huge":
        path.write_bytes(b"[" * 200_000)
    assert verified(folder, keys[1]).problems
    assert verified(folder, keys[1]).signing is None


def test_a_signed_statement_of_another_kind_is_no_signature_of_a_report(folder: Path, keys: tuple[Path, Path]) -> None:
    """A key may have signed other things: they must not pass for this."""
    key = signing_key(keys[0])
    others: list[object] = [
        {**payload_of(folder), "predicateType": "https://slsa.dev/provenance/v1"},
        {**payload_of(folder), "_type": "https://in-toto.io/Statement/v0.1"},
        {**payload_of(folder), "subject": []},
        {**payload_of(folder), "more": 1},
        [],
        "text",
    ]
    for said in others:
        payload = json.dumps(said).encode()
        signatures = [{"keyid": key.key_id, "sig": base64.b64encode(key.sign(payload)).decode()}]
        envelope = {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": signatures,
        }
        (folder / SIGNATURE).write_text(json.dumps(envelope))
        assert verified(folder, keys[1]).problems, said


def test_a_signature_over_a_payload_of_another_type_is_none(folder: Path, keys: tuple[Path, Path]) -> None:
    key = signing_key(keys[0])
    envelope = json.loads((folder / SIGNATURE).read_text())
    signed = pre_authentication_encoding("text/plain", base64.b64decode(envelope["payload"]))
    signatures = [{"keyid": key.key_id, "sig": base64.b64encode(key._private.sign(signed)).decode()}]
    (folder / SIGNATURE).write_text(json.dumps({**envelope, "payloadType": "text/plain", "signatures": signatures}))
    assert verified(folder, keys[1]).problems


def test_another_implementation_verifies_it(folder: Path, keys: tuple[Path, Path]) -> None:
    """securesystemslib, which is the reference of DSSE."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    plain = json.loads((folder / SIGNATURE).read_text())
    key_id = plain["signatures"][0]["keyid"]
    key = SSlibKey.from_crypto(load_pem_public_key(keys[1].read_bytes()), keyid=key_id)
    envelope = Envelope.from_dict(json.loads((folder / SIGNATURE).read_text()))  # which it changes
    assert envelope.pae() == pre_authentication_encoding(PAYLOAD_TYPE, base64.b64decode(plain["payload"]))
    assert list(envelope.verify([key], 1)) == [key_id]
    plain["payload"] = base64.b64encode(b"{}").decode()
    with pytest.raises(VerificationError):
        Envelope.from_dict(plain).verify([key], 1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here: apt-get install openssl")
def test_the_guide_verifies_it_with_public_tools(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    recipes = re.findall(r"```sh\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    (recipe,) = [one for one in recipes if "openssl" in one]
    script = tmp_path / "verify.sh"
    script.write_text(recipe)

    def done() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", script, folder, keys[1]], capture_output=True, text=True, timeout=120)

    good = done()
    assert good.returncode == 0, good.stderr
    assert "Signature Verified Successfully" in good.stdout
    assert f"{NAME}: OK" in good.stdout
    assert "Jane Doe" in good.stdout
    whole = (folder / SIGNATURE).read_text()
    envelope = json.loads(whole)
    envelope["payload"] = base64.b64encode(base64.b64decode(envelope["payload"]).replace(b"Jane", b"John")).decode()
    (folder / SIGNATURE).write_text(json.dumps(envelope))
    assert done().returncode != 0, "another payload"
    (folder / SIGNATURE).write_text(whole)
    forged_as_proven(folder)
    assert done().returncode != 0, "another manifest"


def run(*arguments: str | Path) -> int:
    return cli._run([*map(str, arguments)])


def test_the_command_checks_with_and_without_trust(
    folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("replay", "--check", folder) == 3
    assert "the signature was not checked" in capsys.readouterr().out
    assert run("replay", "--check", folder, "--trust", keys[1]) == 3
    out = capsys.readouterr().out
    assert "signed by the key" in out
    assert "'Jane Doe'" in out
    forged_as_proven(folder)
    assert run("replay", "--check", folder) == 0
    assert "the signature was not checked" in capsys.readouterr().out
    assert run("replay", "--check", folder, "--trust", keys[1]) == 65
    (folder / SIGNATURE).unlink()
    assert run("replay", "--check", folder) == 0
    assert "signature" not in capsys.readouterr().out
    assert run("replay", "--check", folder, "--trust", keys[1]) == 65


@pytest.mark.parametrize(
    "arguments",
    [("--sign", "KEY"), ("--signer", "Jane"), ("--trust", "PUBLIC"), ("--check", "REPORT", "--sign", "KEY")],
)
def test_options_that_are_of_no_use_alone_are_refused(arguments: tuple[str, ...]) -> None:
    assert run("replay", *arguments) == 64


def test_keys_that_cannot_be_used_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    pems = {
        "encrypted": private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        "another kind": generate_private_key(SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
        "public": pem_of(private)[1],
        "noise": b"\x00\xff" * 90_000,
    }
    for name, pem in pems.items():
        path = tmp_path / name
        path.write_bytes(pem)
        with pytest.raises(UsageError, match="--sign"):
            signing_key(path)
        if name != "public":
            with pytest.raises(UsageError, match="--trust"):
                trusted_key(path)
        assert run("replay", "--report", tmp_path / "new", "--sign", path) == 64
    assert run("replay", "--report", tmp_path / "new", "--sign", tmp_path / "nowhere") == 64
    assert not (tmp_path / "new").exists()


def test_the_commit_is_that_of_the_source() -> None:
    """This project is tested from a clone, where git knows it."""
    commit = source_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)


def test_the_manifest_may_not_change_between_replay_and_signature(folder: Path, keys: tuple[Path, Path]) -> None:
    from processor.audit.report.manifest import ReportError
    from processor.cli.report_check import sign_report

    before = read(folder)
    (folder / NAME).write_bytes(encoded(msgspec.structs.replace(before, verdict=Outcome.PROVEN).sealed()))
    with pytest.raises(ReportError, match="before it was signed"):
        sign_report(folder, before.root, signing_key(keys[0]), "Jane")
