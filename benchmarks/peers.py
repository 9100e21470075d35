"""The other stores, each behind three calls: add (scope, texts), search (scope, question, k) -> texts, nbytes.

Each opens in a folder of its own. A store that is not installed raises ImportError, and the run says so.
"""

import os
import re
import shutil
import sqlite3
import tempfile
from pathlib import Path

import numpy as np

from loci.ports.embed_hash import HashEmbedder
from loci.records import Memory
from loci.records.analysis import STOP

DIM = 256


def size(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


class Peer:
    name = "peer"
    dense = False

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="peer-"))
        self.open()

    def open(self):
        raise NotImplementedError

    @property
    def nbytes(self):
        return size(self.folder)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Loci(Peer):
    name, scheme = "loci", "loci"

    def open(self):
        self.memory = Memory(self.folder / "a.db", scheme=self.scheme, log_queries=False)

    def add(self, scope, items):
        self.memory.add(items, scope=scope)

    def search(self, scope, question, k):
        return [hit.item.text for hit in self.memory.recall(question, k, scope=scope)]

    def reopen(self):
        self.memory.close()
        self.open()

    @property
    def nbytes(self):
        self.memory.flush()
        return size(self.folder)

    def close(self):
        self.memory.close()
        super().close()


class LociBM25(Loci):
    name, scheme = "loci (scheme bm25)", "bm25"


class FTS5(Peer):
    """SQLite's own full text index: porter stems, OR of the question's words but for stop words, bm25(), scope as a column."""

    name = "SQLite FTS5"

    def open(self):
        self.db = sqlite3.connect(self.folder / "a.db")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS t USING fts5(text, scope UNINDEXED, tokenize = 'porter unicode61')"
        )

    def add(self, scope, items):
        with self.db:
            self.db.executemany("INSERT INTO t VALUES (?, ?)", ((item.text, scope) for item in items))

    def search(self, scope, question, k):
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question) if word.lower() not in STOP)
        sql = "SELECT text FROM t WHERE t MATCH ? AND scope = ? ORDER BY rank LIMIT ?"
        return [row[0] for row in self.db.execute(sql, (words, scope, k))] if words else []

    def reopen(self):
        self.db.close()
        self.open()


class Lance(Peer):
    name = "LanceDB full text"

    def open(self):
        import lancedb

        self.db = lancedb.connect(str(self.folder / "lance"))
        names = self.db.list_tables().tables if hasattr(self.db.list_tables(), "tables") else self.db.table_names()
        self.table = self.db.open_table("t") if "t" in names else None
        self.indexed = self.table is not None

    def add(self, scope, items):
        rows = [{"text": item.text, "scope": scope} for item in items]
        if self.table is None:
            self.table = self.db.create_table("t", rows)
        else:
            self.table.add(rows)
        self.indexed = False

    def search(self, scope, question, k):
        if not self.indexed:
            self.table.create_fts_index("text", replace=True)
            self.indexed = True
        found = self.table.search(question, query_type="fts").where(f"scope = '{scope}'", prefilter=True).limit(k)
        return [row["text"] for row in found.to_list()]

    def reopen(self):
        self.open()


class Dense(Peer):
    """Finds by vectors: hashed ones where time is measured, so that it is the store's alone; MiniLM's where quality is."""

    dense = True

    def __init__(self, model=None):
        self.model = model or HashEmbedder(DIM)
        super().__init__()


class Chroma(Dense):
    name = "Chroma"

    def open(self):
        import chromadb
        from chromadb.config import Settings

        client = chromadb.PersistentClient(str(self.folder / "chroma"), settings=Settings(anonymized_telemetry=False))
        self.table = client.get_or_create_collection(
            "items", embedding_function=None, metadata={"hnsw:space": "cosine"}
        )
        self.count = self.table.count()

    def add(self, scope, items):
        for start in range(0, len(items), 1000):
            some = [item.text for item in items[start : start + 1000]]
            ids = [str(self.count + n) for n in range(len(some))]
            self.table.add(
                ids=ids, documents=some, embeddings=self.model.embed(some), metadatas=[{"scope": scope}] * len(some)
            )
            self.count += len(some)

    def search(self, scope, question, k):
        found = self.table.query(query_embeddings=self.model.embed([question]), n_results=k, where={"scope": scope})
        return found["documents"][0]

    def reopen(self):
        self.open()


class Txtai(Peer):
    """One index for all scopes: txtai filters by SQL on its own content."""

    name = "txtai keyword (BM25)"

    def open(self):
        from txtai import Embeddings

        self.index = Embeddings(keyword=True, content=True)
        self.started = False
        self.count = 0

    def add(self, scope, items):
        rows = [(self.count + n, {"text": item.text, "scope": scope}, None) for n, item in enumerate(items)]
        self.count += len(rows)
        (self.index.upsert if self.started else self.index.index)(rows)
        self.started = True

    def search(self, scope, question, k):
        quoted = re.sub(r"[^\w ]", " ", question)
        sql = f"select text from txtai where similar('{quoted}', 500) and scope = '{scope}' limit {k}"
        return [row["text"] for row in self.index.search(sql)]

    @property
    def nbytes(self):
        self.index.save(str(self.folder / "txtai"))
        return size(self.folder)


class Mem0(Dense):
    """mem0 in its own default store (Qdrant, embedded), texts as they are (infer=False): no language model is asked."""

    name = "mem0 (infer=False)"

    def open(self):
        os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(self.folder / "home")}
        os.environ.setdefault("OPENAI_API_KEY", "none")  # its constructor wants one; nothing is sent
        from mem0 import Memory as Mem0Memory

        store = {
            "collection_name": "a",
            "path": str(self.folder / "qdrant"),
            "embedding_model_dims": self.model.dim,
            "on_disk": True,
        }
        self.memory = Mem0Memory.from_config(
            {
                "vector_store": {"provider": "qdrant", "config": store},
                "history_db_path": str(self.folder / "history.db"),
            }
        )
        self.memory.embedding_model = self

    def embed(self, text, memory_action=None):
        return self.model.embed([text])[0].tolist()

    def embed_batch(self, texts, memory_action=None):
        return self.model.embed(texts).tolist()

    def add(self, scope, items):
        for item in items:
            self.memory.add(item.text, user_id=scope, infer=False)

    def search(self, scope, question, k):
        found = self.memory.search(question, filters={"user_id": scope}, top_k=k, threshold=0.0)
        return [row["memory"] for row in found["results"]]


PEERS = [Loci, LociBM25, FTS5, Lance, Chroma, Txtai, Mem0]


def vectors(texts):
    return np.asarray(HashEmbedder(DIM).embed(texts))
