"""The end of a run, in its order: the best weights, the evaluation on the test rows, the export, the commit.

Other ranks wait for rank 0's commit, so that exit 0 means on every one of them that the artefacts are committed.
"""

from __future__ import annotations

from typing import Any

import torch

from finetune_api.exits import JobError, Reason
from finetune_api.report import Stage
from finetune_trainer.checkpoint import CheckpointRef
from finetune_trainer.evaluate.loop import Stopped
from finetune_trainer.evaluate.tally import Tally
from finetune_trainer.optimizers.average import PREFIX
from finetune_trainer.output import commit, export
from finetune_trainer.stream import sweep_cache
from finetune_trainer.tasks.base import Decision
from finetune_trainer.train.result import result_of, write_model_files
from finetune_trainer.train.scratch import scratch_folder
from finetune_trainer.train.session import Session


def finish(s: Session) -> None:
    """Test, export and commit; ends when the result is committed. Collective."""
    take_best(s)
    tally = test(s) if s.data.rows_in("test") else None
    s.ranks.sum([0.0])  # all have come as far: nothing is committed beside a rank that has failed
    s.ranks.from_first(lambda: write(s, tally))


def take_best(s: Session) -> None:
    """Load the best checkpoint's weights, if they are to be the output and are not those of the last step; of a run
    that averages its weights, the average.

    Collective.
    """
    if s.first:
        with s.progress.clock("checkpoint"):
            s.checkpoints.close()

    def best() -> dict[str, Any] | None:
        found = s.checkpoints.best() if s.config.checkpoints.keep_best else None
        return found.to_json() if found and found.step != s.state.step else None

    chosen = s.ranks.from_first(best)
    if chosen is not None:
        s.strategy.load_weights(judged_weights(s, CheckpointRef.from_json(chosen)))
    elif s.average is not None:
        s.average.exchange()


def judged_weights(s: Session, ref: CheckpointRef) -> dict[str, torch.Tensor]:
    """Of a checkpoint, as model.<parameter>: those that were judged."""
    prefix = PREFIX if s.average is not None else "model."
    found = s.checkpoints.load(ref, only=prefix).tensors
    return {"model." + name.removeprefix(prefix): tensor for name, tensor in found.items()}


def test(s: Session) -> Tally:
    """Judge on the test rows. Collective."""
    s.progress.stage(Stage.TESTING)
    try:
        with s.progress.clock("evaluate"):
            tally = s.evaluator.judge("test", s.state.step, decision_in_force(s))
    except Stopped:
        raise interrupted(s) from None
    s.progress.report(test={**tally.metrics(), **tally.intervals()})
    s.events.add("test", s.state.step, **tally.metrics())
    return tally


def decision_in_force(s: Session) -> Decision:
    """How the outputs of the weights that are the result become answers."""
    state = s.state
    chosen = state.best_decision if s.config.checkpoints.keep_best and state.best else state.decision
    return chosen or s.data.task.undecided


def write(s: Session, tally: Tally | None) -> bool:
    """Export to scratch and commit. Rank 0."""
    s.progress.stage(Stage.EXPORTING)
    with s.progress.clock("export"), scratch_folder(s.config, "export") as parent:
        result = result_of(s, tally, decision_in_force(s))
        folder = parent / "output"
        export(folder, result, s.events, lambda path: write_model_files(s, path))
        if s.stop():
            raise interrupted(s)
        output = commit(s.out, folder, s.config, s.progress.last_report, s.checkpoints.check_newest)
    sweep_cache(s.out)
    s.progress.report(stage=Stage.FINISHED, output=output)
    return True


def interrupted(s: Session) -> JobError:
    """Stopped after the last step: its checkpoint is committed already, and the next attempt makes the end again."""
    return JobError(
        Reason.INTERRUPTED, f"the run was told to stop after step {s.state.step}, before its output was committed"
    )
