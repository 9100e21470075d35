"""The tables of a store on PostgreSQL: those of schema.py, for many tenants, guarded row by row.

Every primary key begins with the tenant, and so does every foreign key and unique index: the rows of a tenant can live on
one node (Citus: distribute every table by `tenant`). The tenant stands in no statement of ours: a column default writes it and
row-level security reads by it, from the setting `loci.tenant` of the transaction. Three more (`loci.scope`, and the range of
paths below it from `loci.low` to `loci.high`) narrow what a transaction sees to the items at or under a scope. The functions at the end give the words of SQLite's dialect that the
shared statements use.
"""

from __future__ import annotations

_TENANT = "tenant TEXT COLLATE \"C\" NOT NULL DEFAULT current_setting('loci.tenant')"

_TABLES = f"""
CREATE TABLE counter (name TEXT NOT NULL, seq BIGINT NOT NULL, {_TENANT}, PRIMARY KEY (tenant, name));
CREATE FUNCTION reserve(what TEXT, n BIGINT) RETURNS BIGINT LANGUAGE sql SET search_path = loci AS $$
  INSERT INTO counter (name, seq) VALUES (what, n)
  ON CONFLICT (tenant, name) DO UPDATE SET seq = counter.seq + excluded.seq RETURNING seq - n + 1 $$;
CREATE DOMAIN blob AS BYTEA;

CREATE TABLE about (key TEXT COLLATE "C" NOT NULL, value TEXT NOT NULL, {_TENANT}, PRIMARY KEY (tenant, key));
CREATE TABLE scope (
  id BIGINT NOT NULL DEFAULT reserve('scope', 1), path TEXT COLLATE "C" NOT NULL,
  items BIGINT NOT NULL DEFAULT 0, tokens BIGINT NOT NULL DEFAULT 0, {_TENANT},
  PRIMARY KEY (tenant, id), UNIQUE (tenant, path)
);
CREATE TABLE item (
  id BIGINT NOT NULL, scope BIGINT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
  at FLOAT8, since FLOAT8, until FLOAT8, known FLOAT8 NOT NULL, changed FLOAT8 NOT NULL,
  session TEXT, source TEXT, speaker TEXT, cues BIGINT NOT NULL DEFAULT 0, head TEXT COLLATE "C",
  value FLOAT8 NOT NULL DEFAULT 0, uses BIGINT NOT NULL DEFAULT 0, pinned BIGINT NOT NULL DEFAULT 0,
  meta TEXT NOT NULL DEFAULT '{{}}', gone FLOAT8, version BIGINT NOT NULL,
  principal TEXT, trust BIGINT NOT NULL DEFAULT 1, held BIGINT NOT NULL DEFAULT 0, {_TENANT},
  PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, scope) REFERENCES scope
);
CREATE INDEX item_scope ON item (tenant, scope, id);
CREATE INDEX item_head ON item (tenant, scope, head) WHERE head IS NOT NULL;
CREATE INDEX item_gone ON item (tenant, gone) WHERE gone IS NOT NULL;
CREATE INDEX item_principal ON item (tenant, principal) WHERE principal IS NOT NULL;

CREATE TABLE past (
  item BIGINT NOT NULL, since FLOAT8, until FLOAT8, gone FLOAT8, known FLOAT8 NOT NULL, ended FLOAT8 NOT NULL,
  id BIGINT NOT NULL DEFAULT reserve('past', 1), {_TENANT},
  PRIMARY KEY (tenant, item, id), FOREIGN KEY (tenant, item) REFERENCES item ON DELETE CASCADE
);
CREATE TABLE provenance (
  item BIGINT NOT NULL, source BIGINT NOT NULL, {_TENANT}, PRIMARY KEY (tenant, item, source),
  FOREIGN KEY (tenant, item) REFERENCES item ON DELETE CASCADE,
  FOREIGN KEY (tenant, source) REFERENCES item ON DELETE CASCADE
);
CREATE INDEX provenance_source ON provenance (tenant, source);
CREATE TABLE link (
  id BIGINT NOT NULL DEFAULT reserve('link', 1), src BIGINT NOT NULL, rel TEXT NOT NULL, dst BIGINT NOT NULL,
  weight FLOAT8 NOT NULL, since FLOAT8, until FLOAT8, known FLOAT8 NOT NULL, gone FLOAT8, {_TENANT},
  PRIMARY KEY (tenant, id),
  FOREIGN KEY (tenant, src) REFERENCES item ON DELETE CASCADE,
  FOREIGN KEY (tenant, dst) REFERENCES item ON DELETE CASCADE
);
CREATE INDEX link_src ON link (tenant, src);
CREATE INDEX link_dst ON link (tenant, dst);
CREATE TABLE link_source (
  link BIGINT NOT NULL, source BIGINT NOT NULL, {_TENANT}, PRIMARY KEY (tenant, link, source),
  FOREIGN KEY (tenant, link) REFERENCES link ON DELETE CASCADE,
  FOREIGN KEY (tenant, source) REFERENCES item ON DELETE CASCADE
);
CREATE INDEX link_source_source ON link_source (tenant, source);
CREATE TABLE link_past (
  link BIGINT NOT NULL, gone FLOAT8 NOT NULL, ended FLOAT8 NOT NULL, id BIGINT NOT NULL DEFAULT reserve('link_past', 1),
  {_TENANT}, PRIMARY KEY (tenant, link, id), FOREIGN KEY (tenant, link) REFERENCES link ON DELETE CASCADE
);
CREATE TABLE posting (
  term TEXT COLLATE "C" NOT NULL, scope BIGINT NOT NULL, chunk BIGINT NOT NULL, entries BLOB NOT NULL, {_TENANT},
  PRIMARY KEY (tenant, scope, term, chunk)
);
ALTER TABLE posting ALTER entries SET STORAGE EXTERNAL;
CREATE TABLE model (
  id BIGINT NOT NULL DEFAULT reserve('model', 1), name TEXT NOT NULL, dim BIGINT NOT NULL, version TEXT NOT NULL,
  {_TENANT}, PRIMARY KEY (tenant, id), UNIQUE (tenant, name, dim, version)
);
CREATE TABLE vector (
  item BIGINT NOT NULL, model BIGINT NOT NULL, data halfvec NOT NULL, {_TENANT},
  PRIMARY KEY (tenant, item, model), FOREIGN KEY (tenant, model) REFERENCES model,
  FOREIGN KEY (tenant, item) REFERENCES item ON DELETE CASCADE
);
CREATE TABLE event (
  seq BIGINT NOT NULL DEFAULT reserve('event', 1), time FLOAT8 NOT NULL, op TEXT NOT NULL, scope BIGINT,
  first BIGINT, last BIGINT, detail TEXT NOT NULL DEFAULT '{{}}', {_TENANT}, PRIMARY KEY (tenant, seq)
);
CREATE INDEX event_first ON event (tenant, first);
CREATE INDEX event_scope ON event (tenant, scope, seq);
CREATE TABLE asked (
  id BIGINT NOT NULL DEFAULT reserve('asked', 1), scope BIGINT NOT NULL, time FLOAT8 NOT NULL, query TEXT NOT NULL,
  hits TEXT NOT NULL, reward FLOAT8, {_TENANT}, PRIMARY KEY (tenant, id)
);
CREATE INDEX asked_scope ON asked (tenant, scope, id);
CREATE TABLE state (
  scheme TEXT COLLATE "C" NOT NULL, name TEXT COLLATE "C" NOT NULL, scope BIGINT NOT NULL, data BYTEA NOT NULL, {_TENANT},
  PRIMARY KEY (tenant, scheme, name, scope)
);
CREATE TABLE job (
  id BIGINT NOT NULL DEFAULT reserve('job', 1), kind TEXT NOT NULL, scope BIGINT, detail TEXT NOT NULL,
  done BIGINT NOT NULL DEFAULT 0, total BIGINT NOT NULL, error TEXT, created FLOAT8 NOT NULL, ended FLOAT8, {_TENANT},
  PRIMARY KEY (tenant, id)
);
CREATE TABLE token (
  hash TEXT COLLATE "C" NOT NULL, name TEXT NOT NULL, scope TEXT NOT NULL, rights TEXT NOT NULL,
  created FLOAT8 NOT NULL, expires FLOAT8, revoked FLOAT8, {_TENANT}, PRIMARY KEY (tenant, hash)
);
CREATE TABLE request (
  scope BIGINT NOT NULL, key TEXT COLLATE "C" NOT NULL, time FLOAT8 NOT NULL, ids TEXT NOT NULL, {_TENANT},
  PRIMARY KEY (tenant, scope, key)
);
CREATE INDEX request_time ON request (tenant, time);
"""

_DIALECT = """
CREATE FUNCTION json_each(list TEXT) RETURNS TABLE (value BIGINT) LANGUAGE sql IMMUTABLE AS
  $$ SELECT CAST(x AS BIGINT) FROM json_array_elements_text(CAST(list AS JSON)) AS x $$;
CREATE FUNCTION length(v halfvec) RETURNS BIGINT LANGUAGE sql IMMUTABLE AS $$ SELECT 2 * vector_dims(v) $$;
CREATE FUNCTION unixepoch() RETURNS BIGINT LANGUAGE sql STABLE AS $$ SELECT CAST(extract(epoch FROM now()) AS BIGINT) $$;
"""

TABLES = (
    "counter", "about", "scope", "item", "past", "provenance", "link", "link_source", "link_past", "posting", "model",
    "vector", "event", "asked", "state", "job", "token", "request",
)  # fmt: skip

_MINE = "tenant = current_setting('loci.tenant')"
_SEEN = "scope IN (SELECT id FROM scope)"  # scopes are guarded themselves: those that this transaction sees
_BY_ITEM = "EXISTS (SELECT 1 FROM item WHERE item.tenant = {0}.tenant AND item.id = {0}.{1})"
_INSIDE = """(path = current_setting('loci.scope')
              OR (path >= current_setting('loci.low') AND path < current_setting('loci.high')))"""  # two ranges of an index
# What a transaction sees of a table, beyond its tenant. `event` holds ids and times, no text; caches follow all of it.
_GUARDS = {
    "scope": _INSIDE,
    **dict.fromkeys(("item", "posting", "asked", "state"), _SEEN),
    "job": f"scope IS NULL OR {_SEEN}",
    "request": _SEEN,
    "past": _BY_ITEM.format("past", "item"), "provenance": _BY_ITEM.format("provenance", "item"),
    "link": _BY_ITEM.format("link", "src"), "vector": _BY_ITEM.format("vector", "item"),
    "link_source": _BY_ITEM.format("link_source", "source"),
}  # fmt: skip

_SECURITY = "\n".join(
    f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY; "
    f"CREATE POLICY tenant ON {table} USING ({_MINE} AND ({_GUARDS.get(table, 'true')}));"
    for table in TABLES
)

LADDER: tuple[str, ...] = (_TABLES + _DIALECT + _SECURITY,)
VERSION = len(LADDER)
