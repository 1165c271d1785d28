"""The methods: one row each, with all that contract, command line, docs and trainer must agree on.

A new method of the contract is a new row, and a field of tuning.Method for its settings if it has any. What the trainer
does for a method stands in finetune_trainer/methods, one file a method.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.families import Family
from finetune_api.tasks import IMAGE, ROW, TOKEN, WORDS, TaskInfo
from finetune_api.text import camel_case

DEFAULT_EPOCHS = 3.0


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """What all parts agree on about a method."""

    name: str
    trains: str  # for people
    rate_factor: float  # on the task's learning rate
    rate_factor_new_head: float  # the same, for a task whose model gets an untrained head
    by_width: bool = False  # wide models take a lower rate
    slower: tuple[str, str, float] | None = None  # (setting, a value of it, the factor on the rate that it takes)
    settings: bool = False  # spec.method has a field of its name (settings_field)
    merges: bool = False  # its result can be merged into the model that it started from
    recomputes: bool = True  # goes with spec.training.gradientCheckpointing
    slight: bool = False  # bends a trained model, and trains too little to teach a random one much
    pools: bool = False  # its result has a head of our own on one vector a row, which no pipeline loads
    suits: tuple[str, ...] = ()  # what may carry a task's answer (tasks.py); empty: anything
    reason: str = ""  # why only those, for people
    group: int = 1  # rows that are compared with each other, for tasks whose rows are of exactly one class; 1: none are
    epochs: float = DEFAULT_EPOCHS  # where the spec leaves them open
    unfit: tuple[tuple[str, str], ...] = ()  # (what carries the answer, model type): families that it does not fit

    @property
    def settings_field(self) -> str:
        """The field for its settings, as manifests write it: the name in camelCase."""
        return camel_case(self.name)

    @property
    def attribute(self) -> str:
        """The same field in Python."""
        return self.name.replace("-", "_")

    @property
    def universal(self) -> bool:
        """Whether it fits every task and family of the tables."""
        return not self.suits and not self.unfit

    def fits(self, task: TaskInfo) -> bool:
        """Whether it makes sense for the task."""
        return (not self.suits or task.answer in self.suits) and (task.exclusive or self.group == 1)

    def takes(self, task: TaskInfo, model_type: str) -> bool:
        """Whether it is known to fit models of the type with the task."""
        return self.fits(task) and (task.answer, model_type) not in self.unfit

    def families(self, task: TaskInfo) -> tuple[Family, ...]:
        """Those of the task's families that it fits."""
        return tuple(family for family in task.families if self.takes(task, family.model_type))


_PREFIXED_NOWHERE = tuple(
    (answer, family)
    for answer in (ROW, TOKEN)
    for family in ("distilbert", "albert", "modernbert", "deberta-v2", "mpnet")
)
"""Their layers take no keys and values from outside. Those of RoBERTa, XLM-R and ELECTRA do, and their classifiers of
texts have heads that peft cannot call behind a prefix."""

METHODS = {
    method.name: method
    for method in (
        MethodInfo("full", "every weight", 1.0, 1.0, by_width=True),
        MethodInfo("freeze", "the head and the last layers", 2.5, 20.0, settings=True),
        MethodInfo(
            "features",
            "a new head on what the model makes of each row, the model as it was",
            200.0,
            200.0,
            slower=("head", "mlp", 0.3),
            settings=True,
            pools=True,
            suits=(ROW, IMAGE),
            reason="its head reads one vector a row",
        ),
        MethodInfo(
            "setfit",
            "every weight from few rows, by comparing them, and a head fitted to what the model makes of each",
            1.0,
            1.0,
            by_width=True,
            settings=True,
            pools=True,
            suits=(ROW,),
            reason="it compares texts that are of exactly one class each",
            group=4,
            epochs=10.0,
        ),
        MethodInfo("lora", "low-rank adapters", 10.0, 10.0, settings=True, merges=True),
        MethodInfo(
            "ia3",
            "learned scales of keys, values and inner features",
            60.0,
            60.0,
            settings=True,
            slight=True,
            merges=True,
            unfit=((IMAGE, "convnext"), (IMAGE, "resnet")),  # they have no keys and values
        ),
        MethodInfo(
            "prompt-tuning",
            "embeddings of virtual tokens before each row",
            500.0,
            100.0,
            settings=True,
            slight=True,
            suits=(ROW, WORDS),
            reason="peft knows what to make of virtual tokens for such models",
        ),
        MethodInfo(
            "prefix-tuning",
            "keys and values of virtual tokens before each row, in every layer",
            250.0,
            100.0,
            settings=True,
            slight=True,
            recomputes=False,
            suits=(ROW, TOKEN, WORDS),
            reason="peft knows what to make of virtual tokens for such models",
            unfit=(*_PREFIXED_NOWHERE, (ROW, "roberta"), (ROW, "electra"), (ROW, "xlm-roberta")),
        ),
    )
}
"""Adapters take about ten times the rate of tuning every weight (Hu et al. 2021), whatever the model's width
(Biderman et al. 2024).

What is fewer and starts anew takes higher rates still: 3e-3 for scales (Liu et al. 2022, arXiv 2205.05638), 5e-3 for
virtual tokens of classifiers (Liu et al. 2022, arXiv 2110.07602) and of language models in each layer, 1e-2 for those
of language models before the first (Lester et al. 2021 took 0.3 with Adafactor, which is slower at the same rate).

A head on frozen vectors: 1e-2, and 3e-3 with a hidden layer, measured with MiniLM on mails, sentences, 51 sections and
ratings (500 to 1,000 rows): at 10 epochs within 0.03 of the best macro-F1 of seven rates, where 1e-3 loses up to 0.2.
"""

DEFAULT_METHOD = "full"


def methods_for(task: TaskInfo, model_type: str | None = None) -> list[str]:
    """Names of the methods that fit the task: with models of the type, or else with every family."""
    return [
        method.name
        for method in METHODS.values()
        if (method.takes(task, model_type) if model_type else method.families(task) == task.families)
    ]
