"""`loci fit`: will it fit, what is given up, and training that way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loci.app.common import Json, out, progress
from loci.core import sizes
from loci.core.errors import need

SHOWN = 12  # plans in the table, unless all are asked for


def fit(
    target: Annotated[
        str, typer.Argument(help="gpt:350m, a config.json, or package.module:function.", show_default=False)
    ],
    *,
    budget: Annotated[str, typer.Option(help="Bytes that training may hold, such as 24GB.")] = "",
    batch: Annotated[str, typer.Option(help="Rows x tokens of a step, such as 4x1024.")] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda; planned for, it need not be here.")] = "cuda",
    optimizer: Annotated[str, typer.Option(help="Only these, by commas (loci list optimizer; adamw, sgd).")] = "",
    precision: Annotated[str, typer.Option(help="Only these, by commas: fp32, bf16-mixed, fp16-mixed, bf16.")] = "",
    lr: Annotated[float | None, typer.Option(help="Step size, for one optimizer.")] = None,
    every_plan: Annotated[bool, typer.Option("--all", help="Show every plan.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the best plan's bytes over a step (.png, .svg).")] = None,
    train: Annotated[
        Path | None, typer.Option(help="Train on this text (or .npy of tokens) under the best plan.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of --train in all.")] = 100,
    checkpoints: Annotated[Path | None, typer.Option(help="Folder to keep checkpoints in, and to resume from.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    as_json: Json = False,
) -> None:
    """Foresee the bytes of training, without a GPU, and pick the best way that fits.

    Exit code 1 when nothing fits.
    """
    need("torch", extra="torch", who="loci fit")
    from loci.budget.fit import fit as foresee

    with progress("plans") as report:
        found = foresee(
            target,
            budget or None,
            batch=_batch(batch),
            device=device,
            optimizer=optimizer.split(",") if optimizer else None,
            precision=precision.split(",") if precision else None,  # type: ignore[arg-type]
            options=None if lr is None else {"lr": lr},
            progress=report,
        )
    if plot is not None:
        found.plot(plot)
    if train is None or not found.fitting:
        out(found.as_json(), table(found, every_plan=every_plan), as_json=as_json)
        if not found.fitting:
            raise typer.Exit(1)
        return
    trained = found.train(train, steps=steps, checkpoints=checkpoints, seed=seed)
    told = {
        "plan": str(trained.plan), "steps": len(trained.losses), "loss": trained.losses[-1], "peak": trained.peak,
        "foreseen": trained.foreseen, "notes": trained.notes,
    }  # fmt: skip
    text = (
        f"{told['steps']} steps of {found.subject.name} with {trained.plan}; loss {trained.losses[0]:.3f} -> "
        f"{trained.losses[-1]:.3f}; peak {sizes.show(trained.peak)}, foreseen {sizes.show(trained.foreseen)}"
    )
    out(told, "\n".join([*trained.notes, text]), as_json=as_json)


def table(found: Any, *, every_plan: bool) -> str:
    """The plans as text: the best first, then what can be had for fewer bytes."""
    shown = list(found.forecasts if every_plan or not found.fitting else found.fitting)
    if not every_plan:
        shown = front(shown)[:SHOWN]
    head = f"{found.subject.name}: {found.parameters:,} parameters, planned for {found.device.name}"
    head += f", budget {sizes.show(found.budget)}" if found.budget is not None else ""
    rows = [f"{'peak':>8}  {'weights':>8} {'grads':>8} {'state':>8} {'activ.':>8} {'temp.':>8}  work  plan"]
    for one in shown:
        parts = " ".join(f"{sizes.show(size):>8}" for size in one.split.values())
        rows.append(f"{sizes.show(one.bytes):>8}  {parts}  {one.work:4.2f}  {one.plan}")
    best = found.best
    lost = [f"  gives up: {text}" for text in best.gives_up] if best is not None else []
    rest = len(found.forecasts) - len(shown)
    return "\n".join([head, *rows, f"({rest} other plans: --all)" if rest else "", found.advice, *lost])


def front(plans: list[Any]) -> list[Any]:
    """Of plans in order of preference, those that hold fewer bytes than all that are preferred to them."""
    kept: list[Any] = []
    for one in plans:
        if not kept or one.bytes < kept[-1].bytes:
            kept.append(one)
    return kept


def _batch(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    rows, _, tokens = text.partition("x")
    if not (rows.isdigit() and tokens.isdigit() and int(rows) and int(tokens)):
        raise ValueError(f"batch={text!r} is not rows x tokens; give it as 4x1024")
    return int(rows), int(tokens)
