"""The end of a run, in its order: the best weights, the final evaluations, the export, the commit.

Other ranks wait for rank 0's commit, so that exit 0 means on every one of them that the artefacts are committed.
"""

from __future__ import annotations

from pathlib import Path

from finetune_api.exits import JobError, Reason
from finetune_api.report import Stage
from finetune_trainer.evaluate.loop import Stopped
from finetune_trainer.output import commit, export
from finetune_trainer.stream import sweep_cache
from finetune_trainer.train.chosen_weights import Chosen, take_best
from finetune_trainer.train.final import Final, judge_result
from finetune_trainer.train.out_of_fold import sweep_answers, write_predictions
from finetune_trainer.train.result import result_of, write_model_files
from finetune_trainer.train.scratch import scratch_folder
from finetune_trainer.train.session import Session


def finish(s: Session) -> None:
    """Test, export and commit; ends when the result is committed. Collective."""
    try:
        chosen = take_best(s)
        final = judge_result(s, chosen)
    except Stopped:
        raise interrupted(s) from None
    s.ranks.sum([0.0])  # all have come as far: nothing is committed beside a rank that has failed
    s.ranks.from_first(lambda: write(s, final, chosen))


def write(s: Session, final: Final, chosen: Chosen) -> bool:
    """Export to scratch and commit. Rank 0."""
    s.progress.stage(Stage.EXPORTING)
    with s.progress.clock("export"), scratch_folder(s.config, "export") as parent:
        result = result_of(s, final, chosen)
        folder = parent / "output"
        export(folder, result, s.events, lambda path: _write_files(s, path))
        if s.stop():
            raise interrupted(s)
        output = commit(s.out, folder, s.config, s.progress.last_report, s.checkpoints.check_newest)
    sweep_cache(s.out)
    sweep_answers(s)
    s.progress.report(stage=Stage.FINISHED, output=output)
    return True


def _write_files(s: Session, folder: Path) -> None:
    write_predictions(s, folder)
    write_model_files(s, folder)


def interrupted(s: Session) -> JobError:
    """Stopped after the last step: its checkpoint is committed already, and the next attempt makes the end again."""
    return JobError(
        Reason.INTERRUPTED, f"the run was told to stop after step {s.state.step}, before its output was committed"
    )
