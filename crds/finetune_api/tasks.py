"""The tasks: one row each, with all that contract, command line, docs and trainer must agree on.

A new task of the contract is a new row: the spec's rules, the defaults, the reference and what the command line
proposes follow from it. What the trainer does for a task stands in finetune_trainer/tasks, one file a task, which
starts from its row here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from finetune_api.families import DECODER, ENCODER, VISION, Family, of_kinds
from finetune_api.metrics import LOSS
from finetune_api.text import camel_case


@dataclass(frozen=True, slots=True)
class Role:
    """What a column of the data is for; a field of spec.data.columns."""

    name: str
    usual: tuple[
        str, ...
    ] = ()  # columns of these names are taken for it where spec.data.columns says nothing, best first
    optional: bool = False  # rows do without it
    needs: str = ""  # the role without which it may not be named
    classes: bool = False  # names the row's classes: what is to be learned, and no part of what the model is given
    learned: bool = False  # holds the answer, if it is no class: a row that is to be answered may lack it
    files: bool = False  # names a file, or holds its bytes: a folder of such files is data, too
    several: bool = False  # any number of columns may play it; its field is a list


ROW, IMAGE, TOKEN, SPAN, WORDS, GAP = "row", "image", "token", "span", "words", "gap"
"""What carries an answer: a text as a whole, an image, each token, places in a text, words to come, hidden words."""


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What all parts agree on about a task."""

    name: str
    kind: str  # for people
    alternatives: tuple[tuple[Role, ...], ...]  # what a row may be made of, the first that the data has columns for
    beside: tuple[
        str, ...
    ]  # other columns that often say something; a warning names them where the model sees nothing of them
    labels: bool  # rows belong to classes
    new_head: bool  # the model gets an untrained head, which learns fastest
    metrics: tuple[str, ...]  # names in metrics.py
    default_metric: str
    learning_rate: float  # for tuning every weight; a method's row has a factor on it
    default_max_length: int  # tokens of a row, at most
    pipeline_tag: str  # the Hugging Face hub's name of the task
    example_model: str  # what `finetune init` proposes
    example_call: (
        str  # Python behind p, transformers' pipeline(pipeline_tag, model), for a first try; empty: it has none
    )
    kinds: tuple[str, ...] = (ENCODER, DECODER)  # of families (families.py) that fit
    unfit: tuple[str, ...] = ()  # model types among these that do not
    exclusive: bool = False  # a row belongs to exactly one class
    unit: str = "text"  # what two rows may have in common, for people
    windows: bool = False  # a row longer than maxLength is taken in windows, not cut
    smooths: bool = False  # its loss is a cross-entropy whose targets training may smooth
    settings: bool = False  # the spec has a field of its name (settings_field) for what only this task asks
    class_weights: bool = False  # its classes may be weighed, by spec.training.classWeights
    notes: tuple[str, ...] = ()  # what its users should know; each a line of docs/tasks.md
    answer: str = ROW  # what carries it: methods suit some of these

    @property
    def settings_field(self) -> str:
        """The spec's field for its settings, as manifests write it: the name in camelCase."""
        return camel_case(self.name)

    @property
    def attribute(self) -> str:
        """The same field in Python."""
        return self.name.replace("-", "_")

    @property
    def families(self) -> tuple[Family, ...]:
        """The families of models that it is known to fit."""
        return of_kinds(self.kinds, self.unfit)

    @property
    def reads_files(self) -> bool:
        """Whether its rows stand for files."""
        return any(role.files for role in self.roles)

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of all alternatives."""
        return tuple(role for alternative in self.alternatives for role in alternative)


_QUESTION = Role("question", usual=("question", "query"))
_PASSAGE = Role("context", usual=("context", "passage", "paragraph"))
_UNANSWERABLE = Role("unanswerable", usual=("is_impossible",), optional=True, needs="question", learned=True)
_TEXT = Role("text", usual=("text", "sentence", "body", "content", "document"))
_TEXTS = (_TEXT, Role("textPair", optional=True, needs="text"))
_BESIDE_TEXTS = (
    "sentence1",
    "sentence2",
    "question1",
    "question2",
    "premise",
    "hypothesis",
    "text_a",
    "text_b",
    "text_pair",
    "context",
    "question",
)

TASKS = {
    task.name: task
    for task in (
        TaskInfo(
            name="text-classification",
            kind="classification",
            alternatives=(
                (*_TEXTS, Role("label", usual=("label", "labels", "class", "category", "target"), classes=True)),
            ),
            beside=_BESIDE_TEXTS,
            labels=True,
            new_head=True,
            metrics=(LOSS, "accuracy", "macro-f1", "weighted-f1", "mcc", "auroc", "average-precision"),
            default_metric="macro-f1",
            learning_rate=5e-5,
            default_max_length=512,
            pipeline_tag="text-classification",
            example_model="hf://sentence-transformers/all-MiniLM-L6-v2",
            example_call="('You have won a prize')",
            exclusive=True,
            smooths=True,
            class_weights=True,
        ),
        TaskInfo(
            name="multi-label-classification",
            kind="rows of several classes",
            alternatives=(
                (*_TEXTS, Role("labels", usual=("labels", "tags", "categories", "topics", "genres"), classes=True)),
                (*_TEXTS, Role("labelColumns", classes=True, several=True)),
            ),
            beside=_BESIDE_TEXTS,
            labels=True,
            new_head=True,
            metrics=(LOSS, "micro-f1", "macro-f1", "sample-f1", "subset-accuracy", "mcc", "auroc", "average-precision"),
            default_metric="micro-f1",
            learning_rate=5e-5,
            default_max_length=512,
            pipeline_tag="text-classification",
            example_model="hf://sentence-transformers/all-MiniLM-L6-v2",
            example_call="('Great food, slow service', top_k=None)",
            class_weights=True,
            notes=(
                "The validation rows choose, for each class, the share from which it counts as the row's; classes of"
                " few rows lean to what is best for all together. What they count by class (`micro-f1`, `macro-f1`,"
                " `mcc`) is at the shares that the same evaluation chose, and so a little better than on new rows; what"
                " they count by row (`sample-f1`, `subset-accuracy`) is at 0.5. The test rows are judged at the shares"
                " that the validation rows chose, and their figures are honest. Without validation rows, or with more"
                " than 256 classes, the share is 0.5 everywhere.",
            ),
        ),
        TaskInfo(
            name="text-regression",
            kind="regression",
            alternatives=(
                (*_TEXTS, Role("score", usual=("score", "rating", "stars", "value", "similarity"), learned=True)),
            ),
            beside=_BESIDE_TEXTS,
            labels=False,
            new_head=True,
            metrics=(LOSS, "rmse", "mae", "pearson", "spearman"),
            default_metric="rmse",
            learning_rate=5e-5,
            default_max_length=512,
            pipeline_tag="text-classification",
            example_model="hf://sentence-transformers/all-MiniLM-L6-v2",
            example_call="('Great food, slow service')",
            notes=(
                "Numbers may be of any size: they are learned in units of their own spread, the model that is written"
                " answers in yours, and so do `rmse` and `mae`. `loss` is the mean square of the errors in units of the"
                " training rows' variance: at 1 the model knows no more than the mean. Heads without a bias (of"
                " decoders) cannot take the mean along; numbers that lie far from 0 beside their spread are learned"
                " better by an encoder.",
            ),
        ),
        TaskInfo(
            name="causal-lm",
            kind="language models",
            alternatives=(
                (
                    Role("messages", usual=("messages", "conversation", "conversations", "chat")),
                    Role("tools", usual=("tools",), optional=True, needs="messages"),
                ),
                (
                    Role("prompt", usual=("prompt", "instruction", "question", "input")),
                    Role("context", usual=("input", "context"), optional=True, needs="prompt"),
                    Role(
                        "completion", usual=("completion", "response", "answer", "output"), needs="prompt", learned=True
                    ),
                ),
            ),
            beside=(
                "system",
                "system_prompt",
                "history",
                "functions",
                "documents",
                "reasoning",
                "reasoning_content",
                "thinking",
                "thought",
                "chosen",
                "rejected",
            ),
            labels=False,
            new_head=False,
            metrics=(LOSS, "perplexity"),
            default_metric=LOSS,
            learning_rate=2e-5,
            default_max_length=2048,
            pipeline_tag="text-generation",
            example_model="hf://HuggingFaceTB/SmolLM2-135M-Instruct",
            example_call="([{'role': 'user', 'content': 'Hello'}])[0]['generated_text'][-1]",
            kinds=(DECODER,),
            smooths=True,
            answer=WORDS,
        ),
        TaskInfo(
            name="masked-lm",
            kind="domain adaptation",
            alternatives=((_TEXT,),),
            beside=("title", "description", "summary", "abstract"),
            labels=False,
            new_head=False,
            metrics=(LOSS, "perplexity", "accuracy"),
            default_metric=LOSS,
            learning_rate=5e-5,
            default_max_length=512,
            pipeline_tag="fill-mask",
            example_model="hf://google-bert/bert-base-uncased",
            example_call="(f'Please {p.tokenizer.mask_token} this.')",
            kinds=(ENCODER,),
            settings=True,
            windows=True,
            notes=("A `.txt` file will do, plain or compressed: each line that holds something is a row.",),
            answer=GAP,
        ),
        TaskInfo(
            name="question-answering",
            kind="answers found in a text",
            alternatives=(
                (_QUESTION, _PASSAGE, Role("answers", usual=("answers",), learned=True), _UNANSWERABLE),
                (
                    _QUESTION,
                    _PASSAGE,
                    Role("answer", usual=("answer", "answer_text"), learned=True),
                    Role(
                        "answerStart",
                        usual=("answer_start", "answerStart"),
                        optional=True,
                        needs="answer",
                        learned=True,
                    ),
                    _UNANSWERABLE,
                ),
            ),
            beside=("title", "plausible_answers", "choices", "options"),
            labels=False,
            new_head=True,
            metrics=(LOSS, "answer-f1", "exact-match"),
            default_metric="answer-f1",
            learning_rate=5e-5,
            default_max_length=384,
            pipeline_tag="question-answering",
            example_model="hf://distilbert/distilbert-base-cased",
            example_call="",
            unfit=("llama", "qwen2", "qwen3", "gemma3_text"),  # their classes for it do not find a base's weights
            windows=True,
            settings=True,
            answer=SPAN,
        ),
        TaskInfo(
            name="image-classification",
            kind="images",
            alternatives=(
                (
                    Role("image", usual=("image", "img", "file_name", "path", "image_path", "filename"), files=True),
                    Role("label", usual=("label", "labels", "class", "category", "target"), classes=True),
                ),
            ),
            beside=("text", "caption", "mask", "bbox", "objects", "keypoints"),
            labels=True,
            new_head=True,
            metrics=(LOSS, "accuracy", "top-5-accuracy", "macro-f1"),
            default_metric="macro-f1",
            learning_rate=5e-5,
            default_max_length=1_048_576,
            pipeline_tag="image-classification",
            example_model="hf://google/vit-base-patch16-224-in21k",
            example_call="('image.jpg')",
            kinds=(VISION,),
            exclusive=True,
            unit="image",
            smooths=True,
            settings=True,
            answer=IMAGE,
            notes=(
                "The column of images holds paths, relative to the file that names them or in full; in parquet the"
                " images' bytes; or, in any format, base64: bare, or as `data:image/png;base64,…`.",
            ),
        ),
        TaskInfo(
            name="token-classification",
            kind="entities and tags of words",
            alternatives=(
                (
                    Role("tokens", usual=("tokens", "words")),
                    Role(
                        "tags",
                        usual=("tags", "ner_tags", "ner", "labels", "pos_tags", "upos"),
                        needs="tokens",
                        classes=True,
                    ),
                ),
                (
                    _TEXT,
                    Role("spans", usual=("spans", "entities", "ents", "label", "labels"), needs="text", classes=True),
                ),
            ),
            beside=("chunk_tags", "xpos", "lemmas"),
            labels=True,
            new_head=True,
            metrics=(LOSS, "f1", "precision", "recall", "macro-f1", "accuracy"),
            default_metric="f1",
            learning_rate=5e-5,
            default_max_length=512,
            pipeline_tag="token-classification",
            example_model="hf://distilbert/distilbert-base-cased",
            example_call="('Jane Doe lives in Berlin')",
            smooths=True,
            unfit=("gemma3_text",),
            windows=True,
            notes=(
                "A word is told by its first sub-word. An encoder sees all of the text there; a decoder (Llama, Qwen2"
                " and the like) sees only what is left of it, not even the rest of the word, so its scores are lower as"
                " a rule: choose an encoder where you can.",
            ),
            answer=TOKEN,
        ),
    )
}
"""Learning rates in common use: 2e-5 to 5e-5 for every weight (Devlin et al. 2018)."""


def usual_names(role: str) -> tuple[str, ...]:
    """The names that a role's column usually has."""
    return next(own.usual for task in TASKS.values() for own in task.roles if own.name == role)


def task_reading(roles: Collection[str]) -> TaskInfo:
    """The first task whose rows may be made of columns for these roles."""
    return next(
        task
        for task in TASKS.values()
        for alternative in task.alternatives
        if {role.name for role in alternative if not role.optional} <= set(roles) <= {role.name for role in alternative}
    )
