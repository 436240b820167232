"""What depends on the Python that runs does not change what is read: its base64, its Unicode."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.base64_text import from_base64
from processor.core.event_names import api_name


@given(st.binary(max_size=40))
def test_what_is_encoded_is_read(content: bytes) -> None:
    assert from_base64(b64encode(content)) == from_base64(b64encode(content).decode()) == content


@pytest.mark.parametrize(
    "text",
    [
        "YWJj=",
        "YWJj==",
        "YWJj===",
        "YWJj====",
        "YWI==",
        "YWI",
        "YQ=",
        "=",
        "====",
        "YW=I",
        "YWI=\n",
        " YWI=",
        "YW-_",
        "é",
    ],
)
def test_what_is_not_padded_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the words are this function's or the library's
        from_base64(text)


def test_a_letter_that_only_a_younger_unicode_has_ends_no_label() -> None:
    """U+1E4D0 is a letter since Unicode 15.0, which Python 3.12 has and 3.11 has not."""
    named = "thread.run.\U0001e4d0response.created"
    assert api_name(named) == named
    assert api_name("thread.run.-response.created") == "thread.run.-response.created"
    assert api_name("thread.run.response.created") == "response.created"
