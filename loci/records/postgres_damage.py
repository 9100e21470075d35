"""What can be broken in the schema of a PostgreSQL database that the server does not notice: guards, keys and indexes.

The wanted state is read off the scripts of postgres_schema.py, so nothing is written down twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg

from loci.records import postgres_schema as schema
from loci.records.database import Database

_SCRIPT = "\n".join(schema.LADDER)
_INDEX = re.compile(r"CREATE (?:UNIQUE )?INDEX (\w+) ON (\w+)")
_POINTS = re.compile(r"FOREIGN KEY \(tenant, (\w+)\) REFERENCES (\w+)")
_TABLE = re.compile(r"CREATE TABLE (\w+) \((.*?)\n?\);", re.DOTALL)


def damage(db: Database) -> Iterator[tuple[str, str]]:
    """(where, what): tables, row-level security, policies, keys and indexes that are missing, off or invalid."""
    there = _tables(db)
    for table in schema.TABLES:
        if table not in there:
            yield "table", f"loci.{table} is missing"
            continue
        enabled, forced = there[table]
        if not (enabled and forced):
            what = "off" if not enabled else "not forced on the owner"
            mend = f"ALTER TABLE loci.{table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
            yield "security", f"row-level security of {table} is {what}, tenants are not kept apart: {mend}"
    yield from _policies(db, [table for table in schema.TABLES if table in there])
    yield from _keys(db, there)
    yield from _indexes(db, there)


def _tables(db: Database) -> dict[str, tuple[bool, bool]]:
    sql = """SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
             WHERE relnamespace = 'loci'::regnamespace AND relkind IN ('r', 'p')"""
    return {name: (enabled, forced) for name, enabled, forced in db.execute(sql).fetchall()}


def _policies(db: Database, tables: list[str]) -> Iterator[tuple[str, str]]:
    sql = """SELECT tablename, policyname, permissive, qual, with_check FROM pg_policies WHERE schemaname = 'loci'"""
    found: dict[str, dict[str, tuple[str, str, str | None]]] = {}
    for table, name, permissive, qual, check in db.execute(sql).fetchall():
        found.setdefault(table, {})[name] = permissive, qual or "", check
    for table in tables:
        held = found.get(table, {})
        wanted = f"CREATE POLICY tenant ON loci.{table} as loci/records/postgres_schema.py writes it"
        if "tenant" not in held:
            yield "policy", f"the policy of {table} is missing, nothing can be read of it: {wanted}"
        for name, (permissive, qual, check) in held.items():
            if permissive == "PERMISSIVE" and not _by_tenant(qual, check):
                yield (
                    "policy",
                    f"policy {name} of {table} lets other tenants by: DROP POLICY {name} ON loci.{table}; {wanted}",
                )


def _by_tenant(qual: str, check: str | None) -> bool:
    return all("current_setting('loci.tenant'" in rule for rule in (qual, check) if rule is not None)


def _keys(db: Database, there: dict[str, tuple[bool, bool]]) -> Iterator[tuple[str, str]]:
    """Primary and foreign keys, counted: their names are the server's."""
    sql = """SELECT conrelid::regclass::text, contype::text, count(*), bool_and(convalidated) FROM pg_constraint
             WHERE connamespace = 'loci'::regnamespace AND contype IN ('p', 'f', 'u') GROUP BY 1, 2"""
    found = {(name.removeprefix("loci."), kind): (n, valid) for name, kind, n, valid in db.execute(sql).fetchall()}
    for table, columns in _TABLE.findall(_SCRIPT):
        for kind, word in (("p", "PRIMARY KEY"), ("f", "FOREIGN KEY"), ("u", "UNIQUE (")):
            wanted = columns.count(word)
            count, valid = found.get((table, kind), (0, True))
            if table in there and (count < wanted or not valid):
                state = f"has {count} of {wanted}" if count < wanted else "has one that is not validated among its"
                name = word.removesuffix(" (").lower()
                yield "key", f"{table} {state} {name} constraints: add it as loci/records/postgres_schema.py writes it"


def _indexes(db: Database, there: dict[str, tuple[bool, bool]]) -> Iterator[tuple[str, str]]:
    sql = """SELECT c.relname, i.indisvalid AND i.indisready FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
             WHERE c.relnamespace = 'loci'::regnamespace"""
    found = dict(db.execute(sql).fetchall())
    for name, table in _INDEX.findall(_SCRIPT):
        if table in there and name not in found:
            yield "index", f"{name} on {table} is missing: create it as loci/records/postgres_schema.py writes it"
    for name, valid in sorted(found.items()):
        if not valid:
            yield "index", f"{name} is not valid: REINDEX INDEX CONCURRENTLY loci.{name}"


def orphans(login: psycopg.Connection[Any], tenant: str) -> Iterator[tuple[str, str]]:
    """Rows of a tenant that point to rows that are not there. Its members never see them, so only who passes the guards looks."""
    role = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
    if not (login.execute(role).fetchone() or (False,))[0]:
        return
    for table, columns in _TABLE.findall(_SCRIPT):
        for column, parent in _POINTS.findall(columns):
            lost = f"""FROM loci.{table} AS x WHERE x.tenant = %s AND NOT EXISTS
                       (SELECT 1 FROM loci.{parent} AS y WHERE y.tenant = x.tenant AND y.id = x.{column})"""
            row = login.execute(f"SELECT count(*) {lost}", (tenant,)).fetchone()
            if row and row[0]:
                mend = " ".join(f"DELETE {lost}".replace("%s", "'" + tenant.replace("'", "''") + "'").split())
                yield (
                    "orphan",
                    f"{row[0]} rows of {table} point by {column} to a row of {parent} that is not there: {mend}",
                )
