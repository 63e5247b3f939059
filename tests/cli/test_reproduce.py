"""``nait-store reproduce``: the commands that make a version again, run for real and compared."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.cli.main import main
from nait_store.errors import AlreadyExistsError, InvalidInputError, NaitStoreError, NotFoundError, StorageError
from nait_store.schemas.record import document_bytes
from nait_store.store.lineage.reproduction import run_in_a_process
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import ENVIRONMENT, fake_identity

SAME = re.compile(r"was made again: \d+ comparisons, all the same\n")


def write(path: Path, numbers: range) -> str:
    lines = [
        {"key": f"s{i}", "question": f"what is {i} + {i}", "answer": f"it is {2 * i}", "level": i % 3} for i in numbers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path.name


USE = ("--offset", "contrast", "--metric", "cosine")
MAPPED = ("--id-field", "key", "--map", "instruction=question,output=answer")


NEAR = ("select", "--from", "pool", "--strategy", "embedding", "--in-domain", "maths")
TWO = ("select", "--from", "pool", "--profile", "contrast", "--profile", "math@1:0.5")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pool from two files, then without some samples; maths; profiles; selections."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "a.jsonl", range(30))
    write(folder / "b.jsonl", range(30, 44))
    write(folder / "maths.jsonl", range(100, 120))
    with pytest.MonkeyPatch.context() as patch:
        becomes(patch)
        patch.chdir(folder)
        patch.delenv("NAIT_STORE", raising=False)
        patch.setenv("NAIT_STORE_CACHE", str(folder / "cache"))
        for command in (
            ("init",),
            ("ingest", "a.jsonl", "--set", "pool", "--model", "m", *MAPPED, "--message=--json is a flag"),
            ("ingest", "b.jsonl", "--set", "pool", "--model", "m", *MAPPED, "--limit", "10"),
            ("sets", "delete-samples", "pool", "--where", "level = 0"),
            ("ingest", "maths.jsonl", "--set", "maths", "--model", "m", *MAPPED),
            ("profile", "build", "math", "--from", "maths", "--limit", "9", "--seed", "4"),
            ("profile", "build", "math", "--from", "maths", "--recipe", "nait-paper", "--feature", "mean"),
            ("profile", "build", "contrast", "--from", "maths", "--against", "pool@2", "--where", "level = 1"),
            ("profile", "build", "second", "--from", "maths", "--component", "2"),
            ("profile", "combine", "mixed", "math@2:0.1", "contrast@1:-2", "--without", "second", *USE),
            ("select", "--from", "pool", "--profile", "math@1", "--top", "25%", "--save", "best"),
            ("select", "--from", "pool@1", "--random", "--seed", "7", "--top", "5", "--save", "chance"),
            (*TWO, "--combine", "sum", "--quota", "level=1:50%", "--min-score=-9.5", "--top", "4", "--save", "two"),
            (*NEAR, "--fuse", "level:0.25", "--top", "4", "--save", "near"),
        ):
            assert main([*command, "--quiet"]) == 0, command
    return folder


@pytest.fixture
def made(cli: Any, folder: Path, made_once: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line in a copy of that folder."""
    shutil.copytree(made_once, folder, dirs_exist_ok=True)
    becomes(monkeypatch)
    return cli


def becomes(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """From here on every model is this one."""

    def open_capture(model: str, request: Any, _options: Any, **_: Any) -> FakeCapture:
        if "other" in model:  # one of another shape
            environment = ENVIRONMENT.model_copy(update={"model_source": model})
            identity = fake_identity(model)
            return FakeCapture(4, 6, features=request.features, identity=identity, environment=environment)
        return FakeCapture(3, 8, features=request.features, **changes)

    monkeypatch.setattr("nait_store.store.ingesting.open_capture", open_capture)


def verdicts(report: Any) -> dict[tuple[str, str], bool]:
    return {(check["subject"], check["what"]): check["ok"] for check in report["report"]["checks"]}


@pytest.mark.parametrize(
    "reference", ["best", "chance", "two", "near", "contrast", "mixed", "profile:math@2", "set:pool@3", "maths"]
)
def test_every_kind_of_version_is_made_again(made: Any, reference: str) -> None:
    run = made("reproduce", reference, "--run")
    assert run.code == 0, run.out + run.err
    assert SAME.search(run.out)
    assert "DIFFERS" not in run.out


def test_ids_contents_numbers_directions_and_scores_are_compared(made: Any) -> None:
    found = verdicts(made("reproduce", "best", "--run", "--json").json)
    assert {what for subject, what in found if subject == "set:pool@3"} == {
        "model, tokenizer, template",
        "sample ids",
        "contents",
        "activations",
    }
    assert {what for subject, what in found if subject == "profile:math@1"} == {"recipe and inputs", "directions"}
    assert {what for subject, what in found if subject == "selection:best@1"} == {"sample ids", "scores"}
    assert all(found.values())


def test_the_new_store_stays_where_it_was_asked_for_and_is_the_same(made: Any, folder: Path) -> None:
    assert made("reproduce", "best", "--run", "--in", "again").code == 0
    first, second = nait_store.open(str(folder / ".nait-store")), nait_store.open(str(folder / "again"))
    assert sorted(first.sets.open("pool@3").sample_ids()) == sorted(second.sets.open("pool@3").sample_ids())
    assert first.selections.open("best").rows().equals(second.selections.open("best").rows())
    a, b = first.profiles.open("math@1"), second.profiles.open("math@1")
    np.testing.assert_allclose(a.directions(), b.directions(), atol=1e-6)
    assert a.record.recipe_sha256 == b.record.recipe_sha256
    assert second.verify().ok
    assert made("reproduce", "best", "--run", "--in", "again").code == AlreadyExistsError.exit_code


def test_a_later_version_has_another_number_in_the_new_store(made: Any, folder: Path) -> None:
    assert made("reproduce", "profile:math@2", "--run", "--in", "again").code == 0
    store = nait_store.open(str(folder / "again"))
    assert store.profiles.registry.numbers("math") == [1]
    assert store.profiles.open("math@1").record.recipe.center


def test_what_is_printed_is_what_is_run(made: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = made("reproduce", "best").out
    commands = [shlex.split(line)[1:] for line in script.splitlines() if line.startswith("nait-store ")]
    monkeypatch.setenv("NAIT_STORE", str(folder / "by-hand"))
    assert [main(command) for command in commands] == [0] * len(commands)
    first, second = nait_store.open(str(folder / ".nait-store")), nait_store.open(str(folder / "by-hand"))
    assert first.selections.open("best").rows().equals(second.selections.open("best").rows())


def test_the_script_is_read_by_a_shell_and_names_every_digest(made: Any, folder: Path) -> None:
    script = made("reproduce", "best").out
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    for name in ("a.jsonl", "b.jsonl", "maths.jsonl"):
        assert f"{name}: SHA-256 {hashlib.sha256((folder / name).read_bytes()).hexdigest()}" in script


def test_samples_that_were_deleted_by_id_are_deleted_again(made: Any, folder: Path) -> None:
    (folder / "ids.txt").write_text("s1\ns4\n", encoding="utf-8")
    assert made("sets", "delete-samples", "pool", "--ids", "ids.txt").code == 0
    assert "s1\ns4\n" in made("reproduce", "set:pool@4").out
    assert made("reproduce", "set:pool@4", "--run", "--in", "again").code == 0
    assert not {"s1", "s4"} & set(nait_store.open(str(folder / "again")).sets.open("pool").sample_ids())


def test_restored_converted_and_compacted_sets_are_made_again(made: Any, folder: Path) -> None:
    for command in (("restore", "pool@2"), ("convert", "pool", "--dtype", "int8"), ("compact", "pool")):
        assert made("sets", *command).code == 0
    run = made("reproduce", "pool", "--run", "--in", "again")
    assert run.code == 0, run.out
    assert SAME.search(run.out)
    assert nait_store.open("again").sets.open("pool").segments[0].record.arrays[0].dtype == "int8"


def test_deleted_versions_are_gone_back_to(made: Any) -> None:
    assert made("sets", "delete", "pool@3", "--force").code == 0
    write(Path("c.jsonl"), range(50, 55))
    assert made("ingest", "c.jsonl", "--set", "pool", "--model", "m", *MAPPED).code == 0
    made("select", "--from", "pool@4", "--profile", "contrast", "--top", "3", "--save", "after")
    run = made("reproduce", "after", "--run")
    assert run.code == 0, run.out
    # pool@4 goes on from pool@2, and the other is still made again for best
    both = made("reproduce", "best", "--run")
    assert both.code == 0, both.out


def test_a_set_of_projections_is_made_again(made: Any, folder: Path) -> None:
    write(folder / "c.jsonl", range(200, 208))
    arguments = ("--set", "slim", "--model", "m", *MAPPED, "--keep-features", "none", "--score-with", "math@2,contrast")
    assert made("ingest", "c.jsonl", *arguments).code == 0
    run = made("reproduce", "slim", "--run")
    assert run.code == 0, run.out + run.err


@pytest.mark.parametrize("like", [(), ("--like", "set:maths@1")])
def test_an_imported_profile_is_imported_again(made: Any, folder: Path, like: tuple[str, ...]) -> None:
    made("profile", "export", "math@2", "math.safetensors")
    if like:  # another program's file, which tells nothing of the model
        directions = nait_store.open().profiles.open("math@2").directions()
        np.savez(folder / "math.npz", directions=directions)
    file = "math.npz" if like else "math.safetensors"
    assert made("profile", "import", "theirs", file, *like, "--message", "from elsewhere").code == 0
    run = made("reproduce", "theirs", "--run", "--json")
    assert run.code == 0, run.out + run.err
    subjects = {check["subject"] for check in run.json["report"]["checks"]}
    assert subjects >= {f"file:{file}", "profile:theirs@1", *(["set:maths@1"] if like else [])}
    made("profile", "export", "contrast", file, "--force")
    assert made("reproduce", "theirs", "--run").code == 1


def test_weights_are_given_again(made: Any, folder: Path) -> None:
    weights = folder / "weights.csv"
    weights.write_text("sample_id,weight\n" + "".join(f"s{i},{1 + i % 4}\n" for i in range(100, 120)))
    made("profile", "build", "heavy", "--from", "maths", "--weights", "level + 1")
    made("profile", "build", "filed", "--from", "maths", "--weights-file", weights.name)
    made("profile", "combine", "both", "heavy", "filed")
    script = made("reproduce", "profile:both").out
    assert "--weights 'level + 1'" in script
    assert "--weights-file" in script
    run = made("reproduce", "profile:both", "--run")
    assert SAME.search(run.out), run.out + run.err
    weights.write_text(weights.read_text().replace(",1", ",2"))
    assert re.search(r"file:weights\.csv +digest +DIFFERS", made("reproduce", "profile:both", "--run").out)


def test_a_ported_profile_comes_from_its_sister_and_is_ported_again(made: Any) -> None:
    assert made("profile", "port", "math@1", "--model", "./other", "--layers", "1-3").code == 0
    found = nait_store.open().lineage("math-other", "up")
    relations = {(edge.source, edge.relation) for edge in found.origins("profile:math-other@1")}
    assert relations == {("set:maths-other@1", "built from"), ("profile:math@1", "ported from")}
    again = found.origins("set:maths-other@1")
    assert ("set:maths@1", "samples of, captured again") in {(edge.source, edge.relation) for edge in again}
    assert {Path(node.name).name for node in found.nodes if node.kind == "file"} == {"maths.jsonl"}
    down = nait_store.open().lineage("maths", "down")
    assert "set:maths-other@1" in {edge.target for edge in down.products("set:maths@1")}
    run = made("reproduce", "math-other", "--run", "--in", "again", "--json")
    assert run.code == 0, run.out + run.err
    assert {"set:maths@1", "profile:math@1", "set:maths-other@1", "profile:math-other@1"} <= {
        check["subject"] for check in run.json["report"]["checks"]
    }
    # the samples alone are nobody's to make: they come with the profile
    assert made("reproduce", "maths-other", "--run").code == InvalidInputError.exit_code


def test_a_changed_file_is_told_before_anything_is_run(made: Any, folder: Path) -> None:
    write(folder / "b.jsonl", range(30, 45))
    run = made("reproduce", "best", "--run", "--in", "again")
    assert run.code == 1
    assert re.search(r"file:b\.jsonl +digest +DIFFERS", run.out)
    assert "so nothing was run" in run.out
    assert not (folder / "again").exists()


def test_a_file_that_lies_elsewhere_now_is_taken_from_there(made: Any, folder: Path) -> None:
    (folder / "b.jsonl").rename(folder / "moved = b.jsonl")
    run = made("reproduce", "best", "--run")
    assert run.code == NotFoundError.exit_code
    assert "--at 'b.jsonl=PATH'" in run.err
    assert made("reproduce", "best", "--run", "--at", "b.jsonl=moved = b.jsonl").code == 0


def failed(run: Any) -> dict[tuple[str, str], str]:
    return {(c["subject"], c["what"]): c["detail"] for c in run.json["report"]["checks"] if not c["ok"]}


def test_another_model_is_told(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    becomes(monkeypatch, identity=fake_identity("other"))
    run = made("reproduce", "maths", "--run", "--json")
    assert run.code == 1
    assert failed(run) == {("set:maths@1", "model, tokenizer, template"): "differs in model_fingerprint"}


def test_numbers_beyond_the_tolerance_are_told(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made("reproduce", "maths", "--run", "--tolerance", "0").code == 0  # the fake gives the very same numbers
    becomes(monkeypatch, scale=1.05)
    run = made("reproduce", "maths", "--run", "--json")
    assert run.code == 1
    (detail,) = failed(run).values()
    assert float(detail.split()[3]) == pytest.approx(0.05, rel=0.05)
    assert made("reproduce", "maths", "--run", "--tolerance", "0.06").code == 0


def test_a_missing_sample_is_told_and_changes_the_inputs_of_a_profile(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    becomes(monkeypatch, poison={"s102": float("nan")})
    run = made("reproduce", "profile:math@2", "--run", "--json")
    assert run.code == 1
    found = failed(run)
    assert found["set:maths@1", "sample ids"] == "1 missing, 0 too many"
    assert found["profile:math@2", "recipe and inputs"] == "in-domain samples differ"


def test_a_command_that_fails_ends_it_with_its_own_error(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> FakeCapture:
        raise StorageError("the model cannot be loaded", next_step="look for it")

    monkeypatch.setattr("nait_store.store.ingesting.open_capture", broken)
    run = made("reproduce", "maths", "--run")
    assert (run.code, "the model cannot be loaded" in run.err) == (StorageError.exit_code, True)


def test_an_old_plan_says_what_it_does_not_record(made: Any, folder: Path) -> None:
    (path,) = (folder / ".nait-store/activations/maths/ingests").glob("*/plan.json")
    plan = json.loads(path.read_bytes())
    assert plan["choices"]["field_map"] == {"instruction": "question", "output": "answer"}
    path.write_bytes(document_bytes({name: v for name, v in plan.items() if name not in ("_sha256", "choices")}))
    script = made("reproduce", "maths").out
    assert (
        "\n# --map, --id-field, --on-error and --limit of this ingest were not recorded: defaults are taken\n" in script
    )
    assert "# it was begun by: " in script
    assert "--map" not in script.splitlines()[-1]


def test_purged_samples_are_not_brought_back(made: Any) -> None:
    nait_store.open().purge("pool", ids=["s1"])
    script = made("reproduce", "pool")
    assert "cannot be made again from this alone: " in script.out
    assert "samples that were purged" in script.err
    assert made("reproduce", "pool", "--run").code == InvalidInputError.exit_code


def test_a_hostile_record_cannot_add_options_or_lines_to_the_script(made: Any, folder: Path) -> None:
    hostile = "x'; touch owned; '\n$(touch owned) --trust-remote-code"
    said = ("--message", hostile, "--card=--store=elsewhere")
    assert made("profile", "build", "evil", "--from", "maths", *said).code == 0
    script = made("reproduce", "evil").out
    environment = {"PATH": f"{folder}/bin:/usr/bin:/bin"}
    (folder / "bin").mkdir()
    echo = folder / "bin" / "nait-store"
    echo.write_text('#!/bin/sh\nfor one in "$@"; do printf "%s\\0" "$one"; done; printf "\\0"\n', encoding="utf-8")
    echo.chmod(0o755)
    done = subprocess.run(["bash"], input=script.encode(), env=environment, cwd=folder, capture_output=True, check=True)
    arguments = done.stdout.decode().split("\0")
    assert not (folder / "owned").exists()
    assert arguments[arguments.index("--message") + 1] == hostile
    assert "--card=--store=elsewhere" in arguments
    assert "--trust-remote-code" not in arguments
    assert made("reproduce", "evil", "--run").code == 0


def test_running_options_without_run_are_refused(made: Any) -> None:
    for option in (("--in", "again"), ("--tolerance", "0.1")):
        assert made("reproduce", "best", *option).code == InvalidInputError.exit_code
    assert made("reproduce", "best", "--at", "nothing").code == InvalidInputError.exit_code
    assert made("reproduce", "best", "--run", "--tolerance", "2").code == InvalidInputError.exit_code


def test_json_has_the_commands_word_by_word(made: Any) -> None:
    steps = made("reproduce", "maths", "--json").json["steps"]
    assert steps["steps"][0]["arguments"][:3] == ["ingest", "--set", "maths"]
    assert [one["uri"] for one in steps["inputs"]] == ["maths.jsonl"]
    assert steps["obstacles"] == []


def test_a_command_in_a_process_of_its_own_reads_its_lines_and_says_why_it_failed(made: Any) -> None:
    run_in_a_process(["--store", ".nait-store", "--quiet", "sets", "delete-samples", "maths", "--ids", "-"], "s101\n")
    assert "s101" not in nait_store.open().sets.open("maths").sample_ids()
    with pytest.raises(NaitStoreError, match=r"delete-samples … failed with exit code 3: .*no set 'no'"):
        run_in_a_process(["--store", ".nait-store", "--quiet", "sets", "delete-samples", "no", "--ids", "-"], "s1\n")
