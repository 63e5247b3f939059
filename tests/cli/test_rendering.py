"""Quantities, progress and tables as text."""

from __future__ import annotations

import io

import pytest

from nait_store.cli import progress_line, quantities
from nait_store.cli.progress_line import ProgressLine, describe
from nait_store.cli.tables import Table, harmless, pairs, plain_table
from nait_store.progress import ProgressEvent


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_940, "9.9 kB"), (9_960, "10 kB"), (999_499, "999 kB"),
     (999_600, "1.0 MB"), (44_000_000, "44 MB"), (1.2e9, "1.2 GB"), (36e9, "36 GB"), (5e15, "5,000 TB")],
)  # fmt: skip
def test_size(n: float, text: str) -> None:
    assert quantities.size(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.004, "0.00 s"), (0.42, "0.42 s"), (12.34, "12.3 s"), (59.94, "59.9 s"), (59.96, "1:00"), (245, "4:05"),
     (7391, "2:03:11")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert quantities.duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.5"), (152, "152"), (31_234, "31.2k"), (1_400_000, "1.4M")])
def test_rate(value: float, text: str) -> None:
    assert quantities.rate(value) == text


@pytest.mark.parametrize(("values", "text"), [((), "none"), ((3,), "3"), ((0, 1, 2, 5, 7, 8), "0–2, 5, 7–8")])
def test_numbers(values: tuple[int, ...], text: str) -> None:
    assert quantities.numbers(values) == text


def test_count() -> None:
    assert (quantities.count(1, "row"), quantities.count(6000, "row")) == ("1 row", "6,000 rows")


def test_an_event_in_words() -> None:
    event = ProgressEvent("capture", 1500, 6000, tokens=312_000, bytes_done=44_000_000, elapsed_seconds=10)
    assert describe(event) == "capture 1,500/6,000 (25 %)  150 samples/s  31.2k tokens/s  44 MB  ETA 30.0 s"
    assert describe(ProgressEvent("score", 5)) == "score 5"
    assert "ETA" not in describe(ProgressEvent("score", 5, 5, elapsed_seconds=1))


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_line_is_rewritten_cut_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    with ProgressLine(stream) as line:
        line(ProgressEvent("capture", 1, 100_000, tokens=9, bytes_done=5, elapsed_seconds=1))
        line(ProgressEvent("capture", 2, 100_000))  # too soon
        line(ProgressEvent("capture", 100_000, 100_000))
    drawn = stream.getvalue().split("\r")
    assert len(drawn) == 5
    assert all(len(text) <= 29 for text in drawn)
    assert drawn[1].endswith("…")
    assert drawn[2].startswith("capture 100,000/100,000")
    assert drawn[3].strip() == ""
    assert "\n" not in stream.getvalue()


def test_elsewhere_lines_are_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_line.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with ProgressLine(stream) as line:
        for second in range(70):
            now[0] = second
            line(ProgressEvent("capture", second, 70))
    assert stream.getvalue().splitlines() == ["capture 30/70 (43 %)", "capture 60/70 (86 %)"]


def test_quiet_progress_writes_nothing() -> None:
    stream = Terminal()
    with ProgressLine(stream, enabled=False) as line:
        line(ProgressEvent("capture", 1, 1))
    assert stream.getvalue() == ""


def test_plain_tables_align_numbers_right_and_spell_control_characters() -> None:
    table = Table(("name", "n", "mixed"), [("a\tb", 1, "x"), ("c", 1000, 2), (None, None, True)], caption="three")
    assert plain_table(table) == ("three\nname     n  mixed\na\\tb     1  x\nc     1000  2\n            true")


def test_pairs_leave_out_what_has_no_value() -> None:
    assert pairs([("a", "1"), ("longer", "2"), ("none", None), ("empty", "")]) == "a       1\nlonger  2"


def test_text_keeps_its_lines_and_spells_control_characters() -> None:
    assert harmless("é → one\n\ttwo") == "é → one\n\ttwo"
    assert harmless("\x1b[2Jgone\r\x07\u202e") == "\\x1b[2Jgone\\r\\x07\\u202e"
