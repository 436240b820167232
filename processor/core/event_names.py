"""The name that the API gives an event, in what a producer calls it."""

from __future__ import annotations

from typing import Final

_THREAD: Final = "thread."
_RESPONSE: Final = "response."


def api_name(cloud_type: str) -> str:
    """The API's own name of an event, of a CloudEvents type: from its last label `thread` or `response` on.

    What is in front is a reverse-DNS prefix, and may have such a label, too. Where no label is one of these, the name
    begins at the first that ends so.
    """
    end = len(cloud_type)
    while (begin := max(cloud_type.rfind(_THREAD, 0, end), cloud_type.rfind(_RESPONSE, 0, end))) > 0:
        before = cloud_type[begin - 1]
        if not before.isalnum() and before not in "-_":
            return cloud_type[begin:]
        end = begin + len(_THREAD) - 1
    begin = cloud_type.find(_THREAD)
    return cloud_type[max(begin if begin >= 0 else cloud_type.find(_RESPONSE), 0) :]
