"""Checkpoints: all that a training is, in one file, so that it goes on to the bit.

A file is written whole beside its name, forced to disk and then renamed, so that a crash leaves the one before. Under
several processes each keeps its own part, and the same number of processes is needed to go on.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from loci.budget.plan import Plan
from loci.budget.training import Training

FORMAT = 1


def save(folder: Path, training: Training, *, step: int, losses: list[float], keep: int = 2) -> Path:
    """Write the training after `step` steps; all but the last `keep` files are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}{_part()}.pt"
    waiting = path.with_suffix(".new")
    held = {
        "format": FORMAT,
        "plan": asdict(training.plan),
        "step": step,
        "losses": losses,
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict(),
        "random": _random(),
    }
    with waiting.open("wb") as file:
        torch.save(held, file)
        file.flush()
        os.fsync(file.fileno())
    waiting.replace(path)
    for old in _files(folder)[:-keep]:
        old.unlink()
    return path


def last(folder: Path, *, device: str) -> dict[str, Any] | None:
    """The newest checkpoint of a folder, None where there is none; a ValueError when it was made otherwise."""
    newest = _newest(folder)
    if newest is None:
        return None
    try:
        held: dict[str, Any] = torch.load(newest, map_location=device, weights_only=True)
        version = held["format"]
    except Exception as error:
        told = f"{error}".partition("\n")[0]
        raise ValueError(f"{newest} cannot be read ({told}); remove it to go on from the one before") from error
    if version != FORMAT:
        raise ValueError(f"{newest} has format {version}, this loci reads {FORMAT}; use the loci that wrote it")
    return held | {"plan": Plan(**held["plan"]), "path": newest}


def load(training: Training, held: dict[str, Any], *, optimizer: bool = True) -> None:
    """Put a checkpoint into a training; without `optimizer` only the weights and the random state."""
    try:
        training.model.load_state_dict(held["model"])
        if optimizer:
            training.optimizer.load_state_dict(held["optimizer"])
            training.scaler.load_state_dict(held["scaler"])
    except (RuntimeError, ValueError, KeyError) as error:
        told = f"{error}".partition("\n")[0]
        raise ValueError(
            f"{held.get('path', 'what is held')} is of another model or optimizer ({told}); give another folder"
        ) from error
    torch.set_rng_state(held["random"]["cpu"].cpu())
    if "cuda" in held["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(held["random"]["cuda"].cpu())


def _random() -> dict[str, Any]:
    held = {"cpu": torch.get_rng_state()}
    return held | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _newest(folder: Path) -> Path | None:
    """The newest file, of several processes the newest that all of them have: a crash may leave one behind by one."""
    found = {path.name.partition(".")[0]: path for path in _files(folder)}
    others = sorted(path for path in folder.glob("step-*.pt") if _world(path.name) != _world(f"{_part()}.pt"))
    if others and not found:
        raise ValueError(f"{others[-1]} was written by other processes than these; start as many as then")
    steps = [set(found)]
    if dist.is_initialized():
        steps = [set(found)] * dist.get_world_size()
        dist.all_gather_object(steps, set(found))
    common = set.intersection(*steps)
    return found[max(common)] if common else None


def _part() -> str:
    return f".{dist.get_rank()}-of-{dist.get_world_size()}" if dist.is_initialized() else ""


def _world(name: str) -> str:
    """How many processes a file's name speaks of, nothing for one alone."""
    return name.partition("-of-")[2]


def _files(folder: Path) -> list[Path]:
    pattern = re.compile(rf"step-\d+{re.escape(_part())}\.pt")
    return sorted(path for path in folder.glob("step-*.pt") if pattern.fullmatch(path.name)) if folder.is_dir() else []
