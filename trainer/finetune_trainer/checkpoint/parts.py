"""Tensors to parts and back: safetensors files of bounded size, one namespace each, digests computed while writing.

A part is named by its writer, so no writer ever overwrites another's. Reading checks size, CRC32C (always), SHA-256
(when asked), and that the tensors are those the manifest names: a wrong part is found before it is used (I5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import safetensors.torch
import torch

from finetune_trainer.checkpoint import digests
from finetune_trainer.checkpoint.digests import crc32c, sha256
from finetune_trainer.checkpoint.manifest import CheckpointManifest, DamagedError, Part
from finetune_trainer.checkpoint.serialized import Serialized
from finetune_trainer.checkpoint.snapshot import Snapshot
from finetune_trainer.failures import memory
from finetune_trainer.storage import Location

PART_BYTES = 256 << 20
"""Parts hold so much, or one tensor if that is larger."""


def copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU that share nothing with the originals; training may go on."""
    return {
        name: t.detach().to(device="cpu", copy=True, memory_format=torch.contiguous_format).contiguous()
        for name, t in tensors.items()
    }


def as_they_are(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors themselves where they lie on the CPU in one piece, else copies: for saves that the step waits for."""
    return {name: t.detach().to(device="cpu").contiguous() for name, t in tensors.items()}


def pack(snapshot: Snapshot, writer: str, part_bytes: int = PART_BYTES) -> Iterator[tuple[Part, Serialized]]:
    """The parts of a snapshot with their bytes, which are read from the snapshot itself: there is no second copy."""
    for number, (namespace, group) in enumerate(_groups(snapshot.tensors, part_bytes)):
        data = Serialized.of_tensors(group)
        tensors = {name: (_dtype(t), tuple(t.shape)) for name, t in group.items()}
        name = f"{namespace}-{number:05d}-{writer}.safetensors"
        yield Part(name, namespace, data.size, *digests.both(data.pieces()), tensors), data
    for name, blob in snapshot.blobs.items():
        data = Serialized([memoryview(blob)])
        yield Part(f"{name}-{writer}.bin", name, data.size, *digests.both(data.pieces())), data


def unpack(where: Location, manifest: CheckpointManifest, *, only: str | None = None, full: bool = False) -> Snapshot:
    """Read and verify a checkpoint's parts; `only`: tensors whose names begin so, and no blobs; `full`: SHA-256 too.

    Raises DamagedError; errors of the storage itself pass through.
    """
    tensors: dict[str, torch.Tensor] = {}
    blobs: dict[str, bytes] = {}
    for part in manifest.parts:
        if only is not None and (part.tensors is None or not any(name.startswith(only) for name in part.tensors)):
            continue
        data = read(where, part, full=full)
        if part.tensors is None:
            blobs[part.namespace] = data
            continue
        for name, tensor in _tensors(part, data).items():
            if only is None or name.startswith(only):
                tensors[name] = tensor
    return Snapshot(manifest.step, manifest.cursor, tensors, manifest.meta, blobs)


def read(where: Location, part: Part, *, full: bool = False) -> bytes:
    """A part's bytes, verified. Raises DamagedError."""
    try:
        data = where.get(part.name)
    except FileNotFoundError:
        raise DamagedError(f"part {part.name} is missing") from None
    if len(data) != part.bytes:
        raise DamagedError(f"part {part.name} has {len(data)} bytes instead of {part.bytes}")
    if crc32c(data) != part.crc32c:
        raise DamagedError(f"part {part.name} does not match its CRC32C")
    if full and sha256(data) != part.sha256:
        raise DamagedError(f"part {part.name} does not match its SHA-256")
    return data


def _tensors(part: Part, data: bytes) -> dict[str, torch.Tensor]:
    assert part.tensors is not None
    try:
        loaded = safetensors.torch.load(data)
    except Exception as error:  # safetensors' own error type is not exported everywhere
        if memory.ran_out(error):
            raise  # nothing is wrong with the part
        raise DamagedError(f"part {part.name} is not safetensors ({type(error).__name__})") from error
    if {name: (_dtype(t), tuple(t.shape)) for name, t in loaded.items()} != part.tensors:
        raise DamagedError(f"part {part.name} holds other tensors than its manifest says")
    return {name: loaded[name] for name in part.tensors}


def _groups(tensors: Mapping[str, torch.Tensor], part_bytes: int) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    namespaces: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        namespaces.setdefault(name.partition(".")[0], {})[name] = tensor
    for namespace, members in namespaces.items():
        group: dict[str, torch.Tensor] = {}
        size = 0
        for name, tensor in members.items():
            if group and size + tensor.nbytes > part_bytes:
                yield namespace, group
                group, size = {}, 0
            group[name] = tensor
            size += tensor.nbytes
        yield namespace, group


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
