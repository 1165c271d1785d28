"""`python -m finetune_trainer prepare|launch --config run.json`: the two steps of a job, as pods and `finetune run`
start them; `predict`, as `finetune predict` does; and `lr-find`, after prepare, for `finetune lr-find`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from finetune_api.base import FieldError, parse, parse_stored
from finetune_api.exits import EXITS, Reason
from finetune_api.predict import PredictConfig
from finetune_api.run import RunConfig
from finetune_trainer.report.logs import set_up

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """The exit code of the step."""
    parser = argparse.ArgumentParser(prog="finetune-trainer", description="One step of a fine-tuning job.")
    parser.add_argument(
        "step",
        choices=("prepare", "launch", "predict", "lr-find"),
        help="prepare: check everything, write the data manifest; launch: run this node's workers; predict: answer;"
        " lr-find: steps at rising learning rates, their losses to points.json beside the RunConfig",
    )
    parser.add_argument("--config", required=True, type=Path, metavar="run.json", help="the RunConfig or PredictConfig")
    chosen = parser.parse_args(arguments)
    set_up()
    if chosen.step == "predict":
        from finetune_trainer.predict.command import main as predict

        return predict(parse(PredictConfig, json.loads(chosen.config.read_text())))
    try:
        # Leniently: an operator that was upgraded in mid-job speaks to the trainer that the job began with.
        config, ignored = parse_stored(RunConfig, json.loads(chosen.config.read_text()))
    except (OSError, ValueError, FieldError) as error:
        print(f"{chosen.config}: {error}", file=sys.stderr)
        return EXITS[Reason.INVALID_CONFIG].code or 20
    if ignored:
        log.warning("%s: a newer version wrote what this trainer does not know: %s", chosen.config, ", ".join(ignored))
    if chosen.step == "prepare":
        from finetune_trainer.prepare import main as prepare

        return prepare(config)
    if chosen.step == "lr-find":
        from finetune_trainer.launch.find_rate import find_rate

        return find_rate(config, chosen.config.parent / "points.json")
    from finetune_trainer.launch.launcher import launch

    return launch(config)


if __name__ == "__main__":
    sys.exit(main())
