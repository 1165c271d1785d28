"""`finetune lr-find`: what follows from the points; what the trainer is given, and what a user sees."""

from __future__ import annotations

import json
import math
import re

import pytest

from cli.conftest import Terminal
from finetune_cli.local.rate_range import Point, page, smoothed, suggestion, text_plot


def course(best: float, runs_away: bool = True) -> list[Point]:
    """Losses that fall around best/10 and run away behind `best`."""
    found: list[Point] = []
    for i in range(100):
        x = -7.0 + i * 0.06
        away = math.exp(4 * (x - math.log10(best) - 0.5)) if runs_away else 0.0
        found.append((10**x, 0.7 - 0.5 / (1 + math.exp(-6 * (x - math.log10(best) + 1))) + away))
    return found


@pytest.mark.parametrize("best", [1e-4, 1e-3])
def test_the_suggestion_is_a_tenth_of_the_rate_at_the_lowest_loss(best: float) -> None:
    points = course(best)
    found = suggestion(points)
    assert found is not None
    lowest = min(smoothed(points), key=lambda p: p[1])[0]
    assert found.lowest == lowest
    assert found.rate == pytest.approx(lowest / 10)
    assert best / 3 < found.lowest < best * 10
    assert found.steepest < found.lowest


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1e-5, 0.7)],
        [(1e-5 * 1.1**i, 0.7 + 0.001 * (i % 2)) for i in range(60)],
        [(1e-5 * 1.1**i, 0.7 + 0.05 * i) for i in range(60)],
    ],
    ids=["none", "one", "flat", "rising"],
)
def test_where_the_loss_does_not_fall_nothing_is_suggested(points: list[Point]) -> None:
    assert suggestion(points) is None


def test_the_running_mean_is_not_biased_to_its_start() -> None:
    assert [loss for _, loss in smoothed([(1.0, 2.0), (2.0, 2.0), (3.0, 2.0)])] == pytest.approx([2.0, 2.0, 2.0])
    assert smoothed([(1.0, 1.0), (2.0, 0.0)])[1][1] == pytest.approx(0.9 * 0.1 / (1 - 0.81))


def test_the_plots_show_the_curve_and_the_suggestion() -> None:
    points = course(1e-3)
    found = suggestion(points)
    drawn = text_plot(points, found)
    assert drawn.count("\n") == 12
    assert "*" in drawn
    assert "|" in drawn
    assert "1.0e-07" in drawn
    html = page("a <job>", points, found, ["said & done"])
    assert "<polyline" in html
    assert "a &lt;job&gt;" in html
    assert "said &amp; done" in html
    wild = [(rate, loss * (0.2 if n % 7 == 6 else 3.0 if n % 7 == 3 else 1.0)) for n, (rate, loss) in enumerate(points)]
    heights = [float(y) for y in re.findall(r'<circle cx="[^"]+" cy="([^"]+)"', page("wild", wild, None, []))]
    assert len(heights) == len(points)
    assert min(heights) >= 20
    assert max(heights) <= 340, "no step is drawn below the axis"
    assert "nan" not in page("flat", [(1e-5, 0.7), (1e-4, 0.7)], None, []) + text_plot([(1e-5, 0.7)], None)


def test_a_run_suggests_a_rate_and_leaves_the_output_alone(terminal: Terminal) -> None:
    terminal.write()
    found = {"rate": 2e-4, "points": course(1e-3)}
    script = [{"step": "prepare"}, {"step": "lr-find", "points": found}]
    done = terminal.run("lr-find", "job.yaml", "--steps", "60", "--device", "cpu", "--to", "found", script=script)
    assert done.returncode == 0, done.stderr
    values = json.loads((terminal.folder / "found" / "spam-filter-lr-find.json").read_text())
    wanted = suggestion(course(1e-3))
    assert wanted is not None
    assert values["suggestion"] == wanted.rate
    assert done.stdout == f"{wanted.rate:.2g}\n"
    assert values["inForce"] == 2e-4
    assert [(p["learningRate"], p["loss"]) for p in values["points"]] == course(1e-3)
    assert "<svg" in (terminal.folder / "found" / "spam-filter-lr-find.html").read_text()
    assert f"Suggested learning rate: {wanted.rate:.2g}" in done.stderr
    for seen in terminal.seen():
        config = seen["config"]
        assert f"file://{terminal.folder}/out" not in json.dumps(config), "the job's output is not touched"
        assert config["training"] == {**config["training"], "maxSteps": 60, "globalBatchSize": 32, "learningRate": 2e-4}
        assert "epochs" not in config["training"]
        assert config["world"]["processesPerWorker"] == config["world"]["workers"] == 1


def test_where_nothing_can_be_suggested_the_points_are_kept_and_it_is_an_error(terminal: Terminal) -> None:
    terminal.write()
    flat = {"rate": 2e-4, "points": [(1e-6 * 1.2**i, 0.7) for i in range(40)]}
    script = [{"step": "prepare"}, {"step": "lr-find", "points": flat}]
    done = terminal.run("lr-find", "job.yaml", script=script)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "did not fall at any learning rate" in done.stderr
    values = json.loads((terminal.folder / "spam-filter-lr-find.json").read_text())
    assert values["suggestion"] is None
    assert len(values["points"]) == 40


def test_what_stops_it_names_the_field_and_says_what_to_do(terminal: Terminal) -> None:
    terminal.write()
    problem = {"reason": "ModelNotFound", "message": "no such folder", "field": "spec.model.uri"}
    done = terminal.run("lr-find", "job.yaml", script=[{"step": "prepare", "exit": 22, "problem": problem}])
    assert done.returncode == 1
    assert "ModelNotFound: spec.model.uri: no such folder" in done.stderr
    few = terminal.run("lr-find", "job.yaml", "--steps", "3")
    assert few.returncode == 2
    assert "--steps" in few.stderr
