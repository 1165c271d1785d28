"""What goes wrong between the ranks is told in words that help."""

from __future__ import annotations

import pytest
import torch

from finetune_api.exits import JobError, Reason
from finetune_trainer.distributed.peers import peer_errors

GLOO = (
    "[/src/gloo/transport/tcp/pair.cc:545] Read error [10.244.0.11]:12711: Connection reset by peer."
    " This is typically caused by a remote worker hanging or bugs in the application.\nmore"
)


def test_a_lost_peer_is_named_without_the_library_s_own_lines() -> None:
    with pytest.raises(JobError) as caught, peer_errors():
        raise RuntimeError(GLOO)
    assert caught.value.reason is Reason.PEER_LOST
    assert (
        str(caught.value.message)
        == "another worker went away or did not answer in time: Read error [10.244.0.11]:12711: Connection reset by"
        " peer."
    )


def test_memory_that_runs_out_in_a_collective_is_no_lost_peer() -> None:
    with pytest.raises(torch.OutOfMemoryError), peer_errors():
        raise torch.OutOfMemoryError("no memory")
