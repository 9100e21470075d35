"""The tables of a store and the ladder that brings old files up to them.

Each rung is one SQL script, applied once, in one transaction with its `user_version`. A rung is never edited after
a release: a new one is added, and tests keep a file of every released version.

Everything a user cannot recreate is in `item` (text as given), `provenance`, `link`, `past`, `event` and `state`;
`posting` and `vector` are indexes that `loci doctor` rebuilds from `item`.
"""

from __future__ import annotations

APPLICATION_ID = 0x6C6F6369  # "loci"

_V1 = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE scope (
  id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE,
  items INTEGER NOT NULL DEFAULT 0,    -- rows in the lexical index, with their tokens: BM25 needs both
  tokens INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE item (
  id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again
  scope INTEGER NOT NULL REFERENCES scope (id),
  kind TEXT NOT NULL,
  text TEXT NOT NULL,
  at REAL, since REAL, until REAL,       -- happened; holds from; holds until (seconds since 1970, UTC)
  known REAL NOT NULL,                   -- became known
  changed REAL NOT NULL,                 -- since and until stand as they are since then; before: table past
  session TEXT, source TEXT,
  speaker TEXT, cues INTEGER NOT NULL DEFAULT 0,  -- read from the text: who speaks, and how (analysis.py);
  head TEXT,                             -- and the name of what it is about: a title, an entity, a fact
  value REAL NOT NULL DEFAULT 0, uses INTEGER NOT NULL DEFAULT 0,
  pinned INTEGER NOT NULL DEFAULT 0,
  meta TEXT NOT NULL DEFAULT '{}',       -- JSON
  gone REAL,                             -- forgotten then, erased after the restore window
  version INTEGER NOT NULL               -- the event that changed it last
) STRICT;
CREATE INDEX item_scope ON item (scope, id);
CREATE INDEX item_head ON item (scope, head) WHERE head IS NOT NULL;
CREATE INDEX item_gone ON item (gone) WHERE gone IS NOT NULL;

CREATE TABLE past (                      -- validity as it was believed in [known, ended)
  item INTEGER NOT NULL REFERENCES item (id) ON DELETE CASCADE,
  since REAL, until REAL, gone REAL, known REAL NOT NULL, ended REAL NOT NULL
) STRICT;
CREATE INDEX past_item ON past (item);

CREATE TABLE provenance (                -- item was derived from source
  item INTEGER NOT NULL REFERENCES item (id) ON DELETE CASCADE,
  source INTEGER NOT NULL REFERENCES item (id) ON DELETE CASCADE,
  PRIMARY KEY (item, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX provenance_source ON provenance (source);

CREATE TABLE link (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  src INTEGER NOT NULL REFERENCES item (id) ON DELETE CASCADE,
  rel TEXT NOT NULL,
  dst INTEGER NOT NULL REFERENCES item (id) ON DELETE CASCADE,
  weight REAL NOT NULL, since REAL, until REAL, known REAL NOT NULL, gone REAL
) STRICT;
CREATE INDEX link_src ON link (src);
CREATE INDEX link_dst ON link (dst);
CREATE TABLE link_source (
  link INTEGER NOT NULL REFERENCES link (id) ON DELETE CASCADE,
  source INTEGER NOT NULL REFERENCES item (id) ON DELETE CASCADE,
  PRIMARY KEY (link, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX link_source_source ON link_source (source);

CREATE TABLE posting (                   -- lexical index: entries are (id - 4096 * chunk, tf, length), uint16 each
  term TEXT NOT NULL, scope INTEGER NOT NULL, chunk INTEGER NOT NULL, entries BLOB NOT NULL,
  PRIMARY KEY (term, scope, chunk)
) STRICT, WITHOUT ROWID;

CREATE TABLE model (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, dim INTEGER NOT NULL, version TEXT NOT NULL,
  UNIQUE (name, dim, version)
) STRICT;
CREATE TABLE vector (                    -- float16, unit length
  id INTEGER PRIMARY KEY, model INTEGER NOT NULL REFERENCES model (id),
  item INTEGER NOT NULL REFERENCES item (id) ON DELETE CASCADE, data BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX vector_item ON vector (item, model);

CREATE TABLE event (                     -- change log and audit: ids first..last were touched
  seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, op TEXT NOT NULL,
  scope INTEGER, first INTEGER, last INTEGER, detail TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX event_first ON event (first);

CREATE TABLE asked (                     -- the store's own query log: consolidation is gated on it
  id INTEGER PRIMARY KEY AUTOINCREMENT, scope INTEGER NOT NULL, time REAL NOT NULL,
  query TEXT NOT NULL, hits TEXT NOT NULL, reward REAL
) STRICT;
CREATE INDEX asked_scope ON asked (scope, id);

CREATE TABLE state (                     -- what schemes learned
  scheme TEXT NOT NULL, name TEXT NOT NULL, scope INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (scheme, name, scope)
) STRICT, WITHOUT ROWID;

CREATE TABLE job (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, scope INTEGER, detail TEXT NOT NULL,
  done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL, error TEXT, created REAL NOT NULL, ended REAL
) STRICT;
"""

_V2 = """
CREATE TABLE token (                     -- who may do what over http: only the hash is kept
  hash TEXT PRIMARY KEY, name TEXT NOT NULL, scope TEXT NOT NULL, rights TEXT NOT NULL,
  created REAL NOT NULL, expires REAL, revoked REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE request (                   -- keys of calls that may be repeated, and the ids they gave
  scope INTEGER NOT NULL, key TEXT NOT NULL, time REAL NOT NULL, ids TEXT NOT NULL,
  PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_time ON request (time);
ALTER TABLE item ADD COLUMN principal TEXT;                    -- who said it
ALTER TABLE item ADD COLUMN trust INTEGER NOT NULL DEFAULT 1;  -- 0 untrusted, 1 ordinary, 2 the owner's word
ALTER TABLE item ADD COLUMN held INTEGER NOT NULL DEFAULT 0;   -- quarantined: gone, but not erased by time
CREATE INDEX item_principal ON item (principal) WHERE principal IS NOT NULL;
CREATE TABLE link_past (                 -- a link was forgotten in [gone, ended)
  link INTEGER NOT NULL REFERENCES link (id) ON DELETE CASCADE, gone REAL NOT NULL, ended REAL NOT NULL
) STRICT;
CREATE INDEX link_past_link ON link_past (link);
CREATE INDEX event_scope ON event (scope, seq);
"""

LADDER: tuple[str, ...] = (_V1, _V2)
VERSION = len(LADDER)
