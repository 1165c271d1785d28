"""Encode a chat: the ids of the whole of it as at inference, and labels on what the assistant writes, its ends of turn
included.
"""

from __future__ import annotations

from bisect import bisect_left
from operator import itemgetter
from typing import NamedTuple

from finetune_trainer.batches.example import IGNORE
from finetune_trainer.model.template import RefusedChat
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.base import NothingToLearn
from finetune_trainer.tasks.chats.messages import Chat
from finetune_trainer.tasks.chats.one_turn import Span
from finetune_trainer.tasks.chats.turns import assistant_turns


class EncodedChat(NamedTuple):
    """Token ids, a label or IGNORE for each, and how many of the assistant's turns the template does not show whole."""

    ids: list[int]
    targets: list[int]
    hidden: int


def encode_chat(tokenizer: Tokenizer, chat: Chat) -> EncodedChat:
    """Ids and labels of the rendered chat. Turns that are shown whole are learned, the others are counted.

    Special tokens come from the template alone, as at inference, so a BOS is never doubled. Raises NothingToLearn when
    the template refuses the chat, or shows none of its turns whole.
    """
    try:
        text = chat.render(tokenizer)
    except RefusedChat as error:
        raise NothingToLearn(str(error)) from None
    turns = assistant_turns(tokenizer, chat, text)
    spans = [span for span in turns if span is not None]
    if not spans:
        raise NothingToLearn(
            f"the chat template shows none of the assistant's {len(turns)} turns whole (reasoning or tool calls are"
            " left out, or it is written otherwise); use a template that shows every turn, or write the chat as the"
            " template does"
        )
    ids, targets, ended = _labelled(tokenizer, text, spans)
    last = turns[-1] is not None and chat.messages[-1]["role"] == "assistant"
    if last and ended and ids[-1] not in tokenizer.special_ids and tokenizer.eos_id is not None:
        ids, targets = [*ids, tokenizer.eos_id], [*targets, tokenizer.eos_id]
    return EncodedChat(ids, targets, len(turns) - len(spans))


def _labelled(tokenizer: Tokenizer, text: str, spans: list[Span]) -> tuple[list[int], list[int], bool]:
    """Ids, labels, and whether the last token is learned."""
    ids, offsets = tokenizer.with_offsets(text)
    start = itemgetter(0)
    targets = [IGNORE] * len(ids)
    for begin, end in spans:
        first, last = bisect_left(offsets, begin, key=start), bisect_left(offsets, end, key=start)
        last = _end_of_turn(first, last, ids, tokenizer)
        # a token of no text is nobody's words
        targets[first:last] = [ids[k] if a < b else IGNORE for k, (a, b) in enumerate(offsets[first:last], first)]
    return ids, targets, bool(targets) and targets[-1] != IGNORE


def _end_of_turn(first: int, last: int, ids: list[int], tokenizer: Tokenizer) -> int:
    """Leave out blank tokens after the last special token of the turn: generation stops there, nobody writes them."""
    special = next((k for k in range(last - 1, first - 1, -1) if ids[k] in tokenizer.special_ids), None)
    if special is not None and not tokenizer.decode(ids[special + 1 : last]).strip():
        return special + 1
    return last
