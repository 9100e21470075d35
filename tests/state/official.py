"""What both sides of a comparison with authors' code are given, and how their numbers are recorded."""

import math

import torch

DOUBLE = torch.float64


def wave(*shape, k, scale=0.5):
    """Numbers that anyone can make again: scale * sin(k), scale * sin(2k), ... as a tensor of that shape."""
    return (scale * torch.sin(k * torch.arange(1, math.prod(shape) + 1, dtype=DOUBLE))).reshape(shape)


def inputs(*shape):
    return wave(*shape, k=0.7, scale=1.0).requires_grad_()


def close(got, want, *, rtol=1e-9, atol=1e-14):
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want, dtype=DOUBLE), rtol=rtol, atol=atol)


def matches(y, official):
    """y (B, T, D) against the first moment of the first row, the last of the last, and the sum over everything."""
    y = y.detach()
    close(y[0, 0], official["first"])
    close(y[-1, -1], official["last"])
    close(y.sum(), official["sum"])


def differentiate(y):
    """Gradients of a weighted sum of y."""
    torch.autograd.backward((wave(*y.shape, k=1.3) * y).sum())
