"""`finetune validate`: each finding names the file, the line and the field, says why and what to do (I9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import MANIFEST, Terminal

VALID = MANIFEST.replace("file:///", "s3://b/").replace("OUTPUT", "s3://b/out")


def findings(terminal: Terminal, text: str, *options: str) -> list[str]:
    """The lines of findings for a manifest."""
    terminal.write(text)
    done = terminal.run("validate", *options, "job.yaml")
    assert done.returncode == (1 if done.stderr else 0)
    return done.stdout.splitlines()


def test_a_valid_file(terminal: Terminal) -> None:
    assert findings(terminal, VALID) == ["job.yaml:1: FineTuneJob spam-filter is valid"]
    assert terminal.run("validate", "-q", "job.yaml").stdout == ""
    assert terminal.run("validate", "-", stdin=VALID).stdout == "(stdin):1: FineTuneJob spam-filter is valid\n"


def test_file_uris_are_for_this_machine_only(terminal: Terminal) -> None:
    assert "job.yaml:6: spec.model.uri: file:// is for `finetune run`" in findings(terminal, MANIFEST)[0]
    assert findings(terminal, MANIFEST, "--local") == ["job.yaml:1: FineTuneJob spam-filter is valid"]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("epochs: 3", "epochz: 3", "job.yaml:12: spec.training.epochz: no such field; did you mean epochs?"),
        (
            "globalBatchSize",
            "global_batch_size",
            "job.yaml:12: spec.training.global_batch_size: no such field; did you mean globalBatchSize?",
        ),
        (
            "  task:",
            "  learningRate: 1\n  task:",
            "job.yaml:5: spec.learningRate: no such field here; move it to spec.training.learningRate",
        ),
        (
            "rank: 8",
            "bananas: 8",
            ("job.yaml:11: spec.method.lora.bananas: no such field; spec.method.lora has rank, alpha, "),
        ),
        ("text-classification", "text-clasification", "job.yaml:5: spec.task: must be 'text-classification', "),
        (
            "rank: 8",
            'rank: "8"',
            "job.yaml:11: spec.method.lora.rank: must be a whole number, not a text (Rank of the update)",
        ),
        (
            "{uri: s3://b/out}",
            "{}",
            "job.yaml:13: spec.output.uri: this field is required; add it (Prefix for the tuned model",
        ),
        (
            "kind: FineTuneJob",
            "kind: FinetuneJob",
            "job.yaml:2: kind: must be 'FineTuneJob'; did you mean FineTuneJob?",
        ),
        (
            "type: lora,",
            "type: full,",
            "job.yaml:11: spec.method.lora: only with type lora; remove it or set type: lora",
        ),
        (
            "text: body",
            "messages: body",
            "job.yaml:10: spec.data.columns: messages, prompt and completion are for causal-lm; for text-",
        ),
        (
            "epochs: 3",
            "epochs: 3, epochs: 4",
            "job.yaml:12: spec.training.epochs: set twice (first in line 12); remove one of them",
        ),
        (
            "columns: {",
            "labels: [a, '']\n    columns: {",
            "job.yaml:10: spec.data.labels[1]: must have at least 1 character",
        ),
    ],
)
def test_each_finding_says_where_why_and_what_to_do(terminal: Terminal, before: str, after: str, line: str) -> None:
    (found,) = findings(terminal, VALID.replace(before, after))
    assert found.startswith(line)


def test_a_misspelt_task_gets_the_nearest(terminal: Terminal) -> None:
    (found,) = findings(terminal, VALID.replace("text-classification", "text-clasification"))
    assert found.endswith("; did you mean text-classification?")


def test_all_findings_of_all_files_in_the_order_of_their_lines(terminal: Terminal) -> None:
    terminal.write(
        VALID.replace("epochs: 3", "epochs: 0").replace("rank: 8", "rank: 0").replace("task: text-", "task: txt-"),
        "a.yaml",
    )
    terminal.write(VALID, "b.yaml")
    done = terminal.run("validate", "a.yaml", "b.yaml", "none.yaml")
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
        "a.yaml:5",
        "a.yaml:11",
        "a.yaml:12",
        "none.yaml",
        "b.yaml:1",
    ]
    assert done.stderr == "4 findings in 2 files\n"
    assert done.returncode == 1


def test_two_jobs_with_one_output(terminal: Terminal) -> None:
    lines = findings(terminal, VALID + "---\n" + VALID.replace("spam-filter", "other"))
    assert (
        lines[0]
        == "job.yaml:27: spec.output.uri: is also the output of spam-filter (job.yaml:13); give each job its own"
    )


def test_other_kinds_beside_a_job_are_left_alone_and_named(terminal: Terminal) -> None:
    terminal.write("apiVersion: v1\nkind: Secret\nmetadata: {name: s3}\n---\n" + VALID)
    done = terminal.run("validate", "job.yaml")
    assert done.returncode == 0
    assert "job.yaml:1: kind Secret is not a FineTuneJob; left unchecked" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("empty.yaml", "", "empty.yaml: holds no document"),
        ("comment.yaml", "# nothing\n", "comment.yaml: holds no document"),
        (
            "other.yaml",
            "apiVersion: v1\nkind: ConfigMap\n",
            "other.yaml:1: kind ConfigMap is not a FineTuneJob; a job starts with",
        ),
        ("list.yaml", "- a\n", "list.yaml:1: a list is not a FineTuneJob"),
        ("text.yaml", "hello\n", "text.yaml:1: a plain text is not a FineTuneJob"),
        ("broken.yaml", "a: {b\n", "broken.yaml:2: not YAML"),
    ],
)
def test_files_that_are_no_jobs(terminal: Terminal, name: str, content: str, line: str) -> None:
    (terminal.folder / name).write_text(content)
    done = terminal.run("validate", name)
    assert done.returncode == 1
    assert done.stdout.startswith(line)
    assert len(done.stdout.splitlines()) == 1


def test_paths_that_are_no_files(terminal: Terminal) -> None:
    (terminal.folder / "folder").mkdir()
    assert terminal.run("validate", "folder").stdout == "folder: is a directory; name the manifest file in it\n"
    assert terminal.run("validate", "none").stdout == "none: no such file; check the path\n"
    assert terminal.run("run", "none", script=[]).stderr == "error: none: no such file; check the path\n"


def test_help_and_mistyped_commands(terminal: Terminal) -> None:
    shown = terminal.run("--help").stdout
    for word in ("init", "validate", "run", "kubectl apply -f job.yaml"):
        assert word in shown
    done = terminal.run("valdate", "job.yaml")
    assert done.returncode == 2
    assert "no command valdate; did you mean validate?" in done.stderr


def test_every_refused_manifest_of_the_corpus_gives_lines_with_a_place(terminal: Terminal) -> None:
    corpus = sorted((Path(__file__).parents[1] / "contract/invalid").glob("*.yaml"))
    assert len(corpus) >= 60
    done = terminal.run("validate", *map(str, corpus))
    lines = done.stdout.splitlines()
    refused = {line.split(":")[0] for line in lines}
    assert refused == set(map(str, corpus))
    for line in lines:
        assert line.split(":")[1].isdigit(), line
