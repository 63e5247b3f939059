"""The study of training on selections: what it keeps, how it goes on, and what its tables say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fidelity
from benchmarks.json_lines import read_json_lines, write_json_lines
from benchmarks.recipes import labelled_corpus
from benchmarks.report import Report
from benchmarks.training.choices import BEST, RANDOM
from benchmarks.training.kept import Aucs, Kept
from benchmarks.training.losses import Interval, Loss, Losses, Question, difference
from benchmarks.training.study_tables import add_comparisons, add_tables
from nait_store.demo.files import DATA, MODEL

np = pytest.importorskip("numpy")
LABELS = {"maths": "gsm8k"}


def loss(seed: int, chosen: str, nats: float) -> Loss:
    return Loss(Question(seed, "math", "with its source", "math", chosen), 10, 500, 5, nats)


def kept(path: Path, *losses: Loss) -> Losses:
    found = Losses(path, {"top": "10%"})
    for one in losses:
        found.add(one)
    return found


def test_losses_are_read_again_as_they_were_kept(tmp_path: Path) -> None:
    first = kept(tmp_path / "losses.jsonl", loss(0, RANDOM, 6.5), loss(1, RANDOM, 6.25))
    assert list(Losses(tmp_path / "losses.jsonl", {"top": "10%"})) == list(first)


def test_a_line_that_a_killed_run_left_unfinished_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    kept(path, loss(0, RANDOM, 6.5), loss(1, RANDOM, 6.25))
    path.write_bytes(path.read_bytes()[:-20])
    again = Losses(path, {"top": "10%"})
    assert [one.question.seed for one in again] == [0]
    again.add(loss(1, RANDOM, 6.25))
    assert [one.question.seed for one in Losses(path)] == [0, 1]


def test_losses_of_a_study_with_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    kept(tmp_path / "losses.jsonl")
    with pytest.raises(SystemExit, match="another candidates, top:"):
        Losses(tmp_path / "losses.jsonl", {"top": "5%", "candidates": 3})


def test_tables_of_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no losses"):
        Losses(tmp_path / "losses.jsonl")


def test_an_interval_is_students() -> None:
    found = Interval.of(np.array([1.0, 2.0, 4.0]))
    assert found.mean == pytest.approx(7 / 3)
    # Table of Student's t: 4.3027 for two degrees of freedom; variance 7/3.
    assert found.half_width == pytest.approx(4.3027 * (7 / 9) ** 0.5, rel=1e-4)


def test_differences_are_taken_between_the_same_seeds() -> None:
    ours = {0: loss(0, BEST, 6.0), 1: loss(1, BEST, 7.0), 2: loss(2, BEST, 100.0)}
    random = {1: loss(1, RANDOM, 7.5), 0: loss(0, RANDOM, 6.4)}
    found = difference(ours, random)
    assert found is not None
    assert (found.n, found.mean) == (2, pytest.approx(-0.45))
    assert difference(ours, {}) is None


@pytest.mark.parametrize(
    ("values", "word"), [((-1.0, -1.1, -0.9), "better"), ((1.0, 1.1, 0.9), "worse"), ((-1.0, 1.1, 0.0), "unclear")]
)
def test_a_difference_is_called_what_its_interval_allows(values: tuple[float, ...], word: str) -> None:
    assert Interval.of(np.array(values)).verdict.endswith(f": {word}")


def test_tables_compare_every_choice_with_chance_and_with_the_best(tmp_path: Path) -> None:
    losses = kept(
        tmp_path / "losses.jsonl",
        *(loss(seed, RANDOM, 6.5 + seed / 10) for seed in range(3)),
        *(loss(seed, BEST, 6.25 + seed / 10) for seed in range(3)),
    )
    report = Report("title", toy=False)
    add_tables(report, Kept(losses, Aucs(tmp_path / "aucs.jsonl")))
    (table,) = report.tables
    assert table.title.startswith("Target math, with its source")
    assert [row[0] for row in table.rows] == [RANDOM, BEST]
    assert table.rows[0][3:5] == ("", "+0.250 ± 0.000: worse")
    assert table.rows[1][3:5] == ("-0.250 ± 0.000: better", "")


def test_studies_are_compared_by_their_differences(tmp_path: Path) -> None:
    studies = {}
    for name, gain in (("small", 0.25), ("large", 0.5)):
        folder = tmp_path / name
        folder.mkdir()
        kept(
            folder / "losses.jsonl",
            *(loss(seed, RANDOM, 6.5 + seed / 10) for seed in range(3)),
            *(loss(seed, BEST, 6.5 - gain + seed / 10) for seed in range(3)),
        )
        aucs = Aucs(folder / "aucs.jsonl")
        aucs.add(0, {"math": {BEST: 0.75, "embedding": 0.5}})
        aucs.add(1, {"math": {BEST: 0.85, "embedding": 0.6}})
        studies[name] = Kept.of(folder)
    report = Report("title", toy=False)
    add_comparisons(report, studies)
    with_source, without, rankings = report.tables
    assert [row[:4] for row in with_source.rows] == [
        ("small", "math", "3", "-0.250 ± 0.000: better"),
        ("large", "math", "3", "-0.500 ± 0.000: better"),
    ]
    assert not without.rows
    assert rankings.columns == ("study", "target", BEST, "minus embedding")
    assert [row[3] for row in rankings.rows] == ["+0.250 ± 0.000"] * 2


def test_aucs_go_on_where_they_were_kept(tmp_path: Path) -> None:
    Aucs(tmp_path / "aucs.jsonl").add(0, {"math": {BEST: 0.75}})
    again = Aucs(tmp_path / "aucs.jsonl")
    again.add(1, {"math": {BEST: 0.5}})
    again.add(0, {"math": {BEST: 1.0}})
    assert Aucs(tmp_path / "aucs.jsonl").by_target() == {"math": {BEST: {0: 1.0, 1: 0.5}}}


@pytest.mark.parametrize("sources", [(), ("code", "maths"), (None,)])
def test_in_domain_records_without_one_common_label_are_refused(
    tmp_path: Path, sources: tuple[str | None, ...]
) -> None:
    write_json_lines(tmp_path / "pool.jsonl", [{"instruction": "Add.", "output": "2", "source": "code"}])
    records = [{"instruction": "Add.", "output": "2", "source": source} for source in sources]
    write_json_lines(tmp_path / "in_domain_law.jsonl", records)
    with pytest.raises(SystemExit, match=r"in_domain_law.jsonl: its records must have one source"):
        labelled_corpus(tmp_path, tmp_path, None, ["law"])


def test_a_capability_without_a_file_is_refused(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "pool.jsonl", [])
    with pytest.raises(SystemExit, match=r"has no in_domain_law.jsonl: name a folder"):
        labelled_corpus(tmp_path, tmp_path, None, ["law"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the demonstration's records, labelled as the study wants it, with two capabilities."""
    folder = tmp_path_factory.mktemp("data")
    lines = gzip.decompress((DATA / "pool.jsonl.gz").read_bytes()).splitlines()[:280]
    records = [json.loads(line) for line in lines]
    for record in records:
        record["source"] = LABELS.get(record["domain"], record["domain"])
    write_json_lines(folder / "pool.jsonl", records[:160])
    for name, label in (("math", "gsm8k"), ("code", "code")):
        known = [record for record in records[160:] if record["source"] == label]
        write_json_lines(folder / f"in_domain_{name}.jsonl", known)
    return folder


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what would have been trained on; the model stays as it is."""
    sizes: list[int] = []

    def trained(model: Any, examples: list[Any], **_: Any) -> Any:
        sizes.append(len(examples))
        return model.eval()

    monkeypatch.setattr(fidelity, "trained", trained)
    return sizes


def test_a_study_that_goes_on_trains_only_what_is_missing(
    data: Path, tmp_path: Path, trainings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--toy", "--data", str(data), "--model", str(MODEL), "--seeds", "1", "--keep", str(tmp_path)]
    fidelity.main([*command, "--choices", RANDOM, BEST])
    assert trainings
    of_base, *of_choices = trainings
    asked = {
        (line["target"], line["asked"], line["pool"].split()[0], line["chosen"])
        for line in read_json_lines(tmp_path / "losses.jsonl")[1:]
    }
    targets = [("math", "math"), ("code", "code"), ("math and code", "math"), ("math and code", "code")]
    pools, choices = ("with", "without"), ("the base model", RANDOM, BEST)
    assert asked == {(*target, pool, choice) for target in targets for pool in pools for choice in choices}
    # Chance with the sources is the same for every target, and is trained on once.
    assert len(of_choices) == 1 + 3 + 6
    assert of_base > max(of_choices)
    trainings.clear()

    fidelity.main([*command, "--choices", RANDOM, BEST, "everything", "--pools", "with its source"])
    assert len(trainings) == 1
    table = capsys.readouterr().out
    fidelity.main(["--tables", str(tmp_path)])
    assert len(trainings) == 1
    rows = {line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")}
    assert any(row.startswith("| everything |") for row in rows)
    assert rows <= set(table.splitlines())
