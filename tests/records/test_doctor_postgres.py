"""The doctor on PostgreSQL: what the server's owner breaks by raw SQL is found, said with its cure, and the cure cures."""

import re

import pytest

from loci import Memory
from loci.core.clock import FixedClock
from loci.records import doctor
from tests import stores

psycopg = pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def database():
    """A database of its own on the server: others must not see what is broken here."""
    with psycopg.connect(stores.server(), autocommit=True) as login:
        login.execute("CREATE DATABASE broken")
    yield stores.server().replace("/postgres?", "/broken?")
    with psycopg.connect(stores.server(), autocommit=True) as login:
        login.execute("DROP DATABASE broken WITH (FORCE)")


@pytest.fixture
def owner(database):
    with psycopg.connect(database, autocommit=True) as login:
        yield login


@pytest.fixture
def url(database, request):
    place = f"{database}&tenant={abs(hash(request.node.name))}"
    with Memory(place, clock=FixedClock(1000.0), embedder="hash") as memory:
        a, b = memory.add(["Ana: I adopted a kitten", "Bo: I sail a boat"], scope="s")
        memory.link(a, "near", b, scope="s")
        memory.recall("kitten", scope="s")
        memory.flush()
    assert doctor.examine(place) == []
    return place


def found(url):
    return [(finding.where, finding.mendable) for finding in doctor.examine(url)]


def tenant_of(url):
    return url.rsplit("tenant=", 1)[1]


@pytest.mark.parametrize(
    ("breaks", "where", "says"),
    [
        ("ALTER TABLE loci.item DISABLE ROW LEVEL SECURITY", "security", "row-level security of item is off"),
        ("ALTER TABLE loci.past NO FORCE ROW LEVEL SECURITY", "security", "not forced on the owner"),
        ("DROP POLICY tenant ON loci.link", "policy", "the policy of link is missing"),
        ("CREATE POLICY wide ON loci.item USING (true)", "policy", "policy wide of item lets other tenants by"),
        ("DROP INDEX loci.item_scope", "index", "item_scope on item is missing"),
        ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'loci.link_src'::regclass", "index", "link_src is not valid"),
        ("ALTER TABLE loci.provenance DROP CONSTRAINT provenance_tenant_source_fkey", "key", "provenance has 1 of 2 foreign key"),
        ("ALTER TABLE loci.asked DROP CONSTRAINT asked_pkey", "key", "asked has 0 of 1 primary key"),
        ("ALTER TABLE loci.token RENAME TO gone", "table", "loci.token is missing"),
    ],
)  # fmt: skip
def test_a_schema_that_was_tampered_with(breaks, where, says, url, owner):
    cures = {
        "ALTER TABLE loci.item DISABLE": "ALTER TABLE loci.item ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE loci.past NO": "ALTER TABLE loci.past FORCE ROW LEVEL SECURITY",
        "DROP POLICY tenant": """CREATE POLICY tenant ON loci.link USING (tenant = current_setting('loci.tenant') AND
            EXISTS (SELECT 1 FROM loci.item WHERE item.tenant = link.tenant AND item.id = link.src))""",
        "CREATE POLICY wide": "DROP POLICY wide ON loci.item",
        "DROP INDEX": "CREATE INDEX item_scope ON loci.item (tenant, scope, id)",
        "UPDATE pg_index": "REINDEX INDEX loci.link_src",
        "ALTER TABLE loci.provenance": """ALTER TABLE loci.provenance ADD FOREIGN KEY (tenant, source)
            REFERENCES loci.item ON DELETE CASCADE""",
        "ALTER TABLE loci.asked": "ALTER TABLE loci.asked ADD PRIMARY KEY (tenant, id)",
        "ALTER TABLE loci.token": "ALTER TABLE loci.gone RENAME TO token",
    }  # fmt: skip
    owner.execute(breaks)
    try:
        findings = [finding for finding in doctor.examine(url) if finding.where == where]
        assert any(says in str(finding) for finding in findings), findings
        assert all(not finding.mendable and "as the owner of the schema" in str(finding) for finding in findings)
    finally:
        owner.execute(next(cure for start, cure in cures.items() if breaks.startswith(start)))
    assert doctor.examine(url) == []


@pytest.mark.parametrize("table", ["item", "link", "event", "asked", "scope", "model"])
def test_a_counter_that_fell_behind(table, url, owner):
    owner.execute("UPDATE loci.counter SET seq = 0 WHERE tenant = %s AND name = %s", (tenant_of(url), table))
    assert found(url) == [("counter", True)]
    doctor.repair(url)
    assert doctor.examine(url) == []
    with Memory(url) as memory:
        memory.add("new", scope="other")
        assert memory.count(scope="/") == 3


def test_orphans_that_no_member_sees(url, owner):
    owner.execute("SET session_replication_role = replica")  # keys are not checked
    owner.execute("DELETE FROM loci.item WHERE tenant = %s AND id = 1", (tenant_of(url),))
    owner.execute("RESET session_replication_role")
    findings = [finding for finding in doctor.examine(url) if finding.where == "orphan"]
    assert {re.search(r"rows of (\w+)", finding.what)[1] for finding in findings} == {"link", "vector"}
    for finding in findings:
        owner.execute(re.search(r"DELETE .*", finding.what)[0])  # the cure that was named
    doctor.repair(url)
    assert doctor.examine(url) == []


def test_index_drift_is_found_and_mended(url, owner):
    owner.execute("DELETE FROM loci.posting WHERE tenant = %s AND term LIKE 'kitten%%'", (tenant_of(url),))
    assert found(url) == [("posting", True)]
    with Memory(url) as memory:
        assert "kitten" not in " ".join(hit.item.text for hit in memory.recall("kitten", scope="s"))
    doctor.repair(url)
    assert doctor.examine(url) == []
    with Memory(url) as memory:
        assert "kitten" in memory.recall("kitten", 1, scope="s")[0].item.text


def test_a_tenant_s_doctor_looks_at_no_other(url, database, owner):
    other = f"{database}&tenant=other"
    with Memory(other) as memory:
        memory.add("x")
    owner.execute("DELETE FROM loci.posting WHERE tenant = 'other'")
    assert doctor.examine(url) == []
    assert found(other) == [("posting", True)]
    doctor.repair(other)
