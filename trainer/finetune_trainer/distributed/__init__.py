"""Several processes as one run: process group, ranks, devices, and how a step's gradients come together."""
