"""Which classes a base's trained head knows already: by name, so that none is learned from another class's weights.

Names are compared without regard to case, and LABEL_3, which transformers writes where nobody named the classes, is
class 3.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.status import Finding
from finetune_trainer.model.head import HeadPolicy


def head_labels(config: Mapping[str, Any], head: HeadPolicy) -> tuple[str, ...]:
    """The classes of a base that was saved with this head, in the order of its outputs; empty for any other."""
    named = config.get("id2label") or {i: f"LABEL_{i}" for i in range(2)}  # transformers' own, which it does not write
    if not head.belongs_to(config.get("architectures") or ()) or not isinstance(named, Mapping):
        return ()
    try:
        by_id = {int(i): str(name) for i, name in named.items()}
    except (TypeError, ValueError):
        return ()
    return tuple(by_id[i] for i in range(len(by_id))) if by_id.keys() == set(range(len(by_id))) else ()


def matches(labels: Sequence[str], known: Sequence[str]) -> dict[int, int]:
    """Index in `labels` -> index in `known`, for names that are in both; names that are one in two ways match none."""
    ours, theirs = [_plain(name) for name in labels], [_plain(name) for name in known]
    return {i: theirs.index(name) for i, name in enumerate(ours) if theirs.count(name) == 1 and ours.count(name) == 1}


def in_their_order(labels: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The labels with those of the head first, in its order."""
    found = matches(labels, known)
    return tuple(labels[i] for i in sorted(range(len(labels)), key=lambda i: (found.get(i, len(known)), i)))


def knows_task(config: Mapping[str, Any], head: HeadPolicy, labels: Sequence[str] | None) -> bool:
    """Whether the base's own head answers as the task asks: the same head, and of classes, all of these."""
    if not head.is_new:
        return True
    if not head.belongs_to(config.get("architectures") or ()):
        return False
    return labels is None or len(matches(labels, head_labels(config, head))) == len(labels)


def head_findings(labels: Sequence[str], known: Sequence[str]) -> list[Finding]:
    """What becomes of the head of a base that was a classifier."""
    if not known:
        return []
    found = matches(labels, known)
    new = [name for i, name in enumerate(labels) if i not in found]
    gone = [name for j, name in enumerate(known) if j not in found.values()]
    if not found:
        message = f"The model was trained for other classes ({_some(gone)}): its head is learned anew."
    elif new or gone:
        message = f"The head goes on from what it knows of {len(found)} classes."
        message += f" New to it: {_some(new)}." if new else ""
        message += f" No longer told apart: {_some(gone)}." if gone else ""
    else:
        message = f"The model's head knows these {len(labels)} classes: it goes on from its weights, by name."
    return [Finding(kind="TrainedHead", count=len(found), message=message[:384])]


def _plain(name: str) -> str:
    name = unicodedata.normalize("NFC", name).casefold().strip()
    numbered = re.fullmatch(r"label_(\d+)", name)
    return numbered[1] if numbered else name


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:4]) + (", …" if len(names) > 4 else "")
