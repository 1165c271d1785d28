"""Which rows share a micro-batch, and what its tensors hold; what is learned never hangs on either."""

from __future__ import annotations

import pytest
import torch

from finetune_trainer.batches.collate import collate, padded_width
from finetune_trainer.batches.example import IGNORE, ClassExample, TokenExample
from finetune_trainer.batches.layout import by_length, micro_batches
from finetune_trainer.batches.rank_batch import lay_out


def text(length: int, label: int = 0) -> ClassExample:
    return ClassExample([7] * length, None, length, label)


def test_the_longest_go_first_and_equals_keep_their_order() -> None:
    examples = [text(2, 0), text(9, 1), text(2, 2), text(5, 3), text(9, 4)]
    groups = [[example.label for example in group] for group in by_length(examples, 2)]  # type: ignore[attr-defined]
    assert groups == [[1, 4], [3, 0], [2]]


def test_each_micro_batch_is_padded_by_itself() -> None:
    widths = [batch.inputs["input_ids"].shape for batch in micro_batches([text(3), text(20), text(17)], 2, 0, 64)]
    assert widths == [(2, 24), (1, 8)]


@pytest.mark.parametrize(
    ("longest", "most", "width"), [(3, 64, 8), (8, 64, 8), (9, 12, 12), (12, 12, 12), (13, 12, 13)]
)
def test_widths_are_multiples_that_the_maximum_bounds(longest: int, most: int, width: int) -> None:
    assert padded_width(longest, most) == width


def test_padding_is_neither_seen_nor_learned_though_its_token_is() -> None:
    """The pad token is the end of text, too."""
    batch = collate([TokenExample([5, 2], None, 2, [IGNORE, 2]), TokenExample([5, 6, 2], None, 3, [5, 6, 2])], 2, 4)
    assert batch.inputs["input_ids"].tolist() == [[5, 2, 2, 2], [5, 6, 2, 2]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert batch.labels.tolist() == [[IGNORE, 2, IGNORE, IGNORE], [5, 6, 2, IGNORE]]
    assert (batch.rows, batch.tokens) == (2, 5)


def test_pairs_have_type_ids_and_classes_one_label_a_row() -> None:
    batch = collate([ClassExample([5, 6, 7], [0, 0, 1], 3, 1), ClassExample([5], [0], 1, 0)], 0, 3)
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert torch.equal(batch.labels, torch.tensor([1, 0]))
    assert {tensor.dtype for tensor in (*batch.inputs.values(), batch.labels)} == {torch.int64}


def test_an_example_says_how_many_losses_it_has() -> None:
    assert text(5).losses == 1
    assert TokenExample([5, 6, 2], None, 3, [5, 6, 2]).losses == 2, "nothing predicts the first token"
    assert TokenExample([5, 6, 2], None, 3, [5, IGNORE, IGNORE]).losses == 0


def test_a_rank_s_part_counts_rows_without_examples_and_rows_with_several() -> None:
    part = lay_out([[text(3), text(9)], [], [text(4)]], 2, 0, 64)
    assert [batch.rows for batch in part.batches] == [2, 1]
    assert (part.learned, part.tokens, part.empty) == (3, 16, 1)
