"""`finetune run` against a trainer that does as told: what a user sees, what the trainer is given, what is kept."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from cli.conftest import MANIFEST, Terminal, status_of
from finetune_api.exits import EXITS, Reason
from finetune_cli.local.state_dir import StateDir

PREPARE = {"step": "prepare"}


def wait_for(path: Path, words: str) -> None:
    """Until a file holds the words; no test depends on how long it takes."""
    deadline = time.monotonic() + 60
    while not (path.exists() and words in path.read_text()):
        assert time.monotonic() < deadline, f"{path} never held {words!r}"
        time.sleep(0.02)


def reports_of(terminal: Terminal) -> Path:
    deadline = time.monotonic() + 60
    while not (found := list((terminal.folder / "state").rglob("reports.jsonl"))):
        assert time.monotonic() < deadline, "no reports were written"
        time.sleep(0.02)
    return found[0]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_run_to_success(terminal: Terminal) -> None:
    terminal.write()
    done = terminal.run("run", "job.yaml", script=[PREPARE, {"step": "launch", "checkpoint": 5}])
    assert done.returncode == 0
    status = status_of(done)
    assert status["phase"] == "Succeeded"
    assert status["test"]["macro-f1"] == 0.961
    assert status["output"]["report"] == f"file://{terminal.folder}/out/report.html"
    assert [a["reason"] for a in status["attempts"]] == ["Completed"]
    for words in (
        "320 rows to learn from",
        "columns: text = body, label = kind",
        "step 10/10 (100%), loss 0.1",
        "step 5: macro-f1 0.9",
        "test: macro-f1 0.961 [0.948, 0.973]",
    ):
        assert words in done.stderr
    assert f"xdg-open {terminal.folder}/out/report.html" in done.stderr
    assert not list((terminal.folder / "state").rglob("scratch"))
    assert oct(next((terminal.folder / "state/finetune-operator").iterdir()).stat().st_mode)[-3:] == "700"


def test_the_trainer_is_given_the_manifest_as_a_run_config(terminal: Terminal) -> None:
    terminal.write(
        MANIFEST
        + "  workers: {replicas: 2, processesPerWorker: 2, terminationGracePeriodSeconds: 33, env: [{name: MY_X, value:"
        " plain}]}\n  storage: {endpoint: http://127.0.0.1:9, credentialsSecret: s3}\n"
    )
    terminal.run("run", "job.yaml", script=[PREPARE, {"step": "launch"}], AWS_ACCESS_KEY_ID="me")
    prepare, launch = terminal.seen()
    config = launch["config"]
    assert (prepare["step"], launch["step"]) == ("prepare", "launch")
    assert config["training"]["learningRate"] == 2e-4
    assert config["world"]["workers"] == 1
    assert config["world"]["processesPerWorker"] == 4
    assert config["world"]["threadsPerProcess"] == max(1, len(os.sched_getaffinity(0)) // 4)
    assert config["gracePeriodSeconds"] == 33
    assert config["storage"]["endpoint"] == "http://127.0.0.1:9"
    assert config["job"]["name"] == "local/spam-filter"
    assert launch["env"] == {"AWS_ACCESS_KEY_ID": "me", "MY_X": "plain"}
    assert prepare["config"]["job"] == config["job"]
    assert prepare["config"]["attempt"] == config["attempt"] == 1


def test_notes_say_what_differs_from_a_cluster(terminal: Terminal) -> None:
    text = (
        MANIFEST.replace("file:///models", "s3://models")
        + "  workers: {replicas: 2, nodeSelector: {a: b}, resources: {limits: {memory: 2Gi}}, env: [{name: MY_X,"
        " secretKeyRef: {name: a, key: b}}]}\n  prepare: {resources: {limits: {memory: 1Gi}}}\n  storage:"
        " {credentialsSecret: s3}\n  hub: {tokenSecret: {name: hub}}\n  suspend: true\n"
    )
    terminal.write(text)
    script = [PREPARE, {"step": "launch"}]
    done = terminal.run("run", "job.yaml", script=script)
    for words in (
        "2 processes on this machine instead of 2 worker pods",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set: export them instead of the Secret s3",
        "HF_TOKEN is not set",
        "MY_X is not set",
        "only a cluster uses spec.workers.resources, spec.workers.nodeSelector, spec.prepare, spec.suspend",
    ):
        assert words in done.stderr
    done = terminal.run(
        "run", "job.yaml", "--restart", script=script * 2, AWS_ACCESS_KEY_ID="AKIAme", AWS_SECRET_ACCESS_KEY="hush"
    )
    assert "credentials are taken from AWS_ACCESS_KEY_ID instead of the Secret s3" in done.stderr
    assert "hush" not in done.stderr + done.stdout
    assert not any("hush" in p.read_text() for p in (terminal.folder / "state").rglob("*.json"))


def test_a_manifest_without_any_of_that_has_no_notes(terminal: Terminal) -> None:
    terminal.write()
    assert "note:" not in terminal.run("run", "job.yaml", script=[PREPARE, {"step": "launch"}]).stderr


def test_ctrl_c_writes_a_checkpoint_and_the_same_command_goes_on(terminal: Terminal) -> None:
    terminal.write()
    script = [
        PREPARE,
        {"step": "launch", "total": 1000, "seconds": 0.05},
        PREPARE,
        {"step": "launch", "total": 1000, "from": 990},
    ]
    running = terminal.start("run", "job.yaml", script=script)
    wait_for(reports_of(terminal), '"step": 3')
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Stopping: the trainer writes a checkpoint first" in err
    status = yaml.safe_load(out)["status"]
    assert status["phase"] == "Suspended"
    step = status["checkpoints"][0]["step"]
    assert f"Stopped: the checkpoint of step {step} is kept." in err
    assert "finetune run job.yaml" in err
    again = terminal.run("run", "job.yaml", script=script)
    assert again.returncode == 0
    assert "Going on from the checkpoint of step 990" in again.stderr
    ids = {entry["config"]["job"]["id"] for entry in terminal.seen()}
    assert len(ids) == 1
    assert terminal.seen()[-1]["config"]["attempt"] == 2
    assert [a["reason"] for a in status_of(again)["attempts"]] == ["Completed", "Interrupted"]


def test_a_second_ctrl_c_kills_and_leaves_no_process(terminal: Terminal) -> None:
    terminal.write()
    running = terminal.start(
        "run",
        "job.yaml",
        script=[PREPARE, {"step": "launch", "total": 100000, "seconds": 0.05, "stubborn": True, "child": True}],
    )
    wait_for(reports_of(terminal), '"step": 2')
    running.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Killing the trainer" in err
    launch = terminal.seen()[-1]
    assert not alive(launch["pid"])
    assert not alive(launch["child"])


def test_sigterm_stops_like_ctrl_c(terminal: Terminal) -> None:
    terminal.write()
    running = terminal.start("run", "job.yaml", script=[PREPARE, {"step": "launch", "total": 1000, "seconds": 0.05}])
    wait_for(reports_of(terminal), '"step": 2')
    running.terminate()
    running.communicate(timeout=60)
    assert running.returncode == 143


def test_the_same_job_does_not_run_twice_at_once(terminal: Terminal) -> None:
    terminal.write()
    running = terminal.start("run", "job.yaml", script=[PREPARE, {"step": "launch", "total": 1000, "seconds": 0.05}])
    wait_for(reports_of(terminal), '"step": 2')
    second = terminal.run("run", "job.yaml", script=[])
    assert second.returncode == 1
    assert "already running (process" in second.stderr
    running.kill()  # even then the trainer holds the lock
    running.communicate()
    assert "already running (process" in terminal.run("run", "job.yaml", script=[]).stderr
    os.kill(terminal.seen()[-1]["pid"], signal.SIGKILL)


def test_a_full_state_folder_is_named(terminal: Terminal) -> None:
    """/dev/full says what a full disk says."""
    terminal.write()
    state = next_folder(terminal)
    (state / "run.json").symlink_to("/dev/full")
    done = terminal.run("run", "job.yaml", script=[{"exit": 0}, {"exit": 0}])
    assert done.returncode == EXITS[Reason.DISK_FULL].code
    assert f"error: DiskFull: no space is left in {state}" in done.stderr
    assert "--state-dir" in done.stderr


def next_folder(terminal: Terminal) -> Path:
    """The state folder that the job of `write()` will have."""
    folder = StateDir(terminal.folder / "state" / "finetune-operator", "spam-filter", f"file://{terminal.folder}/out")
    folder.path.mkdir(parents=True)
    return folder.path


def test_a_users_mistake_ends_the_job_with_its_own_code(terminal: Terminal) -> None:
    terminal.write()
    problem = {
        "reason": "InvalidData",
        "message": "train/0001.jsonl line 7 is not JSON",
        "hint": "Mend the line.",
        "field": "spec.data.train.uri",
    }
    done = terminal.run("run", "job.yaml", script=[{"step": "prepare", "exit": 21, "problem": problem}])
    assert done.returncode == 21
    assert (
        "error: InvalidData: spec.data.train.uri: train/0001.jsonl line 7 is not JSON\n  Mend the line.\n"
        in done.stderr
    )
    assert "Log: " in done.stderr
    assert status_of(done)["failure"]["field"] == "spec.data.train.uri"
    assert len(terminal.seen()) == 1


def test_a_lost_peer_is_tried_again_from_the_checkpoint(terminal: Terminal) -> None:
    terminal.write()
    script = [PREPARE, {"step": "launch", "steps": 6, "checkpoint": 5, "exit": 41}, {"step": "launch", "from": 5}]
    done = terminal.run("run", "job.yaml", script=script)
    assert done.returncode == 0
    status = status_of(done)
    assert status["restarts"] == 1
    assert [(a["number"], a["reason"]) for a in status["attempts"]] == [(2, "Completed"), (1, "PeerLost")]
    assert status["attempts"][1]["lostSteps"] == 1
    assert "PeerLost: Another worker went away.; trying again" in done.stderr


def test_restarts_without_a_checkpoint_are_bounded(terminal: Terminal) -> None:
    terminal.write(MANIFEST + "  restartPolicy: {maxRestarts: 1}\n")
    crash = {"step": "launch", "steps": 2, "signal": 9, "silent": True}
    done = terminal.run("run", "job.yaml", script=[PREPARE, crash, crash])
    assert done.returncode == 1
    assert "TooManyRestarts: 1 restarts in a row brought no newer checkpoint" in done.stderr
    assert "Crashed: the trainer was killed by SIGKILL" in done.stderr
    assert len(terminal.seen()) == 3


def test_a_new_checkpoint_gives_the_budget_back(terminal: Terminal) -> None:
    terminal.write(MANIFEST + "  restartPolicy: {maxRestarts: 1}\n")
    script = [
        PREPARE,
        *({"step": "launch", "from": n, "steps": n + 2, "checkpoint": n + 1, "exit": 44} for n in (0, 1, 2)),
        {"step": "launch", "from": 3},
    ]
    done = terminal.run("run", "job.yaml", script=script)
    assert done.returncode == 0
    assert status_of(done)["restarts"] == 3


def test_a_trainer_that_never_comes_to_its_steps_spends_the_budget_whatever_was_stored_before(
    terminal: Terminal,
) -> None:
    terminal.write(MANIFEST + "  restartPolicy: {maxRestarts: 2}\n")
    early = {"step": "launch", "steps": 0, "signal": 9, "silent": True}
    script = [PREPARE, {"step": "launch", "steps": 6, "checkpoint": 5, "exit": 41}, early, early, early]
    done = terminal.run("run", "job.yaml", script=script)
    assert "TooManyRestarts: 2 restarts in a row brought no newer checkpoint" in done.stderr
    attempts = status_of(done)["attempts"]
    assert [a.get("fromStep") for a in attempts][-1] == 0
    assert not any({"fromStep", "lastStep", "lostSteps"} & entry.keys() for entry in attempts[:-1])


def test_a_checkpoint_that_was_never_told_of_counts_when_the_next_attempt_starts_from_it(terminal: Terminal) -> None:
    terminal.write()
    script = [PREPARE, {"step": "launch", "steps": 6, "signal": 9, "silent": True}, {"step": "launch", "from": 8}]
    before = status_of(terminal.run("run", "job.yaml", script=script))["attempts"][-1]
    assert (before["lastStep"], before["lostSteps"]) == (8, 0)


def test_a_trainer_that_says_nothing_is_quoted_by_its_log(terminal: Terminal) -> None:
    terminal.write(MANIFEST + "  restartPolicy: {maxRestarts: 0}\n")
    done = terminal.run(
        "run",
        "job.yaml",
        script=[{"step": "prepare", "exit": 1, "silent": True, "say": ["ImportError: no such thing"]}],
    )
    assert done.returncode == 1
    assert "Crashed: the prepare step left with exit code 1: ImportError: no such thing" in done.stderr


def test_a_complete_job_is_not_done_again(terminal: Terminal) -> None:
    terminal.write()
    script = [PREPARE, {"step": "launch"}]
    first = terminal.run("run", "job.yaml", script=script)
    second = terminal.run("run", "job.yaml", script=script)
    assert second.returncode == 0
    assert "is already complete" in second.stderr
    assert f"file://{terminal.folder}/out" in second.stderr
    assert status_of(second) == status_of(first)
    assert len(terminal.seen()) == 2


def test_a_result_that_was_removed_is_made_again(terminal: Terminal) -> None:
    terminal.write()
    script = [PREPARE, {"step": "launch"}]
    terminal.run("run", "job.yaml", script=script)
    (terminal.folder / "out/result.json").unlink()
    assert "already complete" not in terminal.run("run", "job.yaml", script=script * 2).stderr


def test_restart_takes_the_output_over_once_and_then_resumes(terminal: Terminal) -> None:
    terminal.write()
    first = [PREPARE, {"step": "launch"}]
    interrupted = [PREPARE, {"step": "launch", "steps": 3, "exit": 22}]
    terminal.run("run", "job.yaml", script=first)
    terminal.run("run", "job.yaml", "--restart", script=first + interrupted)
    terminal.run("run", "job.yaml", script=first + interrupted + first)
    configs = [entry["config"] for entry in terminal.seen()]
    assert [c["output"]["overwrite"] for c in configs] == [False, False, True, False, False, False]
    ids = [c["job"]["id"] for c in configs]
    assert ids[0] == ids[1] != ids[2]
    assert len(set(ids[2:])) == 1


def test_a_take_over_is_still_owed_if_the_prepare_step_failed(terminal: Terminal) -> None:
    terminal.write()
    script = [{"step": "prepare", "exit": 25}, PREPARE, {"step": "launch"}]
    terminal.run("run", "job.yaml", "--restart", script=script)
    terminal.run("run", "job.yaml", script=script)
    assert [e["config"]["output"]["overwrite"] for e in terminal.seen()] == [True, True, False]


def test_a_changed_spec_is_another_job_and_a_mutable_field_is_not(terminal: Terminal) -> None:
    terminal.write()
    fail = {"step": "prepare", "exit": 22}
    for text in (MANIFEST, MANIFEST + "  ttlSecondsAfterFinished: 60\n", MANIFEST.replace("2e-4", "3e-4"), MANIFEST):
        terminal.write(text)
        terminal.run("run", "job.yaml", script=[fail] * 4)
    ids = [e["config"]["job"]["id"] for e in terminal.seen()]
    assert ids[0] == ids[1] == ids[3] != ids[2]


def test_the_deadline_counts_all_runs_together(terminal: Terminal) -> None:
    terminal.write(MANIFEST + "  activeDeadlineSeconds: 2\n")
    script = [PREPARE, {"step": "launch", "total": 100000, "seconds": 0.05}, PREPARE]
    done = terminal.run("run", "job.yaml", script=script)
    assert done.returncode == 1
    assert "DeadlineExceeded" in done.stderr
    assert status_of(done)["failure"]["reason"] == "DeadlineExceeded"
    assert status_of(done)["checkpoints"]
    assert "DeadlineExceeded" in terminal.run("run", "job.yaml", script=script).stderr


def test_verbose_shows_the_log(terminal: Terminal) -> None:
    terminal.write()
    script = [{"step": "prepare", "say": ["hello from the log"]}, {"step": "launch"}]
    assert "| hello from the log" in terminal.run("run", "-v", "job.yaml", script=script).stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MANIFEST.replace("epochs: 3", "epochs: 0"), "job.yaml:12: spec.training.epochs: "),
        (
            MANIFEST + "---\n" + MANIFEST.replace("spam-filter", "b").replace("OUTPUT", "s3://b/c"),
            "holds 2 jobs: spam-filter, b",
        ),
        ("", "job.yaml: holds no document"),
    ],
)
def test_a_file_that_cannot_be_run(terminal: Terminal, text: str, words: str) -> None:
    terminal.write(text)
    done = terminal.run("run", "job.yaml", script=[])
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stdout == ""
    assert not terminal.seen()


def test_torch_is_never_imported(terminal: Terminal) -> None:
    terminal.write()
    (terminal.folder / "torch.py").write_text("raise AssertionError('the command line imported torch')\n")
    (terminal.folder / "numpy.py").write_text("raise AssertionError('the command line imported numpy')\n")
    script = [PREPARE, {"step": "launch"}]
    environment = terminal.environ(script)
    path = f"{terminal.folder}{os.pathsep}{environment['PYTHONPATH']}"
    assert terminal.run("run", "job.yaml", script=script, PYTHONPATH=path).returncode == 0
