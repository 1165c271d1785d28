"""docs/tasks.md: what each task takes and gives, and which models and methods fit it.

Made from the contract's tables, so that it can never say anything else than the trainer's tests hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finetune_api.families import FAMILIES, VISION
from finetune_api.method import METHODS, methods_for
from finetune_api.tasks import TASKS, Role, TaskInfo
from finetune_api.text import listed

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

_INTRO = """\
<!-- Generated from crds/finetune_api by `make crds`; do not edit. -->
# Tasks

What a model can be tuned to do (`spec.task`), what its rows look like, and which models fit. A column of one of the
usual names is found by itself; any other is named in `spec.data.columns`, by its role. Fields, defaults and bounds
stand in the [reference](reference.md).

"""
_MATRIX = """\
## Models, tasks and methods

Each cell is held by a test: a tiny model of the family is tuned by the method until the loss falls, written, loaded
again by plain transformers (and peft), answers as before, and goes on from a kill with the same weights, bit for bit.
`make matrix` does it for all {count} of them, `make test` for {few} or so in which every task, family and method
occurs. A model that transformers has no class for is refused in the prepare step, by naming the families that fit.
Other families may fit, too.

MiniLM and its kin are BERTs, SmolLM2 is a Llama, DeBERTa-v2 and v3 are one family.

"""


def tasks_page() -> str:
    """The page, in Markdown."""
    return "".join((_INTRO, *map(_task, TASKS.values()), _matrix()))


def _task(task: TaskInfo) -> str:
    return "".join(_lines(task))


def _lines(task: TaskInfo) -> Iterator[str]:
    yield f"## {task.name}\n\n"
    if found := _examples(task):
        yield f"For {task.kind}. {'Example' if len(found) == 1 else 'Examples'}: {', '.join(found)}.\n\n"
    else:
        yield f"For {task.kind}.\n\n"
    for number, roles in enumerate(task.alternatives):
        yield "Rows have" if not number else "Or they have"
        yield "\n\n| role | usual names | |\n|---|---|---|\n"
        yield "".join(map(_role, roles)) + "\n"
    metrics = (f"`{m}`{' (chooses the best checkpoint)' if m == task.default_metric else ''}" for m in task.metrics)
    yield f"- Metrics: {', '.join(metrics)}\n"
    if task.settings:
        yield f"- Settings of its own: `spec.{task.settings_field}` ([reference](reference.md))\n"
    some = "".join(
        f"; `{m.name}` with {listed([family.name for family in m.families(task)])}"
        for m in METHODS.values()
        if m.fits(task) and m.name not in methods_for(task)
    )
    yield f"- Methods: {', '.join(f'`{name}`' for name in methods_for(task))}{some}\n"
    if VISION not in task.kinds:
        yield f"- Tokens of a row, unless `maxLength` says otherwise: {task.default_max_length:,} at most\n"
    yield f"- Families: {', '.join(family.name for family in task.families)}\n"
    yield f"- In transformers' words: `{task.pipeline_tag}`\n"
    yield "".join(f"- {note}\n" for note in task.notes) + "\n"


def _role(role: Role) -> str:
    said = [f"with {role.needs}"] if role.needs else []
    said += ["optional"] if role.optional else []
    said += ["what is to be learned"] if role.classes or role.learned else []
    said += ["any number of columns"] if role.several else []
    return f"| `{role.name}` | {', '.join(f'`{name}`' for name in role.usual)} | {', '.join(said)} |\n"


def _examples(task: TaskInfo) -> list[str]:
    """Links to the manifests that are of this task."""
    named = [path for path in sorted(EXAMPLES.glob("*.yaml")) if f"task: {task.name}\n" in path.read_text()]
    return [f"[{path.name}](../examples/{path.name})" for path in named]


def _matrix() -> str:
    slight = [method.name for method in METHODS.values() if method.slight]
    held = (method.families(task) for task in TASKS.values() for method in METHODS.values() if not method.slight)
    count = sum(map(len, held))
    head = f"| | {' | '.join(TASKS)} |\n|---|{'---|' * len(TASKS)}\n"
    rows = (
        f"| {family.name} ([{family.example.rpartition('/')[2]}](https://huggingface.co/{family.example})) |"
        f" {' | '.join('●' if family in task.families else '' for task in TASKS.values())} |\n"
        for family in FAMILIES.values()
    )
    below = (
        f"● by the methods that the task's section names. Of {listed([f'`{name}`' for name in slight])}, which train"
        " too little to teach a tiny random\nmodel much, one family of each kind is tuned a task, and the others are"
        " built."
    )
    return f"{_MATRIX.format(count=count, few=len(FAMILIES))}{head}{''.join(rows)}\n{below}\n"
