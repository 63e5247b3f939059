"""The Ibis recipe of docs/other-tools.md, which cannot run with warnings as errors as the others of the page do."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import nait_store
from nait_store.testing.stores import build_set
from tests.docs.pages import REPOSITORY, blocks

PAGE = REPOSITORY / "docs" / "other-tools.md"


def test_the_ibis_recipe_gives_the_stores_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    store = nait_store.open("store", create=True)
    build_set(store.location, "pool", 30, user_fields={"domain": [("maths", "code", "chat")[i % 3] for i in range(30)]})
    store.profiles.build("math", source="pool")
    store.attach("view.duckdb", compute=True)
    [program] = [block.text for block in blocks(PAGE) if "import ibis" in block.text]

    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(program, names)
        found = names["by_domain"].to_pyarrow().to_pydict()  # type: ignore[attr-defined]
        names["view"].disconnect()  # type: ignore[attr-defined]

    ours = store.sql(
        "SELECT domain, count(*) AS n, avg(score) AS mean_score FROM alignment('pool', 'math') "
        "JOIN samples('pool') USING (sample_id) GROUP BY domain ORDER BY mean_score DESC"
    ).arrow()
    assert found["domain"] == ours["domain"].to_pylist()
    assert found["n"] == ours["n"].to_pylist()
    assert found["mean_score"] == pytest.approx(ours["mean_score"].to_pylist())
    assert "mean_score" in capsys.readouterr().out
