"""Import transformers' models without what only other uses need: compilers, tensor parallelism, a serving engine.

`import transformers.models.bert.modeling_bert` pulls in torch's compiler and symbolic mathematics (2 s of CPU time
each) for names that training on CPUs never calls. Those modules are put off: a stand-in holds the few names that are
imported from it, and anything else asked of it loads the real module. Nothing is changed where a module is loaded
already, and nothing is put off for accelerators, where compilers and sharded tensors are of use.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

log = logging.getLogger(__name__)

FLEX = "torch.nn.attention.flex_attention"
ENGINE = "transformers.generation.continuous_batching"


class DeferredModule(ModuleType):
    """Stands in for a module until something is asked of it that it does not hold."""

    def __init__(self, name: str, **held: Any) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # a package: what lies in it is found by _DeferredFinder
        self.__dict__.update(held)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(load(self.__name__), name)


def load(name: str) -> ModuleType:
    """The real module; its stand-in goes, with those of the packages around it and of what lies inside."""
    related = [n for n in sys.modules if f"{name}.".startswith(f"{n}.") or n.startswith(f"{name}.")]
    for other in related:
        if isinstance(sys.modules[other], DeferredModule):
            del sys.modules[other]
    return importlib.import_module(name)


class _DeferredFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules inside a package that was put off: the package itself is loaded first, for real."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        parent = name.rpartition(".")[0]
        if not isinstance(sys.modules.get(parent), DeferredModule):
            return None
        load(parent)
        return ModuleSpec(name, self) if name in sys.modules else importlib.util.find_spec(name)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It ran when its package was loaded."""


def _later(module: str, name: str) -> Any:
    """A function that makes an object of the real class."""

    def make(*arguments: Any, **keywords: Any) -> Any:
        return getattr(load(module), name)(*arguments, **keywords)

    return make


def _disable(function: Any = None, *_: Any, **__: Any) -> Any:
    """torch._dynamo.disable where nothing is compiled."""
    return function if function is not None else (lambda f: f)


def defer() -> None:
    """Put the stand-ins in place. Call before the first import of a transformers model."""
    wrapped = "torch._dynamo._trace_wrapped_higher_order_op"
    tensor = "torch.distributed.tensor"
    stand_ins = {
        "torch._dynamo": {
            "disable": _disable,
            "is_compiling": lambda: False,
            "assume_constant_result": _disable,
            "allow_in_graph": _disable,
            "graph_break": lambda *_, **__: None,  # called by each step of an optimizer
            "eval_frame": SimpleNamespace(**_classes("OptimizedModule")),  # asked for when a model is saved
            "trace_rules": SimpleNamespace(clear_lru_cache=lambda: None),  # when a process group is made
        },
        wrapped: {"TransformGetItemToIndex": _later(wrapped, "TransformGetItemToIndex")},
        tensor: (
            _classes("DTensor", "DeviceMesh", "Partial", "Replicate", "Shard")
            | {"distribute_tensor": _later(tensor, "distribute_tensor")}
        ),
        f"{tensor}._utils": {
            "compute_local_shape_and_global_offset": _later(f"{tensor}._utils", "compute_local_shape_and_global_offset")
        },
        f"{tensor}.placement_types": _classes("Shard", "_StridedShard"),
        "torch.distributed._composable.fsdp": {
            "fully_shard": _later("torch.distributed._composable.fsdp", "fully_shard")
        },
        "torch.distributed.fsdp": _classes(
            "CPUOffloadPolicy", "FSDPModule", "FullyShardedDataParallel", "MixedPrecisionPolicy"
        ),
        "torch.distributed.fsdp.fully_sharded_data_parallel": _classes("FullyShardedDataParallel"),
        "torch.distributed.checkpoint.hf_storage": _classes("HuggingFaceStorageReader", "HuggingFaceStorageWriter"),
        "scipy.optimize": {"linear_sum_assignment": _later("scipy.optimize", "linear_sum_assignment")},
        FLEX: (
            _classes("BlockMask")
            | {name: _later(FLEX, name) for name in ("AuxRequest", "create_block_mask", "flex_attention")}
            | {"_DEFAULT_SPARSE_BLOCK_SIZE": 128}
        ),
        ENGINE: _classes("ContinuousMixin", "PagedAttentionCache"),
        f"{ENGINE}.cache": _classes("PagedAttentionCache"),
    }
    sys.meta_path.insert(0, _DeferredFinder())
    for name, held in stand_ins.items():
        if name not in sys.modules:
            sys.modules[name] = DeferredModule(name, **held)
            parent, _, last = name.rpartition(".")
            if parent in sys.modules and last not in vars(sys.modules[parent]):
                setattr(
                    sys.modules[parent], last, sys.modules[name]
                )  # as an import does; peft asks for it by attribute


def import_modules(modules: Sequence[str], *, deferred: bool = True) -> None:
    """Import modules, leanly if asked to and possible."""
    if deferred:
        defer()
    try:
        for module in modules:
            importlib.import_module(module)
    except Exception as error:
        log.warning("imports could not be made lean (%s: %s); all is loaded", type(error).__name__, error)
        load_everything()


def load_everything() -> None:
    """Load everything for real: another version of a library asked for more than the stand-ins can give."""
    for name in [n for n, m in sys.modules.items() if isinstance(m, DeferredModule)]:
        parent, _, last = name.rpartition(".")
        if sys.modules.get(parent) is not None and vars(sys.modules[parent]).get(last) is sys.modules[name]:
            delattr(sys.modules[parent], last)
        del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _DeferredFinder)]
    for name in [n for n in sys.modules if n.split(".")[0] in ("transformers", "peft")]:
        del sys.modules[name]


def _classes(*names: str) -> dict[str, Any]:
    """Classes that nothing is an instance of: sharded tensors and engines never occur where they are put off."""
    return {name: type(name, (), {"__init__": lambda self, *_, **__: None}) for name in names}
