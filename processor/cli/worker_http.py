"""HTTP requests of commands to workers, by the address that an operator gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from processor.errors import UsageError

DEFAULT_ADDRESS: Final = "http://127.0.0.1:8080"


def url_of(address: str) -> str:
    """The URL of a worker's address. UsageError: it is none."""
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    if not _is_url(url):
        raise UsageError(
            f"ADDRESS: {address}: not the HTTP address of a worker", hint="say HOST:PORT, or http://HOST:PORT"
        )
    return url


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0  # ValueError: beyond 65535, or no number
    except ValueError:
        return False
    is_clean = url.isprintable() and not any(character in url for character in " @?#")
    return is_clean and has_port and parts.scheme in ("http", "https") and bool(parts.hostname)


def ask(url: str, timeout_s: float, said: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Status and body of the answer: to a GET, or to a POST of what is said.

    No proxy is asked that the environment names: a worker is on this machine or in this network.

    Raises:
        OSError: no answer.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, Request, build_opener

    from processor.serve.http import CONTROL_HEADER

    request = Request(url)  # noqa: S310  # the scheme was checked
    if said is not None:
        headers = {CONTROL_HEADER: "1", "Content-Type": "application/json"}
        request = Request(url, json.dumps(said).encode(), headers, method="POST")  # noqa: S310
    try:
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=timeout_s) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()
    except HTTPException as error:
        raise OSError(f"not an answer of HTTP: {type(error).__name__}") from error
