# mypy: allow-subclassing-any
"""OAUTHBEARER tokens from AWS IAM and Azure."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiokafka import errors
from aiokafka.abc import AbstractTokenProvider

from processor.errors import ConfigError

Token = str | tuple[str, float]
"""An OAuth token, alone or with the Unix time in seconds at which it expires."""

_RENEW_BEFORE_S: Final = 60.0


class TokenSource(AbstractTokenProvider):
    """Gives a token to every new connection, the same one until it is about to expire.

    Args:
        get: returns a `Token` or an awaitable of one; a sync one runs in a thread, it may do network calls.
    """

    def __init__(self, get: Callable[[], Token | Awaitable[Token]], name: str) -> None:
        self._get = get
        self._name = name
        self._lock = asyncio.Lock()
        self._token = ""
        self._good_until = 0.0

    async def token(self) -> str:
        async with self._lock:
            if time.time() >= self._good_until:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        try:
            got = await asyncio.to_thread(self._get) if not inspect.iscoroutinefunction(self._get) else self._get()
            given = await cast(Awaitable[Token], got) if inspect.isawaitable(got) else got
            token, expiry = (given, 0.0) if isinstance(given, str) else given
        except Exception as error:
            # As the library's own error, so that it takes the way of every failed login.
            raise errors.AuthenticationFailedError(f"token provider {self._name}: {error!r}"[:300]) from error
        self._token, self._good_until = token, expiry - _RENEW_BEFORE_S


def token_source(name: str, *, aws_region: str, azure_scope: str) -> TokenSource:
    if name == "aws_msk_iam":
        return TokenSource(_aws_msk_iam(aws_region), name)
    if name == "azure":
        return TokenSource(_azure(azure_scope), name)
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(
            f"kafka.token_provider: not a provider (got {name!r})", hint='"aws_msk_iam", "azure" or "module:attribute"'
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"kafka.token_provider: {name}: cannot be imported ({error})", hint="check the path"
        ) from error
    if inspect.isclass(found):
        found = found()
        found = getattr(found, "token", found)
    if not callable(found):
        raise ConfigError(f"kafka.token_provider: {name}: not callable", hint="a class with token(), or a function")
    return TokenSource(found, name)


def _aws_msk_iam(region: str) -> Callable[[], Token]:
    if not region:
        raise ConfigError("kafka.aws_region: missing", hint="the region of the MSK cluster")
    signer = _extra("aws_msk_iam_sasl_signer", "aws").MSKAuthTokenProvider

    def get() -> Token:
        token, expires_ms = signer.generate_auth_token(region)
        return token, expires_ms / 1000

    return get


def _azure(scope: str) -> Callable[[], Token]:
    if not scope:
        raise ConfigError("kafka.azure_scope: missing", hint="https://<namespace>.servicebus.windows.net/.default")
    credential = _extra("azure.identity", "azure").DefaultAzureCredential()

    def get() -> Token:
        token = credential.get_token(scope)
        return token.token, float(token.expires_on)

    return get


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"kafka.token_provider: {module} is not installed", hint=f"pip install run-steps[{extra}]"
        ) from error
