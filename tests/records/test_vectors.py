"""Vectors are a cache keyed by model: changing the model loses nothing and old vectors serve meanwhile."""

import sqlite3

import numpy as np

from loci import Memory
from loci.ports.embed_hash import HashEmbedder

TEXTS = ["the cat sat on the mat", "a dog barked at night", "ships sail to Naxos"]


def test_old_vectors_serve_until_the_new_ones_are_there(tmp_path):
    path = tmp_path / "a.db"
    old, new = HashEmbedder(64), HashEmbedder(128)
    with Memory(path, scheme="dense", embedder=old) as memory:
        memory.add(TEXTS)
    with Memory(path, scheme="dense", embedder=new) as memory:
        assert list(memory.recall("cat on a mat")) == []  # no vector of this model yet, and nothing lost
    with Memory(path, scheme="dense", embedder=new, previous=old, background=False) as memory:
        assert memory.recall("cat on a mat", k=1)[0].item.text == TEXTS[0]
        memory.add("a kitten on the mat")  # embeds itself alone
        with sqlite3.connect(path) as db:
            assert db.execute(
                "SELECT dim, count(*) FROM vector JOIN model ON model.id = model GROUP BY dim"
            ).fetchall() == [(64, 3), (128, 1)]
        found = {hit.item.text: hit.score for hit in memory.recall("cat on a mat", k=4)}
        rows = {dim: HashEmbedder(dim).embed(["cat on a mat", TEXTS[0], "a kitten on the mat"]) for dim in (64, 128)}
        assert abs(found[TEXTS[0]] - rows[64][0] @ rows[64][1]) < 2e-3  # by the old model
        assert abs(found["a kitten on the mat"] - rows[128][0] @ rows[128][2]) < 2e-3  # by the new one
        assert memory.embed() == 3
        again = {hit.item.text: hit.score for hit in memory.recall("cat on a mat", k=4)}
        assert abs(again[TEXTS[0]] - rows[128][0] @ rows[128][1]) < 2e-3
    with Memory(path, scheme="dense", embedder=new) as memory:
        assert {hit.item.text for hit in memory.recall("cat on a mat", k=2)} == {TEXTS[0], "a kitten on the mat"}


def test_vectors_in_the_file_are_unit_float16(tmp_path):
    path = tmp_path / "a.db"
    with Memory(path, embedder="hash") as memory:
        memory.add(TEXTS)
    with sqlite3.connect(path) as db:
        for (data,) in db.execute("SELECT data FROM vector"):
            assert abs(np.linalg.norm(np.frombuffer(data, np.float16).astype(np.float64)) - 1) < 2e-3


def test_a_change_of_model_is_worked_off_in_the_background(tmp_path):
    path = tmp_path / "a.db"
    with Memory(path, embedder=HashEmbedder(64)) as memory:
        memory.add([f"{text} {n}" for text in TEXTS for n in range(100)])
    with Memory(path, embedder=HashEmbedder(128), previous=HashEmbedder(64)) as memory:
        assert memory.recall("cat", k=1)  # served while it works
        memory._thread.join()
    with Memory(path, embedder=HashEmbedder(32), previous=HashEmbedder(128)):
        pass  # closed at once: what was done so far is kept, nothing is broken
    with sqlite3.connect(path) as db:
        found = dict(db.execute("SELECT dim, count(*) FROM vector JOIN model ON model.id = model GROUP BY dim"))
    assert found[64] == found[128] == 300
