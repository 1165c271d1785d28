"""Encoding long chats: the trainer's way beside locating every turn by three renderings of the chat. One JSON line;
about 1 minute.

    make bench NAME=chat_encoding [ARGS="--turns 100 --rounds 5"]

A chat of so many questions of 3 to 20 words, each answered, under a tokenizer that knows its words, and templates in
the styles of well-known families. Both arms run in one process, in alternating order; the masks are compared. Times are
seconds of the processor, the median over the rounds. `tokens_ms` of them go into the tokenizer itself, in both arms:
`ratio` counts them, `ratio_of_masks` does not. The slow arm renders by transformers' own `apply_chat_template`, as the
trainer once did.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.tasks.chats.encode import encode_chat
from finetune_trainer.tasks.chats.messages import chat_of
from support import one_by_one
from support.chat_templates import PLAIN, write_tokenizer

WORDS = "what is the reason for this and how would you go about it if there were no time left to ask anyone".split()


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def measure(name: str, turns: int, rounds: int, folder: Path) -> dict[str, Any]:
    rng = random.Random(1)
    messages = [
        {"role": "assistant" if n % 2 else "user", "content": " ".join(rng.choices(WORDS, k=rng.randint(3, 20)))}
        for n in range(2 * turns)
    ]
    learn = [m["content"] for m in messages]
    tokenizer = load_tokenizer(write_tokenizer(folder / name.replace(" ", "-"), PLAIN[name], eos="</s>", learn=learn))
    slow, ours, tokens = [], [], []
    text = one_by_one.render(tokenizer, messages)
    for n in range(rounds):
        arms = [
            (slow, lambda: one_by_one.encode(tokenizer, messages)),
            (ours, lambda: encode_chat(tokenizer, chat_of(messages, None, tokenizer))),
            (tokens, lambda: tokenizer.with_offsets(text)),
        ]
        found = {}
        for times, work in arms if n % 2 else arms[::-1]:
            took, found[id(times)] = seconds(work)
            times.append(took * 1e3)
        assert found[id(slow)] == (found[id(ours)].ids, found[id(ours)].targets), f"{name}: the masks differ"
    theirs, mine, both = median(slow), median(ours), median(tokens)
    figures = {
        "one_by_one_ms": theirs,
        "ours_ms": mine,
        "tokens_ms": both,
        "ratio": theirs / mine,
        "ratio_of_masks": (theirs - both) / (mine - both),
    }
    return {"template": name, "tokens": len(found[id(slow)][0])} | {k: round(v, 1) for k, v in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=100, help="turns of the assistant")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chat-encoding-") as folder:
        found = [measure(name, arguments.turns, arguments.rounds, Path(folder)) for name in PLAIN]
    least = {f"least_{name}": min(one[name] for one in found) for name in ("ratio", "ratio_of_masks")}
    print(json.dumps({"benchmark": "chat_encoding", "turns": arguments.turns, **least, "templates": found}))


if __name__ == "__main__":
    main()
