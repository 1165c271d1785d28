"""Image classification: an image belongs to one of the classes.

Rows hold an image's bytes by the time they are encoded, wherever the bytes lie. While the model learns, images are
varied by chance that hangs on seed, epoch and row alone; they are judged as the model's image processor prepares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from finetune_api.forms import one_form
from finetune_api.images import ImageClassification
from finetune_api.sources import Columns
from finetune_api.tasks import TASKS
from finetune_trainer.batches.example import IGNORE
from finetune_trainer.batches.image_example import ImageExample
from finetune_trainer.model.head import HeadPolicy
from finetune_trainer.model.image_processor import IMAGE_PROCESSOR, ImageProcessor
from finetune_trainer.stream.files import held_bytes
from finetune_trainer.tasks.answers import another_class, logits, most_likely, softmax
from finetune_trainer.tasks.base import Decision, Draw, JobFacts, Mistake, Mistakes, Picture, Row, Sampling, Task
from finetune_trainer.tasks.columns import missing, pick
from finetune_trainer.tasks.constants import most_frequent
from finetune_trainer.tasks.images.augment import light
from finetune_trainer.tasks.images.decode import BadImage, check, rgb
from finetune_trainer.tasks.images.pictures import chosen, thumbnail
from finetune_trainer.tasks.text_classification import label_text

if TYPE_CHECKING:  # they bring torch
    from finetune_trainer.evaluate.tally import Tally
    from finetune_trainer.evaluate.worst import Kept
    from finetune_trainer.objectives.base import Objective

INFO = TASKS["image-classification"]
USUAL = {role.name: role.usual for role in INFO.roles}


def columns(found: Sequence[str], wanted: Columns | None) -> dict[str, str]:
    """Roles image and label. Raises JobError naming the field."""
    w = wanted or Columns()
    image, label = pick("image", w.image, USUAL["image"], found), pick("label", w.label, USUAL["label"], found)
    if image is None:
        raise missing("image", "no column has a usual name for the image", found)
    if label is None:
        raise missing("label", "no column has a usual name for the class", found)
    return {"image": image, "label": label}


def classes(row: Row, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The row's class in NFC; none if it has none that can be used."""
    found = label_text(row.get(columns["label"]))
    return () if found is None else (one_form(found),)


def check_input(row: Row, columns: Mapping[str, str]) -> str | None:
    """What keeps the image from being opened, or None."""
    if row.get(columns["image"]) is None:
        return f"column {columns['image']!r} is missing or null; name an image, or leave the row out"
    return None


def check_row(row: Row, columns: Mapping[str, str]) -> str | None:
    """What is wrong with the row, or None; the file itself is looked at by `check_file`."""
    if problem := check_input(row, columns):
        return problem
    if any(name.strip() for name in classes(row, columns)):
        return None
    value = row.get(columns["label"])
    empty = value is None or (isinstance(value, str) and not value.strip())
    what = "is missing, null or empty" if empty else f"holds {type(value).__name__}, not a string, integer or boolean"
    return f"column {columns['label']!r} {what}; give the row one class"


def check_file(data: bytes) -> tuple[str | None, tuple[str, ...]]:
    """What is wrong with the image, or None; and what is changed to read it."""
    try:
        return None, check(data).oddities
    except BadImage as error:
        return str(error), ()


def encode(row: Row, facts: JobFacts, processor: ImageProcessor, max_length: int, draw: Draw) -> tuple[ImageExample]:
    """The image in the model's size, varied where it is learned from."""
    settings = facts.settings or ImageClassification()
    (name,) = classes(row, facts.columns)
    image = rgb(content(row[facts.columns["image"]]))
    if draw.epoch is None or not varies(facts):
        pixels = processor.prepared(image)
    else:
        flip = settings.flip is not False
        pixels = np.asarray(light(image, draw.generator(), processor.size, processor.resample, flip))
    return (_example(pixels, processor, facts.labels.index(name)),)


def varies(facts: JobFacts) -> bool:
    """Where training sees varied images."""
    return (facts.settings or ImageClassification()).augmentation != "none"


def content(value: Any) -> bytes:
    """The bytes of a row's image: held by the row, or of a file on this machine that it names (to be answered)."""
    held = held_bytes(value)
    if held is not None:
        return held
    path = unquote(urlsplit(value).path) if str(value).startswith("file://") else str(value)
    return Path(path).read_bytes()


def _example(pixels: np.ndarray, processor: ImageProcessor, label: int = IGNORE) -> ImageExample:
    return ImageExample(pixels, processor.pixel_values, processor.fixed_length, label)


def config_of_head(labels: Sequence[str]) -> dict[str, Any]:
    """The classes, in the order of the model's outputs."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def objective(facts: JobFacts) -> Objective:
    """Cross-entropy over the classes."""
    from finetune_trainer.objectives.cross_entropy import cross_entropy

    return cross_entropy(smoothing=facts.training.label_smoothing)


def tally(facts: JobFacts, decision: Decision) -> Tally:
    """The confusion matrix; of more than five classes also the likeliest five."""
    from finetune_trainer.evaluate.class_tally import ClassTally
    from finetune_trainer.evaluate.top_tally import TOP, TopTally

    return (TopTally if len(facts.labels) > TOP else ClassTally)(tuple(facts.labels))


def predict(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Decision, processor: ImageProcessor, max_length: int
) -> list[dict[str, Any]]:
    """{label, score, and scores of all classes where they are few}; scores add up to 1. Images are paths on this
    machine, or bytes.
    """
    examples = [_example(processor.prepared(_opened(row, facts)), processor) for row in rows]
    found = logits(model, examples, processor.pad_id, processor.fixed_length)
    return [answer(scores, facts, decision) for scores in found]


def answer(scores: np.ndarray, facts: JobFacts, decision: Decision) -> dict[str, Any]:
    """As `predict` has it. scores: [classes]."""
    return most_likely(softmax(scores), facts.labels)


def _opened(row: Row, facts: JobFacts) -> Any:
    """The row's image. Raises ValueError naming it."""
    value = row[facts.columns["image"]]
    try:
        return rgb(content(value))
    except (OSError, BadImage) as error:
        raise ValueError(f"the image {str(value)[:200]!r} cannot be read: {error}") from None


def _shares(model: Any, examples: Sequence[ImageExample], processor: ImageProcessor) -> list[np.ndarray]:
    """Of each class, for each image."""
    return [softmax(scores) for scores in logits(model, examples, processor.pad_id, processor.fixed_length)]


def pictures(
    model: Any, rows: Sequence[Row], facts: JobFacts, decision: Decision, processor: ImageProcessor
) -> list[Picture]:
    """Some of the rows with the classes that the model takes them for: mistakes first."""
    small, examples = [], []
    for row in rows:  # one image at a time is held whole
        image = _opened(row, facts)
        small.append(thumbnail(image))
        examples.append(_example(processor.prepared(image), processor))
    shares = _shares(model, examples, processor)
    true = [classes(row, facts.columns)[0] for row in rows]
    taken = [facts.labels[int(each.argmax())] for each in shares]
    scores = [float(each.max()) for each in shares]
    shown = chosen([a == b for a, b in zip(true, taken, strict=True)], scores)
    return [Picture(small[i], true[i], taken[i], scores[i]) for i in shown]


def mistakes(model: Any, rows: Sequence[Row], kept: Sequence[Kept], given: Sampling) -> list[Mistake]:
    """Images that were taken for another class."""
    columns, labels = given.facts.columns, given.facts.labels
    return [
        another_class(each, classes(row, columns)[0], labels, picture=thumbnail(_opened(row, given.facts)))
        for row, each in zip(rows, kept, strict=True)
    ]


def usage(facts: JobFacts, decision: Decision) -> list[str]:
    """The class of an image, turned upright as it was learned."""
    few = len(facts.labels) <= 20
    names = json.dumps(list(facts.labels), ensure_ascii=False) if few else "model.config.id2label"
    return [
        "from PIL import Image, ImageOps",
        "",
        'image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")',
        'inputs = processor(images=image, return_tensors="pt")',
        f"labels = {names}",
        "print(labels[model(**inputs).logits.argmax(-1).item()])",
    ]


HEAD = HeadPolicy(
    serves=INFO.name,
    class_name=re.compile(r"\w+ForImageClassification"),
    auto_class="AutoModelForImageClassification",
    peft_task="",
    is_new=INFO.new_head,
    config=config_of_head,
)

TASK = Task(
    info=INFO,
    head=HEAD,
    processor=IMAGE_PROCESSOR,
    defaults=ImageClassification(),
    columns=columns,
    classes=classes,
    check_row=check_row,
    check_input=check_input,
    check_file=check_file,
    oddities="Images are read upright, in RGB of 8 bits, and of several frames the first: {counts}.",
    encode=encode,
    varies=varies,
    objective=objective,
    tally=tally,
    predict=predict,
    answer=answer,
    pictures=pictures,
    usage=usage,
    mistakes=Mistakes({"certain": "Taken for another class with the highest certainty"}, mistakes),
    constant=most_frequent,
)
