"""Header names: bytes in the log, text in the program, the same bytes again wherever they are written.

Kafka does not check that a name is UTF-8. One that is not is kept as Python keeps file names: each byte that cannot be
decoded becomes a lone surrogate (U+DC80 to U+DCFF), which no UTF-8 decodes to, so no two names become one.
"""

from __future__ import annotations


def name_text(name: bytes) -> str:
    """Header name from its bytes in the log."""
    return name.decode("utf-8", "surrogateescape")


def name_bytes(name: str) -> bytes:
    """Bytes of a header name, as they were in the log."""
    return name.encode("utf-8", "surrogateescape")


def is_utf8(name: str) -> bool:
    """Whether the bytes of a header name are UTF-8: else it must not reach an encoder, a terminal or a file as text."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """A header name as text for people and files: bytes that are not UTF-8 as backslash escapes."""
    return name if is_utf8(name) else name_bytes(name).decode("utf-8", "backslashreplace")
