"""Weights: memory in parameters. `optim` holds the optimizers; each is a `torch.optim.Optimizer`, nothing added.

Needs the extra `torch`: pip install "loci[torch]".
"""
