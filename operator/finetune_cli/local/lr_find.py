"""`finetune lr-find`: which learning rate suits a job's model and rows, by a short run on this machine.

The trainer makes the steps, as a process; its output is a place of its own, so that nothing of the job's is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
from pydantic import ValidationError

from finetune_api.exits import COMPLETE
from finetune_api.job import Manifest
from finetune_api.report import Outcome
from finetune_api.tuning import Output
from finetune_cli.local.command import one_job
from finetune_cli.local.config import Device, Machine, cores, local_config, trainer_environment
from finetune_cli.local.process import Step, require_trainer
from finetune_cli.local.rate_range import page, suggestion, text_plot
from finetune_cli.local.state_dir import state_root
from finetune_cli.local.step_end import step_end
from finetune_cli.terminal import Stop, headline


@click.command("lr-find", short_help="Try rising learning rates on a job's model and rows; suggest one.")
@click.argument("file", metavar="FILE")
@click.option("--name", help="Which job, if FILE holds several.")
@click.option("--steps", type=click.IntRange(20, 1000), default=100, show_default=True, help="Steps, one rate each.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder of the points and the plot.  [default: this one]",
)
def lr_find(file: str, name: str | None, steps: int, device: Device, to: Path) -> None:
    """Make a step at each of many learning rates, from far too low to too high, and suggest one (Smith 2017).

    Model, rows, method and optimizer are those of the manifest FILE ("-" reads the standard input). The job's output is
    not touched. Writes NAME-lr-find.json (the points) and NAME-lr-find.html (the curve).
    """
    manifest = one_job(file, name).manifest
    require_trainer()
    called = manifest.metadata.name
    folder = state_root() / "lr-find" / called
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    headline(f"{called}: {steps} steps at rising learning rates")
    try:
        config = local_config(
            as_test(manifest, folder, steps),
            Machine(cores(), 1, device),
            folder,
            identity=f"lr-find-{called}"[:64],
            attempt=1,
            overwrite=False,
            environment=os.environ,
        )
        (folder / "run.json").write_text(json.dumps(config.to_json()))
        for step in ("prepare", "lr-find"):
            _run(step, folder, trainer_environment(manifest.spec, os.environ))  # type: ignore[arg-type]
        found = json.loads((folder / "points.json").read_text())
    finally:
        for part in ("scratch", "out"):
            shutil.rmtree(folder / part, ignore_errors=True)
    _tell(called, found["rate"], [(rate, loss) for rate, loss in found["points"]], to)


def as_test(manifest: Manifest, folder: Path, steps: int) -> Manifest:
    """The job as a test of so many steps, with an output of its own."""
    spec = manifest.spec
    own = {
        "output": Output(uri=(folder / "out").absolute().as_uri()),
        "training": spec.training.model_copy(update={"epochs": None, "max_steps": steps}),
        "evaluation": spec.evaluation.model_copy(update={"folds": None}),
        "checkpoints": spec.checkpoints.model_copy(update={"resume_from": None}),
    }
    return manifest.model_copy(update={"spec": spec.model_copy(update=own)})


def _run(step: Step, folder: Path, environment: dict[str, str]) -> None:
    """A step of the trainer to its end. Raises Stop with its cause."""
    log = folder / f"{step}.log"
    command = [sys.executable, "-m", "finetune_trainer", step, "--config", str(folder / "run.json")]
    with log.open("wb") as sink:
        code = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, check=False
        ).returncode
    if code == COMPLETE:
        return
    try:
        outcome = Outcome.model_validate_json((folder / "outcome.json").read_bytes())
    except (OSError, ValidationError):
        outcome = None
    cause = step_end(step, code if code >= 0 else 128 - code, outcome, log).cause
    assert cause is not None
    where = f"{cause.field}: " if cause.field else ""
    raise Stop(f"{cause.reason}: {where}{cause.message}", hint=cause.hint)


def _tell(called: str, in_force: float, points: list[tuple[float, float]], to: Path) -> None:
    """The curve and what follows from it; the suggestion alone goes to stdout."""
    found = suggestion(points)
    said = [f"Without it the job takes {in_force:.2g}."]
    if found is not None:
        said = [
            f"Suggested learning rate: {found.rate:.2g}, a tenth of the one at which the loss is lowest"
            f" ({found.lowest:.2g}); it falls fastest at {found.steepest:.2g}.",
            *said,
        ]
    to.mkdir(parents=True, exist_ok=True)
    files = [to / f"{called}-lr-find.{kind}" for kind in ("json", "html")]
    values = {
        "suggestion": found and found.rate,
        "steepest": found and found.steepest,
        "lowest": found and found.lowest,
        "inForce": in_force,
        "points": [{"learningRate": rate, "loss": loss} for rate, loss in points],
    }
    files[0].write_text(json.dumps(values, indent=1) + "\n")
    if len(points) > 1:
        files[1].write_text(page(f"{called}: loss by learning rate", points, found, said))
        click.echo(text_plot(points, found), err=True)
    click.echo("\n".join(said), err=True)
    click.echo(f"Points and plot: {', '.join(map(str, files if len(points) > 1 else files[:1]))}", err=True)
    if found is None:
        raise Stop(
            "the loss did not fall at any learning rate, so none can be suggested",
            hint="Look at the plot; give more --steps, a larger globalBatchSize, or check the rows.",
        )
    click.echo(f"{found.rate:.2g}")
