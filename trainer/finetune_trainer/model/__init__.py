"""Models: fetched to scratch as safetensors, their tokenizers, and how they are loaded for a task."""
