"""Several processes as one run: rendezvous, ranks and devices, and how a step's gradients come together."""
