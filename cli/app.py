"""The Typer application: global options, and every command mounted under its name."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core

from nait_store.cli import (
    analyze,
    analyze_audit,
    analyze_core,
    analyze_ratio,
    analyze_transfer,
    attach,
    bundles,
    cache,
    compact,
    compare,
    convert,
    demo,
    doctor,
    gc,
    ingest,
    init,
    lineage,
    port,
    profile,
    profile_combine,
    profile_files,
    purge,
    remote,
    repair,
    reproduce,
    score,
    select,
    selection,
    sets,
    sharing,
    sql,
    transfer,
    trust,
    verify,
)
from nait_store.cli.console import Console

_EPILOG = (
    "Global options may stand before or after the command. Results go to standard output, everything else to "
    "standard error."
)

# rich_markup_mode=None: drawing the help with rich would double the time that --help takes.
_ORDER = (
    "init",
    "ingest",
    "sets",
    "profile",
    "push",
    "pull",
    "sync",
    "export-bundle",
    "import-bundle",
    "remote",
    "trust",
    "sql",
    "select",
    "selection",
    "compare",
    "analyze",
    "score",
    "lineage",
    "reproduce",
    "transfer-report",
    "attach",
    "verify",
    "repair",
    "gc",
    "cache",
    "purge",
    "doctor",
    "demo",
)


class _Commands(typer.core.TyperGroup):
    """Lists the commands in the order in which a user meets them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return sorted(self.commands, key=_ORDER.index)


app = typer.Typer(
    name="nait-store",
    cls=_Commands,
    help=(
        "A versioned feature store and profile registry for choosing instruction-tuning data by neuron activations: "
        "ingest, profile build, sql, select."
    ),
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.command("init")(init.init)
app.command("ingest")(ingest.ingest)
sets.app.command("compact")(compact.compact)
sets.app.command("convert")(convert.convert)
app.add_typer(sets.app, name="sets")
profile.app.command("combine")(profile_combine.combine)
profile.app.command("export")(profile_files.export)
profile.app.command("import")(profile_files.import_)
profile.app.command("port")(port.port)
profile.app.command("family")(port.family)
app.add_typer(profile.app, name="profile")
app.command("push")(sharing.push)
app.command("pull")(sharing.pull)
app.command("sync")(sharing.sync)
app.command("export-bundle")(bundles.export_bundle)
app.command("import-bundle")(bundles.import_bundle)
app.add_typer(remote.app, name="remote")
app.add_typer(trust.app, name="trust")
app.command("score")(score.score)
app.command("sql")(sql.sql)
app.command("select")(select.select)
app.command("compare")(compare.compare)
app.add_typer(selection.app, name="selection")
analyze.app.command("transfer")(analyze_transfer.transfer)
analyze.app.command("core")(analyze_core.core)
analyze.app.command("ratio")(analyze_ratio.ratio)
analyze.app.command("audit")(analyze_audit.audit)
app.add_typer(analyze.app, name="analyze")
app.command("lineage")(lineage.lineage)
app.command("reproduce")(reproduce.reproduce)
app.command("transfer-report")(transfer.transfer_report)
app.command("attach")(attach.attach)
app.command("verify")(verify.verify)
app.command("gc")(gc.gc)
app.add_typer(cache.app, name="cache")
app.command("purge")(purge.purge)
app.command("repair")(repair.repair)
app.command("doctor")(doctor.doctor)
app.command("demo", short_help="Show the whole story on a small model and data.")(demo.demo)


def _show_version(asked: bool) -> None:
    if asked:
        import nait_store

        typer.echo(f"nait-store {nait_store.__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    context: typer.Context,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="NAIT_STORE", help="Folder or fsspec URL of the store.", show_default="./.nait-store"
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the result, and any error, as JSON.", show_default=False)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Leave out summaries, hints and progress.", show_default=False)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", show_default=False)] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True, show_default=False
        ),
    ] = False,
) -> None:
    """Keep the global options for the command."""
    context.obj = Console(store_url=store, as_json=as_json, quiet=quiet, debug=debug)


def invoke(arguments: Sequence[str]) -> int:
    """Run a command with errors left to the caller; returns its exit code."""
    if "_NAIT_STORE_COMPLETE" in os.environ:  # a shell asks what could come next
        typer.main.get_command(app).main(args=list(arguments), prog_name="nait-store")
    command = typer.main.get_command(_needed(app, _words(arguments)))
    try:
        # Not command.main(): it would meet interrupts and broken pipes before we do.
        with command.make_context("nait-store", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _words(arguments: Sequence[str]) -> list[str]:
    """What is no option: first the command's name, where it stands behind the global options."""
    words: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and not argument.startswith("-"):
            words.append(argument)
        skip = argument == "--store"
    return words


def _needed(whole: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """The application with no commands but the one that is named; all of it where none is.

    To build every command takes longer than to run a small one.
    """
    if not words:
        return whole
    commands = [one for one in whole.registered_commands if one.name == words[0]]
    groups = [one for one in whole.registered_groups if one.name == words[0]]
    if not commands and not groups:
        return whole
    needed = copy.copy(whole)
    needed.registered_commands = commands
    needed.registered_groups = [copy.copy(one) for one in groups]
    for group in needed.registered_groups:
        if group.typer_instance is not None:
            group.typer_instance = _needed(group.typer_instance, words[1:])
    return needed
