"""What a model's chat template leaves out of chats: turns of the assistant, and the tools that it may call."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_trainer.model.template import RefusedChat
from finetune_trainer.model.tokenizer import Tokenizer
from finetune_trainer.tasks.base import Omission, Row
from finetune_trainer.tasks.chats.messages import Chat, chat_of


def omissions(
    rows: Mapping[int, Row], hidden: Mapping[int, int], columns: Mapping[str, str], tokenizer: Tokenizer
) -> list[Omission]:
    """Rows of which turns are hidden, and rows whose tools are not shown."""
    found = []
    if hidden:
        message = (
            "In {share:.1%} of the {split} rows looked at the chat template does not show all that the assistant wrote"
            f" (reasoning of earlier turns, say): {sum(hidden.values())} turns are not learned, the others are."
        )
        found.append(Omission("HiddenTurns", sorted(hidden), message))
    if "tools" in columns:
        unseen = [n for n, row in rows.items() if _tools_hidden(row, columns, tokenizer)]
        if unseen:
            column = repr(columns["tools"]).replace("{", "{{").replace("}", "}}")
            message = (
                f"The model's chat template shows nothing of the tools in column {column}: calls are learned without"
                " it."
            )
            found.append(Omission("HiddenTools", unseen, message))
    return found


def _tools_hidden(row: Row, columns: Mapping[str, str], tokenizer: Tokenizer) -> bool:
    chat = chat_of(row[columns["messages"]], row.get(columns["tools"]), tokenizer)
    try:
        return bool(chat.tools) and chat.render(tokenizer) == Chat(chat.messages).render(tokenizer)
    except RefusedChat:
        return False
