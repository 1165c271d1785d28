"""Chat templates in the styles of well-known model families, tokenizers that know their tokens, and random chats for them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<s>",
    "</s>",
    "<|begin|>",
    "<|header|>",
    "<|/header|>",
    "<|eot|>",
    "<turn>",
    "</turn>",
]

_TURN = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

CHATML = "{% for m in messages %}" + _TURN + "{% endfor %}" + _PROMPT
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a patient clerk.<|im_end|>\n{% endif %}"
    + CHATML
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|header|>{{ m['role'] }}<|/header|>\n\n{{ m['content'] | trim }}<|eot|>{%"
    " endfor %}{% if add_generation_prompt %}<|header|>assistant<|/header|>\n\n{% endif %}"
)
LINES = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = '<<' + messages[0]['content'] + '>>\n' %}{%"
    " set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}{% for m in rest"
    " %}{% if m['role'] == 'user' %}[INST] {% if loop.first %}{{ system }}{% endif %}{{ m['content'] }} [/INST]{% else"
    " %} {{ m['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
ALTERNATING = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{"
    " raise_exception('roles must alternate') }}{% endif %}<turn>{{ 'model' if m['role'] == 'assistant' else m['role']"
    " }}\n{{ m['content'] | trim }}</turn>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n{% else %}"
    + _TURN
    + "{% endif %}{% endfor %}"
    + _PROMPT
)
TOOLS = (  # a list of tools in the system turn, calls as objects, answers of tools gathered in a turn of the user
    "{% if tools %}<|im_start|>system\nTools:{% for t in tools %}{{ '\n' + t | tojson }}{% endfor %}<|im_end|>\n{%"
    " endif %}{% for m in messages %}{% if m['role'] == 'tool' %}{% if loop.first or messages[loop.index0 - 1]['role']"
    " != 'tool' %}<|im_start|>user{% endif %}\n<result>\n{{ m['content'] }}\n</result>{% if loop.last or"
    " messages[loop.index0 + 1]['role'] != 'tool' %}<|im_end|>\n{% endif %}{% elif m.tool_calls"
    " %}<|im_start|>assistant\n{% if m.content %}{{ m.content }}\n{% endif %}{% for c in m.tool_calls %}{% set f ="
    ' c.function or c %}<call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n</call>{% if'
    " not loop.last %}\n{% endif %}{% endfor %}<|im_end|>\n{% else %}" + _TURN + "{% endif %}{% endfor %}" + _PROMPT
)
TEXT_CALLS = (  # as some templates do: only beside a content that is none, and the arguments put in as the text that they are
    "{% for m in messages %}{% if m['role'] == 'assistant' and m['content'] is none %}<|im_start|>assistant\n{% for c"
    " in m['tool_calls'] %}<call>{{ c['function']['name'] }}\n{{ c['function']['arguments'] + '</call>' }}{% endfor"
    " %}<|im_end|>\n{% else %}" + _TURN + "{% endif %}{% endfor %}" + _PROMPT
)
THINKING = (  # what a turn thought is shown behind the last question only, and the last turn of all has a block for it in any case
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m['role'] == 'user' %}{% set ns.last = loop.index0"
    " %}{% endif %}{% endfor %}{% for m in messages %}{% if m['role'] == 'assistant' %}{% set thought = '' %}{% set"
    " said = m.content or '' %}{% if m.reasoning_content %}{% set thought = m.reasoning_content %}{% elif '</think>' in"
    " said %}{% set thought = said.split('</think>')[0].split('<think>')[-1] %}{% set said ="
    " said.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>assistant\n{% if loop.index0 > ns.last and"
    " (loop.last or thought) %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n{% endif %}{{ said }}{% for c in"
    " m.tool_calls or [] %}{{ '\n' }}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor"
    " %}<|im_end|>\n{% else %}" + _TURN + "{% endif %}{% endfor %}" + _PROMPT
)
NUMBERED = "{% for m in messages %}{{ loop.index }}. {{ m['role'] }}: {{ m['content'] }}</s>\n{% endfor %}"
COUNTING = (  # a number in the assistant's own header only
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|header|>answer {{ loop.index }}<|/header|>{{"
    " m['content'] }}<|eot|>{% else %}<|header|>{{ m['role'] }}<|/header|>{{ m['content'] }}<|eot|>{% endif %}{% endfor"
    " %}{% if add_generation_prompt %}<|header|>answer {{ messages | length + 1 }}<|/header|>{% endif %}"
)
ROUNDS = (  # a number to each question and its answer, none for the first system text
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% if m['role'] == 'user' %}{% set ns.n = ns.n + 1 %}[Round {{"
    " ns.n }}]\n\nAsked: {{ m['content'] }}\n\n{% elif m['role'] == 'assistant' %}Answer {{ ns.n }}: {{ m['content']"
    " }}{{ eos_token }}\n{% else %}{{ m['content'] }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}Answer {{"
    " ns.n }}: {% endif %}"
)
IDS = (  # the id of the call beside what the tool gave, as JSON, and ids of messages where they have any
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'tool' %}<|header|>{{ m.name or 'tool'"
    ' }}<|/header|>{"content": {{ m[\'content\'] | tojson }}, "call_id": "{{ m.tool_call_id }}"}<|eot|>{% elif'
    " m.tool_calls %}<|header|>assistant<|/header|>{{ m.content or '' }}{% for c in m.tool_calls %}<call>{{"
    " c.function.name }} {{ c.function.arguments | tojson }} {{ c.id }}{% endfor %}<|eot|>{% else %}<|header|>{{"
    " m['role'] }}{{ ' ' + m.id if m.id }}<|/header|>{{ m['content'] }}<|eot|>{% endif %}{% endfor %}{% if"
    " add_generation_prompt %}<|header|>assistant<|/header|>{% endif %}"
)
RUNNING_ON = "{% for m in messages %}{{ loop.index }}{{ m['content'] }}{% endfor %}"
SHOUTING = (  # it alters what others wrote
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    + _TURN
    + "{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | upper }}<|im_end|>\n{% endif %}{% endfor %}"
    + _PROMPT
)
DATED = "<|im_start|>system\nToday is {{ strftime_now('%d %B %Y, %H:%M:%S') }}.<|im_end|>\n" + CHATML

PLAIN = {
    "chatml": CHATML,
    "default system": DEFAULT_SYSTEM,
    "headers": HEADERS,
    "lines": LINES,
    "brackets": BRACKETS,
    "alternating": ALTERNATING,
    "marked": MARKED,
    "tools": TOOLS,
    "thinking": THINKING,
    "numbered": NUMBERED,
    "counting": COUNTING,
    "rounds": ROUNDS,
    "ids": IDS,
}
"""Templates that take any chat of `chat` below; `brackets` and `alternating` want users and assistants in turns."""
STRICT = ("brackets", "alternating")
CALLING = ("tools", "thinking", "ids")


def write_tokenizer(
    folder: Path, template: str | None, *, eos: str = "<|im_end|>", bos: str = "<s>", learn: list[str] | None = None
) -> Path:
    """A byte-level tokenizer with this template; no model. One token a byte, but for what merges of the texts in `learn` give."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    vocabulary = {token: i for i, token in enumerate(SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if learn:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        backend.train_from_iterator(
            learn, trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
        )
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "bos_token": bos}
    settings |= {"chat_template": template} if template else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


_WORDS = [
    "yes",
    "no",
    "maybe",
    " spaced ",
    "two\nlines",
    "assistant",
    'it\'s "quoted"',
    "ümläut 漢字",
    "a",
    "<|user|>",
    "[/INST]",
    "done\n",
    "12",
    "3",
    "2.",
]


def chat(rng: random.Random, turns: int, *, strict: bool = False, calls: bool = False) -> list[dict[str, Any]]:
    """A chat of so many turns of the assistant, which now and then answers twice, or calls tools."""
    messages: list[dict[str, Any]] = (
        [{"role": "system", "content": text(rng)}] if not strict and rng.random() < 0.4 else []
    )
    for _ in range(turns):
        if strict or rng.random() < 0.9 or not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "user", "content": text(rng)})
        while calls and rng.random() < 0.4:
            made = [_call(rng) for _ in range(rng.choice((1, 1, 2)))]
            messages.append({"role": "assistant", "content": rng.choice(("", text(rng))), "tool_calls": made})
            messages += [
                {"role": "tool", "content": json.dumps({"value": rng.random()}), "tool_call_id": one["id"]}
                for one in made
            ]
        messages.append({"role": "assistant", "content": text(rng)})
    return messages + ([{"role": "user", "content": text(rng)}] if rng.random() < 0.2 else [])


def text(rng: random.Random) -> str:
    """A few words that are not blank, with white space and signs where templates stumble."""
    return " ".join(rng.choices(_WORDS, k=rng.randint(1, 4)))


def _call(rng: random.Random) -> dict[str, Any]:
    arguments = {"place": text(rng), "days": rng.randint(1, 9)}
    name = f"call_{rng.randrange(10**6):x}"
    return {
        "id": name,
        "type": "function",
        "function": {"name": rng.choice(("weather", "search")), "arguments": arguments},
    }
