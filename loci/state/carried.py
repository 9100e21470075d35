"""A carried state in a file: a conversation's memory, put away and taken up again bit for bit.

The file is safetensors: the state's tensors in order, and in its metadata the version of this form and a fingerprint of the
weights that read the text. A state says nothing to other weights, so it is refused there.

>>> import tempfile
>>> from loci.state.gru import GRU
>>> from loci.state.stack import Stack
>>> stack = Stack(lambda D: GRU(D, n=8), depth=1, V=11, D=6)
>>> _, state = stack(torch.tensor([[3, 1, 4]]))
>>> with tempfile.TemporaryDirectory() as folder:
...     save(state, Path(folder) / "chat.state", of=stack)
...     back = load(Path(folder) / "chat.state", of=stack)
>>> all(torch.equal(one, two) for one, two in zip(state, back, strict=True))
True
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from loci.state.decoder.base import Decoder
from loci.state.mixer import Mixer, State

VERSION = "loci-state/1"


def save(state: State, path: Path | str, *, of: Mixer | Decoder) -> None:
    """Write the state that `of` carries; the file is whole or as it was before."""
    path = Path(path)
    _fits(state, of, "the state")
    parts = {f"{place:04d}": part.detach().cpu().contiguous().clone() for place, part in enumerate(state)}
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(parts, beside, metadata={"form": VERSION, "weights": fingerprint(of)})
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path | str, *, of: Mixer | Decoder) -> State:
    """The state in a file, on the device of `of`.

    ValueError for a file of another form or version, of other weights, or of shapes or dtypes that `of` does not carry;
    FileNotFoundError where there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give one that loci.state.carried.save has written")
    try:
        with safe_open(path, framework="pt", device=str(next(of.parameters()).device)) as file:
            said = file.metadata() or {}
            state = tuple(file.get_tensor(name).clone() for name in sorted(file.keys()))
    except SafetensorError as error:
        raise ValueError(f"{path} is no carried state ({error}); give a file that save has written") from error
    if said.get("form") != VERSION:
        raise ValueError(
            f"{path} has form {said.get('form')!r}, this version reads {VERSION!r}; read the text again instead"
        )
    _fits(state, of, str(path))
    if said.get("weights") != fingerprint(of):
        raise ValueError(
            f"{path} was carried by other weights; load those that read the text, or read it again with these"
        )
    return state


def fingerprint(model: torch.nn.Module) -> str:
    """A digest of a model's parameters and buffers by name, shape, dtype and value, the same on any device."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _fits(state: State, of: Mixer | Decoder, what: str) -> None:
    """Refuse a state that `of` could not carry, by its own rule and by its dtypes."""
    rows = len(state[0])
    want, got = ([part.dtype for part in parts] for parts in (of.initial_state(rows), state))
    if isinstance(of, Mixer):
        none = next(of.parameters()).new_zeros(rows, 0, of.D)
    else:
        none = torch.zeros(rows, 0, dtype=torch.int64)
    try:
        of.require(none, state)
    except ValueError as error:
        raise ValueError(f"{what} does not fit: {error}") from error
    if want != got:
        raise ValueError(
            f"{what} does not fit: it holds {got}, {type(of).__name__} carries {want}; cast the model to them"
        )
