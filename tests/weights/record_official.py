"""Record what the authors' own packages do with fixed gradients: python tests/weights/record_official.py FOLDER_OF_PACKAGES.

Run by hand where galore-torch, apollo-torch and sgd-sai are installed without their dependencies; bitsandbytes is stubbed,
for only the 32-bit optimizers are recorded. test_official.py compares with fixtures/official.json.
"""

import json
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

STEPS = 6


def gradients(shape, seed):
    return [
        torch.tensor(g, dtype=torch.float32)
        for g in np.random.default_rng(seed).normal(size=(STEPS, *shape)).round(4).tolist()
    ]


def run(build, shape, seed):
    """Final weights from ones, rounded to what float32 knows, and the optimizer's state."""
    param = torch.nn.Parameter(torch.ones(shape))
    optimizer = build([param])
    for grad in gradients(shape, seed):
        param.grad = grad.clone()
        optimizer.step()
    return param.detach().double().numpy().round(8).tolist(), optimizer.state[param]


def main(folder):
    sys.path.insert(0, folder)
    stub = types.ModuleType("bitsandbytes.optim.optimizer")
    stub.Optimizer2State = object
    sys.modules |= {"bitsandbytes": stub, "bitsandbytes.optim": stub, "bitsandbytes.optim.optimizer": stub}
    stub.functional = sys.modules["bitsandbytes.functional"] = stub
    from apollo_torch.apollo import AdamW as Apollo
    from galore_torch.adafactor import Adafactor
    from galore_torch.adamw import AdamW
    from sgd_sai import SGD_sai

    rows = []
    for shape in ((9, 5), (5, 9)):
        for side in ("std", "reverse_std", "left", "right", "full"):
            group = {"rank": 3, "update_proj_gap": 100, "scale": 0.25, "proj_type": side}
            final, _ = run(
                lambda p, group=group: AdamW(
                    [{"params": p, **group}], lr=0.01, weight_decay=0.1, no_deprecation_warning=True
                ),
                shape, 1,
            )  # fmt: skip
            rows.append({"of": "galore", "shape": shape, "seed": 1, "options": group, "final": final})
        group = {"rank": 3, "update_proj_gap": 100, "scale": 0.25, "proj_type": "std"}
        final, _ = run(
            lambda p: Adafactor(
                [{"params": p, **group}], lr=0.01, scale_parameter=False, relative_step=False, warmup_init=False
            ),
            shape, 2,
        )  # fmt: skip
        rows.append({"of": "galore-adafactor", "shape": shape, "seed": 2, "options": group, "final": final})
        for kind, rank, scale, front in (
            ("channel", 3, 1.0, False), ("tensor", 1, 128.0, False), ("tensor", 1, 128.0, True),
        ):  # fmt: skip
            group = {"rank": rank, "update_proj_gap": 100, "scale": scale, "scale_type": kind}
            final, state = run(
                lambda p, group=group, front=front: Apollo(
                    [{"params": p, "proj": "random", "proj_type": "std", **group}], lr=0.01, weight_decay=0.1,
                    scale_front=front, no_deprecation_warning=True,
                ),
                shape, 3,
            )  # fmt: skip
            P = state["projector"].ortho_matrix
            P = (P.T if shape[0] >= shape[1] else P).double().numpy().tolist()
            options = {**group, "scale_front": front}
            rows.append({"of": "apollo", "shape": shape, "seed": 3, "options": options, "final": final, "P": P})
    final, _ = run(lambda p: SGD_sai(p, lr=0.01, weight_decay=0.1), (9, 5), 4)
    rows.append({"of": "sgd-sai", "shape": (9, 5), "seed": 4, "options": {}, "final": final})
    packages = {name: version(name) for name in ("galore-torch", "apollo-torch", "sgd-sai", "torch", "numpy")}
    text = json.dumps({"packages": packages, "recorded_by": "tests/weights/record_official.py", "rows": rows})
    (Path(__file__).parent / "fixtures" / "official.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
