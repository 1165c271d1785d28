"""The launcher's deferred imports must carry every method; each case runs in a process of its own, as imports happen
once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import importlib, sys, tempfile, warnings
warnings.simplefilter("ignore")
from finetune_trainer.model import deferred_imports
import torch
deferred_imports.defer()
if "give up" in sys.argv:
    deferred_imports.load_everything()
importlib.import_module("peft")
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM
import peft
sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=20, **sizes))
model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
ids = torch.tensor([[1, 2, 3]])
model(input_ids=ids, labels=ids).loss.backward()
torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True).step()
model.save_pretrained(tempfile.mkdtemp(dir=sys.argv[1]))
model.merge_and_unload().save_pretrained(tempfile.mkdtemp(dir=sys.argv[1]))
for module in (torch.distributed.tensor, sys.modules["torch._dynamo"]):
    assert isinstance(module, deferred_imports.DeferredModule) == ("give up" not in sys.argv), module
print("tuned")
"""

CLASSIFIER = """
import importlib, sys
from pathlib import Path
from finetune_trainer.model import deferred_imports
import torch
deferred_imports.defer()
importlib.import_module("transformers.models.bert.modeling_bert")
from finetune_trainer.model.load import load_model
from finetune_trainer.tasks.registry import task_for
dist = torch.distributed
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
model = load_model(Path(sys.argv[1]), task_for("text-classification").head, labels=["a", "b"], seed=1, pad_id=0)
model(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([1])).loss.backward()
dist.all_reduce(model.classifier.weight.grad)
torch.optim.AdamW(model.parameters(), fused=True).step()
model.save_pretrained(sys.argv[2])
assert isinstance(sys.modules["torch._dynamo"], deferred_imports.DeferredModule)
assert "sympy" not in sys.modules
print("tuned")
"""


def run(*arguments: str, script: str = SCRIPT) -> None:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("tuned\n"), done.stderr


def test_lora_adapters_are_made_trained_saved_and_merged_with_deferred_imports(tmp_path: Path) -> None:
    run(str(tmp_path))


def test_giving_up_leaves_no_stand_in_behind(tmp_path: Path) -> None:
    run(str(tmp_path), "give up")


def test_joining_loading_a_step_and_saving_need_neither_the_compiler_nor_symbolic_mathematics(
    bert: Path, tmp_path: Path
) -> None:
    run(str(bert), str(tmp_path), script=CLASSIFIER)
