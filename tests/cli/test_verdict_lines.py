"""Sets and verdicts at the terminal: what warns is seen while a run reports, at its end, and in a job's description."""

from __future__ import annotations

import copy

import click

from cli.test_kubectl_plugin import JOB
from finetune_api.report import Report, Stage
from finetune_api.status import SetScore, Verdict
from finetune_cli.kubectl.show import job_lines
from finetune_cli.progress_lines import lines

GERMAN = SetScore(name="german", rows=300, metrics={"macro-f1": 0.91, "macro-f1-low": 0.88, "macro-f1-high": 0.93})
WORSE = Verdict(kind="NoBetterThanBase", warning=True, message="No better than the base on these rows: 0.9 → 0.7.")
FITS = Verdict(kind="Fits", message="No sign of over-fitting.")


def report(**more: object) -> Report:
    return Report.model_validate(
        {"job_id": "u", "attempt": 1, "sequence": 1, "time": 1.0, "stage": Stage.TESTING, **more}, by_name=True
    )


def test_each_set_and_the_verdicts_are_told_once_as_they_come() -> None:
    first = report()
    second = report(sets=(GERMAN,))
    third = report(sets=(GERMAN, GERMAN.model_copy(update={"name": "old", "rows": 1})), verdicts=(FITS, WORSE))
    assert list(lines(first, second)) == ["set german (300 rows): macro-f1 0.91 [0.88, 0.93]"]
    assert list(lines(second, third)) == [
        "set old (1 row): macro-f1 0.91 [0.88, 0.93]",
        "No sign of over-fitting.",
        "WARNING: No better than the base on these rows: 0.9 → 0.7.",
    ]
    assert list(lines(third, third)) == []


def test_a_description_shows_what_warns_first() -> None:
    body = copy.deepcopy(JOB)
    body["status"] |= {"sets": [GERMAN.to_json()], "verdicts": [FITS.to_json(), WORSE.to_json()]}
    shown = [click.unstyle(line) for line in job_lines(body, 0.0)]
    assert "  Sets:        german (300 rows): macro-f1 0.91 [0.88, 0.93]" in shown
    at = shown.index("  Verdict:     WARNING: No better than the base on these rows: 0.9 → 0.7.")
    assert shown[at + 1].strip() == "No sign of over-fitting."
