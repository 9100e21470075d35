"""The authors' packages as oracles: the same gradients, the same projector, the same weights. See record_official.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.weights.optim.apollo import APOLLO
from loci.weights.optim.galore import GaLore, GaLoreAdafactor
from loci.weights.optim.sgd_sai import SGDSaI

torch.set_num_threads(1)
ROWS = json.loads((Path(__file__).parent / "fixtures" / "official.json").read_text("utf-8"))["rows"]
OURS = {
    "galore": lambda params, **options: GaLore(params, 0.01, weight_decay=0.1, **options),
    "galore-adafactor": lambda params, **options: GaLoreAdafactor(params, 0.01, **options),
    "apollo": lambda params, **options: APOLLO(params, 0.01, weight_decay=0.1, **options),
    "sgd-sai": lambda params, **options: SGDSaI(params, 0.01, weight_decay=0.1, **options),
}


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['of']}-{row['shape']}-{list(row['options'].values())}")
def test_it_goes_where_the_authors_code_goes(row, foreach, monkeypatch):
    if "P" in row:
        P = torch.tensor(row["P"], dtype=torch.float32)
        monkeypatch.setattr("loci.weights.optim.apollo.random_projection", lambda *_: P)
    param = nn.Parameter(torch.ones(row["shape"]))
    optimizer = OURS[row["of"]]([param], foreach=foreach, **row["options"])
    for grad in np.random.default_rng(row["seed"]).normal(size=(6, *row["shape"])).round(4).tolist():
        param.grad = torch.tensor(grad, dtype=torch.float32)
        optimizer.step()
    torch.testing.assert_close(param.detach(), torch.tensor(row["final"], dtype=torch.float32), rtol=1e-6, atol=1e-6)
