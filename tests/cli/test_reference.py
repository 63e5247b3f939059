"""docs/cli.md says what ``--help`` says, and every command and option has help."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from nait_store.cli import ingest, profile, profile_combine, profile_files, select, selection
from nait_store.cli.reference import commands, help_texts, main, rewrite
from nait_store.schemas.capture import MEASURED_FEATURES, HookPoint, Span, SpanEdges, StoredDtype
from nait_store.schemas.profile import BUILT_METHODS, Metric
from nait_store.selection.export import ExportFormat
from nait_store.selection.trainers.layouts import Layout, Trainer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_page_is_current() -> None:
    """Rewrite it with ``python -m nait_store.cli.reference docs/cli.md``."""
    text = PAGE.read_text(encoding="utf-8")
    assert rewrite(text) == text


def test_a_stale_page_is_noticed_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "cli.md"
    page.write_text(PAGE.read_text(encoding="utf-8").replace("Of the draw.", "Something old."), encoding="utf-8")
    assert main([str(page), "--check"]) == 1
    assert "is stale" in capsys.readouterr().out
    assert main([str(page)]) == 0
    assert main([str(page), "--check"]) == 0
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_a_command_without_a_section_is_refused() -> None:
    with pytest.raises(ValueError, match="doctor"):
        rewrite(PAGE.read_text(encoding="utf-8").replace("<!-- options: doctor -->", ""))


@pytest.mark.parametrize("name", list(commands()))
def test_help_shows_what_the_page_shows(cli: Any, name: str) -> None:
    arguments = () if name == "nait-store" else name.split()
    run = cli(*arguments, "--help")
    assert run.code == 0
    shown = words(run.out)
    for text in help_texts(commands()[name]):
        # Help is wrapped, and long words may be broken at hyphens.
        assert re.sub(r"\s", "", text) in re.sub(r"\s", "", shown)


@pytest.mark.parametrize("name", [name for name in commands() if name != "nait-store"])
def test_every_command_and_option_says_what_it_does(name: str) -> None:
    command = commands()[name]
    summary = command.get_short_help_str(100)
    assert summary
    assert len(summary) <= 80
    silent = [p.name for p in command.params if p.name != "help" and not getattr(p, "help", None)]
    assert silent == []


def choices(function: Any, parameter: str) -> set[str]:
    from typing import get_type_hints

    hint = get_type_hints(function)[parameter]
    found: set[str] = set()
    for part in (hint, *get_args(hint)):
        found |= {one for one in get_args(part) if isinstance(one, str)}
    return found


@pytest.mark.parametrize(
    ("function", "parameter", "kinds", "more"),
    [
        (ingest.ingest, "hook", HookPoint, set()),
        (ingest.ingest, "span", Span, set()),
        (ingest.ingest, "span_edges", SpanEdges, set()),
        (ingest.ingest, "dtype", StoredDtype, {"auto"}),
        (profile.build, "method", BUILT_METHODS, set()),
        (profile.build, "metric", Metric, set()),
        (profile_combine.combine, "metric", Metric, set()),
        (profile_combine.combine, "feature", MEASURED_FEATURES, set()),
        (profile_files.import_, "metric", Metric, set()),
        (profile_files.import_, "feature", MEASURED_FEATURES, set()),
        (profile.build, "feature", MEASURED_FEATURES, set()),
        (profile.build, "profile_feature", MEASURED_FEATURES, set()),
        (select.select, "form", ExportFormat, set()),
        (selection.export, "to", Trainer, set()),
        (selection.export, "layout", Layout, set()),
    ],
)
def test_choices_are_those_of_the_library(function: Any, parameter: str, kinds: Any, more: set[str]) -> None:
    """They are spelled twice because the schemas' import would double the time that --help takes."""
    assert choices(function, parameter) == {kind.value for kind in kinds} | more
