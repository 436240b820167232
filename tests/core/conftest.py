"""Fixtures of the core's tests."""

from __future__ import annotations

import pytest

from processor.core.run_steps import object_shape


@pytest.fixture(params=["as it is", "walked"])
def _both_forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not compiled, a shape cuts by a pattern; here also as it does where it is compiled."""
    if request.param == "walked":
        if not object_shape.__file__.endswith(".py"):
            pytest.skip("as it is")
        monkeypatch.setattr(object_shape, "_IS_COMPILED", True)
