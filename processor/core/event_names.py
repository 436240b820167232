"""The name that the API gives an event, in what a producer calls it."""

from __future__ import annotations

from typing import Final

_MOST_KNOWN: Final = 256
"""So many types are remembered: producers have few, but any of them can write more."""
_LONGEST_KNOWN: Final = 128
_known: Final[dict[str, str]] = {}
_THREAD: Final = "thread."
_RESPONSE: Final = "response."


def api_name(cloud_type: str) -> str:
    """The API's own name of an event, of a CloudEvents type: from its last label `thread` or `response` on.

    What is in front is a reverse-DNS prefix, and may have such a label, too. Where no label is one of these, the name
    begins at the first that ends so.
    """
    found = _known.get(cloud_type)
    if found is None:
        found = _api_name(cloud_type)
        if len(_known) < _MOST_KNOWN and len(cloud_type) <= _LONGEST_KNOWN:
            _known[cloud_type] = found
    return found


def _api_name(cloud_type: str) -> str:
    end = len(cloud_type)
    while (begin := max(cloud_type.rfind(_THREAD, 0, end), cloud_type.rfind(_RESPONSE, 0, end))) > 0:
        before = cloud_type[begin - 1]
        # What is a letter beyond ASCII depends on the Unicode of the Python that asks; none of it ends a label.
        if before.isascii() and not before.isalnum() and before not in "-_":
            return cloud_type[begin:]
        end = begin + len(_THREAD) - 1
    begin = cloud_type.find(_THREAD)
    return cloud_type[max(begin if begin >= 0 else cloud_type.find(_RESPONSE), 0) :]
