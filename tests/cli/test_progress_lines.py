"""What people are told of a job with folds, in a terminal and of a job in a cluster."""

from __future__ import annotations

from finetune_api.report import Report, Stage
from finetune_api.status import FoldScores, Phase, Progress, Status
from finetune_cli.kubectl.show import job_lines
from finetune_cli.progress_lines import lines, progress

ONE = FoldScores(count=3, done=1, metric="f1", last=0.9, mean=0.9, last_loss=0.4, mean_loss=0.4)
ALL = FoldScores(
    count=3,
    done=3,
    metric="f1",
    last=0.8,
    mean=0.85,
    deviation=0.05,
    last_loss=0.5,
    mean_loss=0.45,
    loss_deviation=0.0123,
)


def report(folds: FoldScores | None) -> Report:
    return Report(job_id="1", attempt=1, sequence=1, time=0, stage=Stage.TRAINING, folds=folds)


def test_each_fold_is_told_once_and_their_mean_at_the_end() -> None:
    assert list(lines(report(None), report(ONE))) == ["fold 1 of 3: f1 0.9, loss 0.4"]
    assert list(lines(report(ONE), report(ONE))) == []
    assert list(lines(report(ONE), report(ALL))) == [
        "fold 3 of 3: f1 0.8, loss 0.5",
        "mean of 3 folds: f1 0.85 ± 0.05, loss 0.45 ± 0.012; now all training rows",
    ]
    assert list(lines(report(None), report(FoldScores(count=3)))) == []


def test_the_line_of_progress_says_what_is_tuned() -> None:
    assert progress(Progress(step=5, total_steps=20, percent=25, part="fold 2 of 3")) == "fold 2 of 3, step 5/20 (25%)"
    assert progress(Progress(step=5, total_steps=20, percent=25)) == "step 5/20 (25%)"


def test_a_job_in_a_cluster_shows_its_folds() -> None:
    def shown(folds: FoldScores) -> list[str]:
        body = {"metadata": {"name": "cv"}, "status": Status(phase=Phase.RUNNING, folds=folds).to_json()}
        return [line.strip() for line in job_lines(body, 0.0) if "olds" in line]

    assert shown(ONE) == ["Folds:       mean of 1 of 3 folds: f1 0.9, loss 0.4"]
    assert shown(ALL) == ["Folds:       mean of 3 folds: f1 0.85 ± 0.05, loss 0.45 ± 0.012"]
    assert shown(FoldScores(count=3)) == []
