"""Every command and program of README.md and docs/ runs, in the order of its page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, REPOSITORY, blocks, run, snippets

LANGUAGES = {"console", "python", "sh", "text", "json", "sql", "toml", "mermaid"}
ELSEWHERE = {"queries.md"}  # run by test_queries_page.py, which goes on in the store that it makes
RUNNABLE = [page for page in PAGES if snippets(page) and page.name not in ELSEWHERE]
COLD = {"format.md"}  # one page, with an ingest in it, in processes that import everything for themselves
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_commands_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """One shell per page: the demo's pool.jsonl, maths.jsonl and model/ lie in its folder, and no store is set.

    A page that names s3://my-bucket finds an empty one.
    """
    if any("s3://my-bucket" in snippet.code for snippet in snippets(page)):
        request.getfixturevalue("object_store").create_bucket("my-bucket")
    programs = Path(sys.executable).parent if page.name in COLD else request.getfixturevalue("programs")
    run(page, tmp_path, programs)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_say_what_they_are(page: Path) -> None:
    """A block of another language would silently never run."""
    assert {block.language for block in blocks(page)} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_unrun_shell_blocks_only_install_or_make(page: Path) -> None:
    commands = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines() if line]
    assert [line for line in commands if line.split()[0] not in {"pip", "python", "git", "cd", "make", "#"}] == []


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "CHANGELOG.md"], ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_readme_shows_the_main_job() -> None:
    """The page a stranger reads first runs the steps of the job and the demonstration."""
    code = "\n".join(snippet.code for snippet in snippets(REPOSITORY / "README.md"))
    for step in (
        "nait-store demo",
        "nait-store ingest",
        "profile build",
        "nait-store sql",
        "nait-store select",
        "import nait_store",
    ):
        assert step in code
