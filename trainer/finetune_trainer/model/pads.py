"""The one pad id: what rows are filled up with, and what a decoder's classifier tells padding from text by.

A decoder classifies by a row's last token that is no padding. If the id that rows are padded with is another one than
the config names, it classifies by a pad token, and a row's answer hangs on how long its neighbours are. The tokenizer's
own pad token decides, as whoever uses the model will pad with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from finetune_trainer.model.head import HeadPolicy


def pad_id(own: int | None, config: Mapping[str, Any], eos: int | None) -> int:
    """The tokenizer's `own` pad token, else the config's, else the end of text: the first that the model has an
    embedding of.
    """
    text = config.get("text_config") or {}
    size = config.get("vocab_size") or text.get("vocab_size")
    known = (own, config.get("pad_token_id"), text.get("pad_token_id"), eos)
    return next((i for i in known if isinstance(i, int) and i >= 0 and (not size or i < size)), 0)


def before_building(cls: Any, config: Any, head: HeadPolicy, pad: int) -> None:
    """A pad id that is none makes no embedding that never learns (-1 is the last one); encoders number positions by it,
    so they need one.
    """
    size = getattr(config, "vocab_size", None)
    if size is None and config.get_text_config() is config:
        return  # its rows are not made of tokens
    own = getattr(config, "pad_token_id", None)
    if own is None or own < 0 or (size and own >= size):
        config.pad_token_id = None if head.writes or pools_by_pad(cls, head) else pad


def after_building(model: Any, head: HeadPolicy, pad: int) -> None:
    """Where the classifier looks for it."""
    if pools_by_pad(type(model), head):
        model.config.pad_token_id = pad
        model.config.get_text_config().pad_token_id = pad


def pools_by_pad(cls: Any, head: HeadPolicy) -> bool:
    """Whether a classifier finds a row's last token by the pad id: its forward asks the config for it."""
    return not head.writes and "pad_token_id" in inspect.unwrap(cls.forward).__code__.co_names
