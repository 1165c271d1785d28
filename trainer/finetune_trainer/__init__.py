"""The trainer: streams data, tunes a model, checkpoints, evaluates and writes what comes of it; knows nothing of
Kubernetes.
"""
