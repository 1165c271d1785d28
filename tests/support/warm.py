"""Imported by the server that tests fork their processes from: torch and transformers, once, as the launcher imports
them.
"""

import torch

from finetune_trainer.model import deferred_imports

torch.set_num_threads(1)
deferred_imports.defer()

import peft  # noqa: E402, F401
import transformers.models.bert.modeling_bert  # noqa: E402
import transformers.models.llama.modeling_llama  # noqa: E402, F401

import finetune_trainer.launch.launcher  # noqa: E402
import finetune_trainer.prepare  # noqa: E402
import finetune_trainer.train.worker  # noqa: E402, F401
