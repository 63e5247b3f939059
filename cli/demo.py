"""``nait-store demo``: the whole story on a small model and data that ship with the package."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nait_store.cli.console import Console
from nait_store.cli.tables import Table

DOMAIN = "maths"
_SHOW = (
    "SELECT round(score, 4) AS score, domain, left(instruction || ' ' || input, 72) AS sample "
    "FROM alignment('pool', 'math') JOIN samples('pool') USING (sample_id) ORDER BY score {order}, sample_id LIMIT 5"
)


@dataclass(frozen=True)
class Step:
    """One command of the demonstration and why it is run.

    Attributes
    ----------
    words
        What it does, for somebody who sees it for the first time.
    arguments
        The command, without the program's name.
    """

    words: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(("nait-store", *map(_quoted, self.arguments)))


STEPS = (
    Step("A store is a folder. Everything that is computed is kept there, in numbered versions.", ("init",)),
    Step(
        "Run the 2,000 candidates through the model, once, and keep each layer's neuron activations (averaged over a\n"
        "sample's own tokens) as the activation set 'pool'.",
        ("ingest", "pool.jsonl", "--set", "pool", "--model", "./model"),
    ),
    Step(
        "The same for 256 maths problems that are not in the pool: examples of what we want to be good at.",
        ("ingest", "maths.jsonl", "--set", "maths", "--model", "./model", "--features", "mean,drift"),
    ),
    Step(
        "From those examples, one direction per layer: the profile 'math'.",
        ("profile", "build", "math", "--from", "maths", "--limit", "128"),
    ),
    Step(
        "Score every candidate by how its activations align with the profile. Scores are a table; the first query\n"
        "computes them, later ones read them. The five best:",
        ("sql", _SHOW.format(order="DESC")),
    ),
    Step("And the five worst:", ("sql", _SHOW.format(order="ASC"))),
    Step(
        "Take the best tenth as a training file.",
        ("select", "--from", "pool", "--profile", "math", "--top", "10%", "--out", "math-10pct.jsonl", "--force"),
    ),
    Step(
        "For comparison, the lowest tenth ...",
        ("select", "--from", "pool", "--profile", "math", "--lowest", "--top", "10%", "--out", "lowest-10pct.jsonl",
         "--force"),
    ),
    Step(
        "... and a random tenth.",
        ("select", "--from", "pool", "--random", "--seed", "0", "--top", "10%", "--out", "random-10pct.jsonl",
         "--force"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Precision:
    """Share of maths in one way's tenth of the pool."""

    chosen: str
    n_samples: int
    share: float


def demo(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder to work in; a new temporary one by default. It is kept.", show_default=False),
    ] = None,
) -> None:
    """Show the whole story on a small model and data that ship with the package; needs no network."""
    console: Console = context.obj
    from nait_store.demo import files

    where = (folder or Path(tempfile.mkdtemp(prefix="nait-store-demo-"))).resolve()
    again = (where / ".nait-store" / "store.json").is_file()
    files.copy_inputs(where)
    tell = (lambda _: None) if console.as_json else print
    tell(
        f"The demonstration works in {where}\n"
        "with pool.jsonl (2,000 records: 20 % maths problems, the rest Python tasks, translations and chat, all\n"
        "of the same lengths), maths.jsonl (256 other maths problems) and model/ (a Llama of 0.85 M parameters)."
    )
    if again:
        tell("\nThe store of an earlier run is there: what it holds is used again, not computed again.")
    with _working_in(where):
        for number, step in enumerate(STEPS, start=1):
            tell(f"\n{number}. {step.words}\n\n$ {step}")
            sys.stdout.flush()
            _run(step, aloud=not console.as_json)
        figures = _precisions()
    rows = [(one.chosen, one.n_samples, f"{one.share:.1%}") for one in figures]
    table = Table(("chosen", "samples", "maths among them"), rows)
    blocks: list[str | Table] = [
        "\nDid it find maths? The profile never saw the labels; here they are used to check it.\n",
        table,
        f"\nLook around:  cd {shlex.quote(str(where))} && nait-store sets list\n"
        "Run it again with the same --folder: nothing is computed twice.",
    ]
    console.result({"folder": str(where), "reused": again, "precision": figures}, blocks)


def _run(step: Step, *, aloud: bool) -> None:
    # Imported here: the command line's entry point imports this module to mount the command.
    from nait_store.cli.main import main

    with contextlib.nullcontext() if aloud else contextlib.redirect_stdout(io.StringIO()):
        code = main(step.arguments if aloud else ["--quiet", *step.arguments])
    if code != 0:
        raise typer.Exit(code)


def _quoted(argument: str) -> str:
    """Spell an argument for a shell; double quotes read better around SQL, which is full of single ones."""
    if "'" in argument and not set(argument) & set('"$`\\!'):
        return f'"{argument}"'
    return shlex.quote(argument)


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Be in ``folder`` with no store named, as the user who types the commands would be, and come back."""
    before, store = Path.cwd(), os.environ.pop("NAIT_STORE", None)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        if store is not None:
            os.environ["NAIT_STORE"] = store


def _precisions() -> list[Precision]:
    import nait_store

    store = nait_store.open()
    chosen = {
        "top 10 % by the profile": "math-10pct.jsonl",
        "random 10 %": "random-10pct.jsonl",
        "lowest 10 % by the profile": "lowest-10pct.jsonl",
    }
    labels = {
        words: [json.loads(line)["domain"] for line in Path(name).read_text(encoding="utf-8").splitlines()]
        for words, name in chosen.items()
    }
    n = len(labels["top 10 % by the profile"])
    for words, order in (("longest 10 %", "DESC"), ("shortest 10 %", "ASC")):
        query = f"SELECT domain FROM samples('pool') ORDER BY n_content_tokens {order}, sample_id LIMIT {n}"
        labels[words] = [str(row[0]) for row in store.sql(query).fetchall()]
    shown = ["top 10 % by the profile", "random 10 %", "longest 10 %", "shortest 10 %", "lowest 10 % by the profile"]
    return [Precision(w, len(labels[w]), labels[w].count(DOMAIN) / max(1, len(labels[w]))) for w in shown]
