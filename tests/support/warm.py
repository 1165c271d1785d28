"""Imported by the server that tests fork their processes from: torch and transformers, once, as the launcher imports them."""

import torch

from finetune_trainer import lean

torch.set_num_threads(1)
lean.put_off()

import peft  # noqa: E402, F401
import transformers.models.bert.modeling_bert  # noqa: E402
import transformers.models.llama.modeling_llama  # noqa: E402, F401

import finetune_trainer.launcher  # noqa: E402
import finetune_trainer.prepare  # noqa: E402
import finetune_trainer.run  # noqa: E402, F401
