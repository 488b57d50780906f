"""The command `finetune`: its subcommands, and `main`, which every entry point calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from finetune.cli.backbones import backbones
from finetune.cli.border import UsageError, guarded, report_bug
from finetune.cli.cache import cache
from finetune.cli.check import check
from finetune.cli.compare import compare
from finetune.cli.demo import demo
from finetune.cli.doctor import doctor
from finetune.cli.evaluate import evaluate
from finetune.cli.options import Debug
from finetune.cli.predict import predict
from finetune.cli.recipes import recipes
from finetune.cli.report import report
from finetune.cli.run import run
from finetune.errors import nearest
from finetune.runtime.imports import collect_rarely
from finetune.version import __version__

__all__ = ["app", "main"]

_NAME = "finetune"
_COMPLETION_VARIABLE = "_FINETUNE_COMPLETE"  # set by the shell's completion script


class Commands(TyperGroup):
    """A group of commands that proposes the nearest name of an unknown one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command.

        Raises:
            UsageError: There is none of this name.
        """
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            near = nearest(name, self.list_commands(ctx))
            raise UsageError(
                f"{ctx.command_path} has no command {name}",
                hint=f"did you mean {near}?" if near else f"{ctx.command_path} --help lists them",
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name=_NAME,
    cls=Commands,
    rich_markup_mode=None,  # plain help: rich would triple the time until it shows
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", short_help="Fine-tune, test and save.")(run)
app.command("evaluate", short_help="Figures of a saved model on labelled photos.")(evaluate)
app.command("compare", short_help="Which of several runs is better, on the same photos.")(compare)
app.command("predict", short_help="Answers of a saved model for new photos.")(predict)
app.command("report", short_help="The page of a run, made anew.")(report)
app.command("check", short_help="What is wrong or odd in a folder of photos.")(check)
app.command("backbones", short_help="Which networks there are to start from.")(backbones)
app.command("doctor", short_help="What stands between this machine and a run.")(doctor)
app.command("demo", short_help="Try it: no photos, no network needed.")(demo)
app.add_typer(
    recipes, name="recipes", cls=Commands, short_help="See, copy and check what a run does."
)
app.add_typer(
    cache, name="cache", cls=Commands, short_help="See and clear what runs store for later ones."
)


def _show_version(wanted: bool) -> None:
    """Write the version and end."""
    if wanted:
        typer.echo(f"{_NAME} {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and end."
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Turn a folder of photos and a pretrained backbone into a tested, saved classifier.

    Begin with: finetune run --data photos/   or, without photos and network: finetune demo
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the name of the command; None for those of this process.

    Returns:
        The exit code: 0, or that of the error's class (finetune.errors).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if _COMPLETION_VARIABLE in os.environ:
        app(prog_name=_NAME)
    # Threads that wait shall sleep, not spin: the workers that decode need the cores. Training on
    # two cores beside one busy process ran at 11 instead of 4 images/s (docs/adr/0007).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    collect_rarely()
    debug = "--debug" in given
    try:
        return guarded(lambda: _call(given), debug=debug)
    except Exception as error:  # the one place where what nobody foresaw becomes a sentence
        return report_bug(error, debug=debug)


def _call(arguments: list[str]) -> int:
    """Parse and run one command line; errors pass through untouched."""
    command = typer.main.get_command(app)
    try:
        with command.make_context(_NAME, arguments) as context:
            command.invoke(context)
    except typer.Exit as ending:
        return ending.exit_code
    return 0
