"""What ``import nait_store`` gives."""

from __future__ import annotations

import inspect
import types

import pytest

import nait_store
from nait_store import errors


def test_all_is_sorted_and_equals_the_public_names() -> None:
    public = {
        name
        for name, value in vars(nait_store).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name not in ("annotations", "Any")
    }
    assert nait_store.__all__ == sorted(nait_store.__all__)
    assert set(nait_store.__all__) == (public - {"TYPE_CHECKING"}) | {"SandboxLimits", "Store"}
    assert set(nait_store.__all__) <= set(dir(nait_store))


def test_every_error_is_exported() -> None:
    found = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert found <= set(nait_store.__all__)


def test_everything_exported_is_there_and_documented() -> None:
    for name in nait_store.__all__:
        assert inspect.getdoc(getattr(nait_store, name)), name


def test_unknown_attributes_are_the_usual_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'opn'"):
        _ = nait_store.opn


def test_version() -> None:
    assert nait_store.__version__.count(".") == 2
