from __future__ import annotations

from nait_store import errors
from nait_store.errors import NaitStoreError, NotFoundError, did_you_mean


def _all_errors() -> list[type[NaitStoreError]]:
    found = [NaitStoreError]
    for error in found:
        found += error.__subclasses__()
    return [error for error in found if error.__module__ == errors.__name__]


def test_kinds_and_exit_codes_are_pinned() -> None:
    # append only: scripts match on these
    assert {error.__name__: (error.kind, error.exit_code) for error in _all_errors()} == {
        "NaitStoreError": ("error", 1),
        "NotFoundError": ("not_found", 3),
        "AlreadyExistsError": ("already_exists", 4),
        "ConflictError": ("conflict", 5),
        "IncompatibleError": ("incompatible", 6),
        "InvalidInputError": ("invalid_input", 7),
        "ReadOnlyError": ("read_only", 8),
        "FormatError": ("format", 9),
        "CorruptChunkError": ("corrupt_chunk", 9),
        "UnsupportedVersionError": ("unsupported_version", 9),
        "StorageError": ("storage", 10),
        "MissingExtraError": ("missing_extra", 11),
        "IngestInterrupted": ("interrupted", 130),
        "ForbiddenError": ("forbidden", 12),
        "LimitExceededError": ("limit_exceeded", 13),
        "UntrustedError": ("untrusted", 14),
    }


def test_every_error_is_drawn_in_the_modules_docstring() -> None:
    assert errors.__doc__ is not None
    for error in _all_errors():
        assert f"{error.__name__} " in errors.__doc__
        assert f"exit {error.exit_code}" in errors.__doc__


def test_a_message_shows_the_next_step_on_its_own_line() -> None:
    assert str(NotFoundError("no set 'a'", next_step="make one")) == "no set 'a'\n  → make one"
    assert str(NotFoundError("no set 'a'")) == "no set 'a'"


def test_errors_are_what_python_programmers_expect() -> None:
    assert issubclass(errors.NotFoundError, KeyError)
    assert issubclass(errors.InvalidInputError, ValueError)


def test_near_names_are_suggested() -> None:
    assert did_you_mean("mth", ["math", "code"]) == "did you mean 'math'?"
    assert did_you_mean("xyz", ["math", "code"]) == "these exist: code, math"
    assert did_you_mean("xyz", []) == "none exists yet"
    assert "(30 in all)" in did_you_mean("xyz", [f"name{i}" for i in range(30)])
