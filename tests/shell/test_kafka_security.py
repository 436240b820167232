"""Connection settings are judged before any connection: files, mechanisms, token providers. No broker."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest
import trustme
from aiokafka.errors import AuthenticationFailedError
from cryptography.hazmat.primitives import serialization

from processor.errors import ConfigError
from processor.kafka.client_config import Connection
from processor.kafka.tokens import TokenSource


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, client.pem, client.key (and locked.key, password "pw"), other.key, garbage.pem, der.pem."""
    home = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    client, other = authority.issue_cert("client"), authority.issue_cert("other")
    authority.cert_pem.write_to_path(home / "ca.pem")
    client.cert_chain_pems[0].write_to_path(home / "client.pem")
    client.private_key_pem.write_to_path(home / "client.key")
    other.private_key_pem.write_to_path(home / "other.key")
    key = serialization.load_pem_private_key(client.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pw"),
    )
    (home / "locked.key").write_bytes(locked)
    (home / "garbage.pem").write_text("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n")
    (home / "der.pem").write_bytes(b"\x30\x82\xff\xfe")
    (home / "empty.pem").write_text("")
    return home


def build(files: Path, **settings: str) -> Connection:
    named = {key: str(files / value) if key.endswith("_file") else value for key, value in settings.items()}
    return Connection.build("broker:9093", **{"security_protocol": "SSL", **named})  # type: ignore[arg-type]


def test_good_files_make_a_context_that_verifies(files: Path) -> None:
    for key, password in (("client.key", ""), ("locked.key", "pw")):
        connection = build(
            files, ssl_ca_file="ca.pem", ssl_cert_file="client.pem", ssl_key_file=key, ssl_key_password=password
        )
        assert connection.ssl_context is not None
        assert connection.ssl_context.check_hostname


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ssl_ca_file": "absent.pem"}, r"ssl_ca_file: .*absent\.pem: cannot be read \(No such file"),
        ({"ssl_ca_file": "empty.pem"}, r"empty\.pem: holds no PEM certificate"),
        ({"ssl_ca_file": "der.pem"}, r"der\.pem: not a PEM file"),
        ({"ssl_ca_file": "garbage.pem"}, r"ssl_ca_file: .*garbage\.pem: not a certificate"),
        ({"ssl_ca_file": "client.key"}, r"client\.key: holds no PEM certificate"),
        ({"ssl_cert_file": "client.pem"}, r"client\.pem: holds no PEM private key"),
        ({"ssl_key_file": "client.key"}, "ssl_cert_file: missing"),
        ({"ssl_cert_file": "client.pem", "ssl_key_file": "other.key"}, r"other\.key: not the key of .*client\.pem"),
        ({"ssl_cert_file": "client.pem", "ssl_key_file": "locked.key"}, r"locked\.key: it is encrypted"),
        (
            {"ssl_cert_file": "client.pem", "ssl_key_file": "locked.key", "ssl_key_password": "secret-no"},
            r"locked\.key: the password does not open it",
        ),
        ({"security_protocol": "TLS"}, "security_protocol: unknown"),
        ({"security_protocol": "SASL_SSL"}, "sasl_mechanism: unknown"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "sasl_username: missing"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "token_provider: not a provider"),
    ],
)
def test_bad_settings_are_named(files: Path, settings: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build(files, **settings)
    assert caught.value.hint
    assert "secret-no" not in str(caught.value)


@pytest.mark.parametrize("servers", ["", "broker", "broker:", ":9092", "broker:0", "a:1,b", "broker:http"])
def test_a_bad_address_is_named(servers: str) -> None:
    with pytest.raises(ConfigError, match="bootstrap_servers"):
        Connection.build(servers)


def test_secrets_stay_out_of_the_repr() -> None:
    connection = Connection.build(
        "b:1", security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="u", sasl_password="hush"
    )
    assert "hush" not in repr(connection)
    assert connection.kwargs()["sasl_plain_password"] == "hush"


# --- token providers ------------------------------------------------------------------------------------------------


def plain_token() -> str:
    return "plain"


async def async_token() -> tuple[str, float]:
    return "async", time.time() + 3600


class ClassToken:
    def token(self) -> str:
        return "class"


def failing_token() -> str:
    raise OSError("the vault is sealed")


def provider(name: str, **settings: str) -> TokenSource:
    connection = Connection.build(
        "b:1",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        token_provider=name,
        **settings,  # type: ignore[arg-type]
    )
    assert isinstance(connection.token_provider, TokenSource)
    return connection.token_provider


@pytest.mark.parametrize(
    ("name", "token"), [("plain_token", "plain"), ("async_token", "async"), ("ClassToken", "class")]
)
async def test_a_provider_may_be_a_function_a_coroutine_or_a_class(name: str, token: str) -> None:
    assert await provider(f"{__name__}:{name}").token() == token


async def test_a_token_is_kept_until_it_is_about_to_expire() -> None:
    given: list[str] = []

    def get(lifetime_s: float) -> tuple[str, float]:
        given.append(str(len(given)))
        return given[-1], time.time() + lifetime_s

    lasting, short = TokenSource(lambda: get(3600), "lasting"), TokenSource(lambda: get(30), "short")
    assert await asyncio.gather(*(lasting.token() for _ in range(5))) == ["0"] * 5
    assert [await short.token(), await short.token()] == ["1", "2"]


async def test_a_provider_that_fails_fails_the_login() -> None:
    with pytest.raises(AuthenticationFailedError, match="vault is sealed"):
        await provider(f"{__name__}:failing_token").token()


@pytest.mark.parametrize(
    ("name", "says"),
    [("no.such.module:x", "cannot be imported"), (f"{__name__}:nothing", "cannot be imported"), ("plain", "not a")],
)
def test_a_provider_that_cannot_be_had_is_named(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        provider(name)


@pytest.mark.parametrize(
    ("name", "settings", "module", "extra"),
    [
        ("aws_msk_iam", {"aws_region": "eu-central-1"}, "aws_msk_iam_sasl_signer", "aws"),
        ("azure", {"azure_scope": "https://x/.default"}, "azure.identity", "azure"),
    ],
)
def test_a_missing_extra_is_named(
    name: str, settings: dict[str, str], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as caught:
        provider(name, **settings)
    assert caught.value.hint == f"pip install run-steps[{extra}]"
    with pytest.raises(ConfigError, match=next(iter(settings))):
        provider(name)
