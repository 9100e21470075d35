"""What tests of recurrent cells draw: fresh cells, inputs, and sizes that are all different."""

import numpy as np
import torch

DOUBLE = torch.float64
D, n, B, T = 4, 5, 3, 12


def fresh(kind, *args, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*args, **options).to(DOUBLE)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
