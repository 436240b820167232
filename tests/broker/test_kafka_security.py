"""Getting in, and being told why not: every refusal names the broker, the cause and the setting to look at."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from processor.broker import Broker
from processor.errors import BrokerRefused, BrokerUnavailable
from processor.kafka.admin import Admin
from processor.kafka.client_config import Connection
from processor.kafka.consumer import GroupToken
from processor.kafka.writer import TransactionalWriter
from tests.broker.conftest import ADMIN, ADMIN_PASSWORD, PASSWORD, USER, SecureBroker
from tests.kafka_tools import Names, create_topics


def tls(secure: SecureBroker, **changes: str) -> dict[str, str]:
    return {
        "security_protocol": "SSL",
        "ssl_ca_file": str(secure.authority),
        "ssl_cert_file": str(secure.app.certificate),
        "ssl_key_file": str(secure.app.key),
        **changes,
    }


def sasl(secure: SecureBroker, mechanism: str, user: str, password: str) -> dict[str, str]:
    return {
        "security_protocol": "SASL_SSL",
        "ssl_ca_file": str(secure.authority),
        "sasl_mechanism": mechanism,
        "sasl_username": user,
        "sasl_password": password,
    }


def reach(bootstrap: str, settings: Mapping[str, str]) -> Connection:
    return Connection.build(bootstrap, request_timeout_ms=5000, **settings)  # type: ignore[arg-type]


async def refusal(bootstrap: str, settings: Mapping[str, str]) -> str:
    with pytest.raises(BrokerRefused) as caught:
        async with Admin(reach(bootstrap, settings)):
            pass
    assert bootstrap in caught.value.message
    assert caught.value.hint
    return str(caught.value)


async def test_a_client_certificate_gets_in(secure_broker: SecureBroker) -> None:
    async with Admin(reach(secure_broker.broker.bootstrap_ssl, tls(secure_broker))) as admin:
        assert await admin.topics([]) == {}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_password_gets_in(secure_broker: SecureBroker, mechanism: str) -> None:
    settings = sasl(secure_broker, mechanism, ADMIN, ADMIN_PASSWORD)
    async with Admin(reach(secure_broker.broker.bootstrap_sasl_ssl, settings)) as admin:
        assert await admin.topics([]) == {}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_called_that(secure_broker: SecureBroker, mechanism: str) -> None:
    said = await refusal(secure_broker.broker.bootstrap_sasl_ssl, sasl(secure_broker, mechanism, USER, "wrong-one"))
    assert f"SASL {mechanism}: authentication failed for {USER}" in said
    assert "sasl_password" in said
    assert "wrong-one" not in said


async def test_a_mechanism_that_is_not_offered_is_called_that(secure_broker: SecureBroker) -> None:
    said = await refusal(secure_broker.broker.bootstrap_sasl_ssl, sasl(secure_broker, "SCRAM-SHA-256", USER, PASSWORD))
    assert "sasl_mechanism" in said


async def test_an_untrusted_authority_is_called_that(secure_broker: SecureBroker) -> None:
    settings = tls(secure_broker, ssl_ca_file=str(secure_broker.other_authority))
    said = await refusal(secure_broker.broker.bootstrap_ssl, settings)
    assert "not trusted" in said
    assert "ssl_ca_file" in said


async def test_a_missing_client_certificate_is_called_that(secure_broker: SecureBroker) -> None:
    said = await refusal(secure_broker.broker.bootstrap_ssl, tls(secure_broker, ssl_cert_file="", ssl_key_file=""))
    assert "client certificate" in said
    assert "ssl_cert_file" in said


async def test_a_certificate_of_a_stranger_is_called_that(secure_broker: SecureBroker) -> None:
    stranger = secure_broker.stranger
    settings = tls(secure_broker, ssl_cert_file=str(stranger.certificate), ssl_key_file=str(stranger.key))
    assert "client certificate" in await refusal(secure_broker.broker.bootstrap_ssl, settings)


async def test_plain_words_to_a_tls_port_are_called_that(secure_broker: SecureBroker) -> None:
    assert "security_protocol" in await refusal(secure_broker.broker.bootstrap_ssl, {})


async def test_tls_to_a_plain_port_is_called_that(secure_broker: SecureBroker) -> None:
    assert "security_protocol" in await refusal(secure_broker.broker.bootstrap, tls(secure_broker))


async def test_a_dead_port_and_a_wrong_name_are_unavailable() -> None:
    for bootstrap, says in (("127.0.0.1:1", "nothing listens"), ("no-such-host.invalid:9092", "does not resolve")):
        with pytest.raises(BrokerUnavailable, match=says):
            async with Admin(reach(bootstrap, {})):
                pass


async def test_one_good_broker_among_the_dead_is_enough(broker: Broker) -> None:
    async with Admin(reach(f"127.0.0.1:1,{broker.bootstrap}", {})) as admin:
        assert await admin.topics(["nope"]) == {}


async def test_a_writer_without_leave_to_use_its_id_is_refused(secure_broker: SecureBroker, names: Names) -> None:
    create_topics(secure_broker.broker.bootstrap, names.topic("in"))
    token = GroupToken(1, "m", None)
    writer = TransactionalWriter(
        reach(secure_broker.broker.bootstrap_sasl_ssl, sasl(secure_broker, "PLAIN", USER, PASSWORD)),
        transactional_id=names.group,
        group_id=names.group,
        source_topic=names.topic("in"),
        token_now=lambda: token,
    )
    with pytest.raises(BrokerRefused) as caught:
        await writer.start()
    assert names.group in caught.value.message
    assert "transactional id" in caught.value.hint
    assert writer.dead
