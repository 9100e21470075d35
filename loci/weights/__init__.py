"""Weights: memory in parameters. `optim` holds the optimizers; each is a `torch.optim.Optimizer`, nothing added.
`local` holds the trainers that cut a model into blocks and never hold the graph of more than one.

Needs the extra `torch`: pip install "loci[torch]".
"""
