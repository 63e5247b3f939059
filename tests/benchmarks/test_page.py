"""docs/benchmarks.md is written from the kept reports, the same bytes for the same reports."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import page, run_all
from benchmarks.pictures import bars_of_cells, picture
from benchmarks.report import Bar, Report, Table
from benchmarks.timing import Timing, ratio

_SVG = "{http://www.w3.org/2000/svg}"


def report(title: str = "How fast ``the cat`` runs", *, toy: bool = False, met: bool = True) -> Report:
    made = Report(title, toy, (), "Uses :func:`~benchmarks.cats.run` and ``legs``.")
    times = {"dog": Timing("dog", (2.0, 3.0, 4.0)), "cat": Timing("cat", (1.0, 1.0, 1.0))}
    made.timings("One mile", times, reference="dog")
    made.limit("dog / cat", "≥", 2 if met else 10, ratio(times["dog"], times["cat"]))
    return made


def keep(folder: Path, name: str, kept: Report) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(kept.to_json(), encoding="utf-8")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    keep(tmp_path / "results", "cats", report())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "cats.md").write_text("Cats sleep most of the day.\n", encoding="utf-8")
    write(tmp_path)
    return tmp_path


def write(folder: Path) -> None:
    page.write(folder / "results", folder / "notes", folder / "page.md", folder / "pictures")


def text(folder: Path) -> str:
    return (folder / "page.md").read_text(encoding="utf-8")


def test_a_section_has_the_text_the_note_the_table_and_the_picture(written: Path) -> None:
    section = text(written).split("## How fast `the cat` runs\n")[1]
    assert "Uses `benchmarks.cats.run` and `legs`." in section
    assert "Cats sleep most of the day." in section
    assert "| cat | 1,000.0 | 1,000.0–1,000.0 | 3.00× (2.00–4.00) |" in section
    assert "![One mile](images/benchmarks/cats-1.svg)" in section


def test_the_summary_has_every_limit_with_its_verdict(written: Path) -> None:
    keep(written / "results", "dogs", report("Dogs", met=False))
    write(written)
    lines = text(written).splitlines()
    assert "| [cats](#how-fast-the-cat-runs) | dog / cat | ≥ 2× | 3.00 (2.00–4.00) | met |" in lines
    assert "| [dogs](#dogs) | dog / cat | ≥ 10× | 3.00 (2.00–4.00) | **missed** |" in lines


def test_a_run_of_one_benchmark_leaves_the_others_as_they_were(written: Path) -> None:
    keep(written / "results", "dogs", report("Dogs"))
    write(written)
    before = text(written).split("## How fast `the cat` runs\n")[1].split("\n## ")[0]
    keep(written / "results", "dogs", report("Dogs", met=False))
    write(written)
    assert text(written).split("## How fast `the cat` runs\n")[1].split("\n## ")[0] == before


def test_what_no_longer_has_a_report_loses_its_pictures(written: Path) -> None:
    keep(written / "results", "dogs", report("Dogs"))
    write(written)
    assert (written / "pictures" / "dogs-1.svg").exists()
    (written / "results" / "dogs.json").unlink()
    write(written)
    assert [path.name for path in (written / "pictures").iterdir()] == ["cats-1.svg"]


def test_reports_of_toy_size_are_not_shown(written: Path) -> None:
    keep(written / "results", "toys", report("Toys", toy=True))
    write(written)
    assert "Toys" not in text(written)


def test_the_page_in_the_documentation_is_what_the_kept_reports_give() -> None:
    if not page.RESULTS.exists():
        pytest.skip("no benchmark has been run at full size")
    expected, pictures = page.rendered(page.kept_results())
    assert page.PAGE.read_text(encoding="utf-8") == expected
    assert {path.name: path.read_text(encoding="utf-8") for path in page.PICTURES.glob("*.svg")} == pictures


def test_bars_are_as_long_as_their_values() -> None:
    svg = picture(Table("t", ("what", "s"), (), bars=(Bar("a", 2, 2, 2), Bar("b", 1, 0.5, 4)), unit="s"))
    assert svg is not None
    widths = [float(bar.attrib["width"]) for bar in ET.fromstring(svg).iter(f"{_SVG}rect")]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)


def test_bars_that_differ_by_much_are_logarithmic() -> None:
    svg = picture(Table("t", ("what", "s"), (), bars=tuple(Bar(str(v), v, v, v) for v in (1, 10, 100)), unit="s"))
    assert svg is not None
    assert "logarithmic" in svg
    widths = [float(bar.attrib["width"]) for bar in ET.fromstring(svg).iter(f"{_SVG}rect")]
    assert widths[2] == pytest.approx(2 * widths[1], abs=0.2)


def test_a_picture_escapes_what_is_not_for_markup() -> None:
    svg = picture(Table("a < b & c", ("what", "s"), (), bars=(Bar("<x>", 2, 2, 2), Bar("y", 1, 1, 1)), unit="s"))
    assert svg is not None
    assert ET.fromstring(svg).findtext(f"{_SVG}title") == "a < b & c"


def test_a_table_without_timings_is_drawn_by_its_first_column_of_numbers_that_differ() -> None:
    table = Table(
        "t", ("dtype", "profile", "MB", "share"), (("f16", "maths", "1,200.5", "1"), ("i8", "code", "600 MB", "0.5"))
    )
    bars, unit = bars_of_cells(table)
    assert unit == "MB"
    assert [(bar.label, bar.value) for bar in bars] == [("f16, maths", 1200.5), ("i8, code", 600.0)]


def test_a_table_of_one_row_or_without_numbers_has_no_picture() -> None:
    assert picture(Table("t", ("a", "b"), (("x", "1"),))) is None
    assert picture(Table("t", ("a", "b"), (("x", "yes"), ("y", "no")))) is None


def test_a_table_of_equal_numbers_has_no_picture() -> None:
    assert picture(Table("t", ("a", "b"), (("x", "1"), ("y", "1")))) is None


def test_a_report_that_only_says_what_it_lacked_does_not_count_as_measured() -> None:
    lacking = Report("Cats", toy=False)
    lacking.table("Cats: skipped", ("why",), [["no --data given"]])
    assert not run_all.measured(lacking.to_json())
    assert run_all.measured(report().to_json())


def test_an_unknown_benchmark_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_all.main(["scam"])
    said = capsys.readouterr().err
    assert "no benchmark is called scam; there are " in said
    assert " scan," in said
