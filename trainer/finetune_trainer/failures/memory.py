"""Memory that ran out has many names: torch's, CUDA's, the CPU allocator's, Python's, the system's."""

from __future__ import annotations

import errno
import re

_WORDS = re.compile(
    r"out of memory|DefaultCPUAllocator|can't allocate memory|cannot allocate memory|not enough"
    r" memory|[A-Z]+_STATUS_ALLOC_FAILED"
    r"|cudaErrorMemoryAllocation|std::bad_alloc|failed to allocate",
    re.IGNORECASE,
)
"""What a RuntimeError says: the CPU allocator, cuBLAS, cuDNN, cuSOLVER, NCCL and the driver have no type of their own.
"""


def ran_out(error: BaseException) -> bool:
    """Whether an error means that memory, of the machine or of an accelerator, was not enough."""
    if (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    ):  # torch's; it need not be imported here
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_WORDS.search(str(error)))
