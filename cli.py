"""The command line: `dreambooth-dpo`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .doctor.options import HELP, Options
from .dpo_core.errors import UserError
from .dpo_core.json_values import to_json
from .terminal.agreement import agreement
from .terminal.bars import bars
from .terminal.export_pairs import export_pairs
from .terminal.join import join
from .terminal.run_folders import existing_run
from .terminal.tables import show_answer, show_comparison, show_sweep

app = typer.Typer(
    help="Improve a personalized text-to-image model in subject fidelity and prompt following, with no labelling.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
console, complaints = Console(), Console(stderr=True)
Resume = Annotated[bool, typer.Option("--resume", help="Continue an earlier run in the same folder.")]
ConfigFile = Annotated[Path, typer.Argument(help="YAML file; `dreambooth-dpo config` prints one to start from.")]


def plain_errors(command: Callable) -> Callable:
    """Show user errors as one red paragraph and exit with code 2; on an interrupt, explain how to resume (code 130)."""

    @wraps(command)
    def wrapped(*args, **kwargs):
        from .metrics.errors import MetricsError

        try:
            return command(*args, **kwargs)
        except (UserError, MetricsError) as error:
            complaints.print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            complaints.print(
                "[yellow]Interrupted.[/] Finished work is kept; run the same command with --resume to continue."
            )
            raise typer.Exit(130) from error

    return wrapped


@app.command()
@plain_errors
def demo(
    concept: Annotated[
        int, typer.Option(min=0, help="Number of the toybox concept; it determines the subject's looks.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/demo_<concept>].")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Refuse to continue an earlier run in that folder.")] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="At the end, try the LoRA at several strengths and recommend one.")
    ] = False,
) -> None:
    """Personalize the toybox model to a concept, train three rounds, and write the report. Needs no download."""
    from .headless import run_loop
    from .toybox.defaults import TOY_SETTINGS
    from .toybox.run import demo_loop

    folder, settings = out or Path("runs") / f"demo_{concept}", TOY_SETTINGS.model_copy(update={"sweep": sweep})
    with bars(console) as tell:
        lora, report = run_loop(
            demo_loop(concept, folder, settings, resume=not fresh, progress=tell), f"toybox_{concept}_dpo"
        )
    show_answer(console, report, lora, folder / "report" / "report.html")


@app.command()
@plain_errors
def run(
    config: ConfigFile,
    resume: Resume = False,
    dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, count pictures, estimate time and disk, and end."),
    ] = False,
) -> None:
    """Improve a personalized diffusers model: sample, score, pair, train, for all rounds; then evaluate and report."""
    from .dpo_core.backends.diffusers.quiet import quiet_libraries
    from .dpo_core.config import read_config
    from .dpo_core.processes.group import expected, rank
    from .dpo_core.processes.join import joined, led, served
    from .headless import loop_from_config, run_loop, worker_from_config

    settings = read_config(config)
    quiet_libraries()
    if dry:
        from .terminal.dry_run import dry_run

        for line in dry_run(settings, resume, expected()) if rank() == 0 else ():
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        return
    with joined() as crew:
        if crew.rank:
            served(crew, lambda: worker_from_config(settings, crew))
            return
        with bars(console) as tell:
            lora, report = led(crew, lambda: loop_from_config(settings, resume, tell, crew), run_loop)
    show_answer(console, report, lora, settings.output / "report" / "report.html")


@app.command()
@plain_errors
def evaluate(
    config: ConfigFile,
    lora: Annotated[Path, typer.Option(help="LoRA to measure, of any tool: a .safetensors file or its folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures and numbers [default: <output>_evaluate].")
    ] = None,
    resume: Resume = False,
) -> None:
    """Measure a LoRA against the model without it, on held-out prompts with the same seeds."""
    from .dpo_core.backends.diffusers.quiet import quiet_libraries
    from .dpo_core.config import read_config
    from .headless import evaluate_lora

    settings = read_config(config)
    folder = out or settings.output.with_name(settings.output.name + "_evaluate")
    quiet_libraries()
    with bars(console) as tell:
        numbers = evaluate_lora(settings.model_copy(update={"output": folder}), lora, resume, tell)
    show_answer(console, numbers, lora, folder / "report" / "report.html")


@app.command()
@plain_errors
def compare(
    config: ConfigFile,
    loras: Annotated[list[Path], typer.Argument(help="LoRAs to compare, of any tool: .safetensors files or folders.")],
    strengths: Annotated[str, typer.Option(help="Strengths of each, as 0.6,1.")] = "1",
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures and numbers [default: <output>_compare].")
    ] = None,
) -> None:
    """Rank LoRAs (epochs, tools, strengths) on the same held-out prompts and seeds.

    The folder keeps pictures and scores: LoRAs that were compared there before are not drawn again.
    """
    from .dpo_core.backends.diffusers.quiet import quiet_libraries
    from .dpo_core.config import read_config
    from .dpo_core.evaluation.strength import read_strengths
    from .headless_compare import compare_loras

    settings = read_config(config)
    folder = out or settings.output.with_name(settings.output.name + "_compare")
    tried = [value for value in read_strengths(strengths) if value]
    quiet_libraries()
    with bars(console) as tell:
        found = compare_loras(settings.model_copy(update={"output": folder}), loras, tried, tell)
    show_comparison(console, found)
    files = "\n".join(
        f"{title} {folder / name}"
        for title, name in (("Plane:", "plane.png"), ("Sheet:", "sheet.png"), ("JSON: ", "comparison.json"))
    )
    console.print(files, soft_wrap=True, markup=False, highlight=False)


@app.command()
@plain_errors
def strength(
    config: ConfigFile,
    lora: Annotated[Path, typer.Option(help="LoRA to sweep, as `run` wrote it; it is not changed.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures and numbers [default: <output>_strength].")
    ] = None,
    resume: Resume = False,
) -> None:
    """Draw held-out prompts with a LoRA at several strengths, and recommend one by gain and guards.

    Strength 0 is the model without the LoRA.
    """
    from .dpo_core.backends.diffusers.quiet import quiet_libraries
    from .dpo_core.config import read_config
    from .headless import sweep_lora

    settings = read_config(config)
    folder = out or settings.output.with_name(settings.output.name + "_strength")
    quiet_libraries()
    with bars(console) as tell:
        found = sweep_lora(settings.model_copy(update={"output": folder}), lora, resume, tell)
    show_sweep(console, to_json(found))
    files = f"Curve: {folder / 'curve.png'}\nStrip: {folder / 'strip.png'}\nJSON:  {folder / 'strength.json'}"
    console.print(files, soft_wrap=True, markup=False, highlight=False)


@app.command()
@plain_errors
def export(
    lora: Annotated[Path, typer.Argument(help="LoRA of a UNet, as `run` wrote it; it is not changed.")],
    out: Annotated[Path | None, typer.Option(help="File to write [default: <lora>_<format>.safetensors].")] = None,
    form: Annotated[
        str, typer.Option("--format", help="diffusers: PEFT keys (unet.<layer>.lora_A.weight); kohya: as `run`.")
    ] = "diffusers",
) -> None:
    """Write a LoRA in another format: under diffusers' own names, with alpha multiplied into the weights."""
    from .dpo_core.training.lora_export import export_file

    path = out or lora.with_name(f"{lora.stem}_{form}.safetensors")
    layers = export_file(lora, path, form)
    console.print(f"{layers} layers: {path}", soft_wrap=True, markup=False, highlight=False)


app.command("join")(plain_errors(join))
app.command("agreement")(plain_errors(agreement))
app.command("export-pairs")(plain_errors(export_pairs))


@app.command()
@plain_errors
def personalize(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file of a diffusers model; leave out for a toybox concept.")
    ] = None,
    concept: Annotated[int, typer.Option(min=0, help="Toybox concept, when no config is given.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for LoRA, curve and record [default: runs/start_<concept>, or <output>_start]."),
    ] = None,
) -> None:
    """DreamBooth by LoRA: teach the model the subject, and plot fidelity against alignment over its steps."""
    from .dpo_core.backends.diffusers.quiet import quiet_libraries
    from .headless import personalize_from_config

    quiet_libraries()
    with bars(console) as tell:
        if config is None:
            from .toybox.concepts import concept_from_seed
            from .toybox.run import start_of

            lora, record = start_of(concept_from_seed(concept), out or Path("runs") / f"start_{concept}", progress=tell)
        else:
            from .dpo_core.config import read_config

            lora, record = personalize_from_config(read_config(config), out, tell)
    console.print(escape(record["sentence"]))
    console.print(f"LoRA:  {lora}\nCurve: {lora.with_name('curve.png')}", soft_wrap=True, markup=False, highlight=False)
    if config is not None:
        lines = f"For `run`, put it into the config, below `model:`\n  lora: {json.dumps(str(lora.resolve()))}\n"
        console.print(f"{lines}  lora_strength: 1.0", soft_wrap=True, markup=False, highlight=False)


@app.command()
@plain_errors
def report(folder: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write the report of a run again, from the data in its folder."""
    from .dpo_core.report.page import write_report

    console.print(escape(write_report(existing_run(folder))["answer"]))
    console.print(f"Report: {folder / 'report' / 'report.html'}", soft_wrap=True, markup=False, highlight=False)


@app.command()
def doctor(
    comfyui: Annotated[Path | None, typer.Option(help=HELP["comfyui"])] = None,
    python: Annotated[Path | None, typer.Option(help=HELP["python"])] = None,
    comfyui_args: Annotated[str, typer.Option(help=HELP["comfyui_args"])] = "",
    family: Annotated[str, typer.Option(help=HELP["family"])] = "toybox",
    full: Annotated[bool, typer.Option("--full", help=HELP["full"])] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help=HELP["json"])] = None,
) -> None:
    """Check whether the pack will work here, with a remedy for each problem.

    Checks ComfyUI, Python, device, packages and scorers, and trains a tiny model.
    """
    from .doctor.run import run

    raise typer.Exit(run(Options(comfyui, python, comfyui_args, family, full, json_file)))


@app.command("config")
@plain_errors
def example_config(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema instead.")] = False,
    short: Annotated[bool, typer.Option("--short", help="Print only the lines that must be edited.")] = False,
) -> None:
    """Print an example config: every setting with its default, unit, range and source."""
    from .dpo_core.config import RunConfig, example_yaml
    from .terminal.short_config import SHORT

    if schema and short:
        raise UserError("--schema and --short print two things. Give one of them.")
    typer.echo(json.dumps(RunConfig.model_json_schema(), indent=2) if schema else SHORT if short else example_yaml())


if __name__ == "__main__":
    app()
