"""Exact match and F1 of an answer, as the official script of SQuAD 2.0 has them (Rajpurkar et al. 2018)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normal(answer: str) -> str:
    """Lower case, without ASCII punctuation and English articles, words parted by one space."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def scores(given: str, right: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1) of an answer, by the one of the right ones that suits it best.

    An empty answer says that there is none; so do right ones of which nothing is left once they are normal.
    """
    golds = [found for found in map(normal, right) if found] or [""]
    found = normal(given)
    return float(found in golds), max(_f1(found.split(), gold.split()) for gold in golds)


def _f1(given: Sequence[str], right: Sequence[str]) -> float:
    if not given or not right:
        return float(given == right)
    common = sum((Counter(given) & Counter(right)).values())
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(right)
    return 2 * precision * recall / (precision + recall)
