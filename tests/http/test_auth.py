"""Who may do what: every route against every kind of token, scopes that cannot be left, and 50 tenants side by side."""

from __future__ import annotations

import contextlib
import io
import threading
from dataclasses import replace

import httpx2
import pytest

from loci.app.http import auth, gate
from loci.app.http.app import create
from loci.app.http.auth import Access
from loci.core.clock import FixedClock
from loci.core.errors import Denied, UnknownItem
from loci.records import Item, Memory, exchange, tokens
from loci.records.checks import START
from loci.records.scope import ROOT
from tests.http.serving import running

pytestmark = pytest.mark.enable_socket

PUBLIC = {"/health", "/ready", "/docs", "/openapi.json"}
NEEDED = {  # what a body must hold beyond a scope
    "/v1/add": {"what": "x"}, "/v1/recall": {"query": "x"}, "/v1/get": {"ids": []}, "/v1/links": {"ids": []},
    "/v1/link": {"src": 1, "rel": "x", "dst": 1}, "/v1/learn": {"query": "x", "hits": [], "reward": 0.0},
    "/v1/contradictions": {"id": 1}, "/v1/history": {"id": 1}, "/v1/forget": {"ids": []}, "/v1/restore": {"ids": []},
    "/v1/quarantine": {"principal": "x"}, "/v1/release": {"ids": []}, "/v1/undo": {"principal": "x"},
    "/v1/verify_forgotten": {"id": 1}, "/v1/diff": {"before": 0, "after": 1}, "/v1/wipe": {"store": "not this one"},
}  # fmt: skip
WITHOUT_SCOPE = {"/v1/verify_forgotten", "/v1/store", "/metrics"}


def routes(app):
    """Every path and method that the app has, from the routers themselves, not from any list of ours."""
    found = []
    todo = list(app.routes)
    while todo:
        route = todo.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            todo += inner.routes
        elif hasattr(route, "methods"):
            found += [(route.path, method) for method in route.methods if method != "HEAD"]
    return sorted(set(found))


def call(http, path, method, secret, **scope):
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    if method == "GET" or path == "/v1/import":
        return http.request(
            method, path, params=scope, headers=headers, content=b'{"text": "x"}\n' if method == "POST" else None
        )
    return http.request(method, path, json=NEEDED.get(path, {}) | scope, headers=headers)


@pytest.fixture
def office(tmp_path):
    """A served memory with tokens of every kind: http client, app, secrets by kind."""
    clock = FixedClock(START)
    with Memory(tmp_path / "m.db", clock=clock) as memory:
        app = create(memory, open_access=True)
        made = {
            right: tokens.create(memory, right, scope="acme", rights=[right])[0] for right in tokens.RIGHTS
        } | {
            "all": tokens.create(memory, "all", scope="acme", rights=tokens.RIGHTS)[0],
            "root": tokens.create(memory, "root", rights=tokens.RIGHTS)[0],
            "expired": tokens.create(memory, "expired", rights=tokens.RIGHTS, lasts=5)[0],
            "revoked": tokens.create(memory, "revoked", rights=tokens.RIGHTS)[0],
            "unknown": "loci_" + "x" * 43,
        }  # fmt: skip
        tokens.revoke(memory, "revoked")
        clock.tick(10)
        with (
            running(memory, app) as url,
            httpx2.Client(base_url=url, trust_env=False, verify=False, timeout=30) as http,
        ):
            yield http, app, made


def test_every_route_is_guarded(office):
    """The matrix is made from the routes, so a new one is in it, and needs a right, or this fails."""
    http, app, made = office
    found = routes(app)
    assert {path for path, _ in found} == set(app.state.rules) | {"/openapi.json"}
    assert len(found) > 20
    for path, method in found:
        if path in PUBLIC:
            assert http.request(method, path).status_code == 200, path
            continue
        rule = app.state.rules[path]
        assert rule.right in tokens.RIGHTS, path
        for kind in (None, "unknown", "expired", "revoked"):
            answer = call(http, path, method, None if kind is None else made[kind])
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "Denied"), (path, kind)
            assert answer.headers["www-authenticate"].startswith("Bearer"), path
        for right in tokens.RIGHTS:
            answer = call(http, path, method, made[right])
            if right != rule.right or rule.whole:
                assert (answer.status_code, answer.json()["error"]["type"]) == (403, "Denied"), (path, right)
            else:
                assert answer.status_code not in (401, 403), (path, right, answer.text)
        if not rule.whole and path not in WITHOUT_SCOPE:
            texts = set()
            for foreign in ("beta", "acm", "acme2", "/"):
                answer = call(http, path, method, made["all"], scope=foreign)
                assert (answer.status_code, answer.json()["error"]["type"]) == (403, "Denied"), (path, foreign)
                texts.add(answer.text)
            assert len(texts) == 1, f"{path} tells one foreign scope from another: {texts}"
        assert call(http, path, method, made["root"]).status_code not in (401, 403), path


def test_a_foreign_scope_that_exists_answers_like_one_that_does_not(office):
    http, _, made = office
    call(http, "/v1/add", "POST", made["root"], scope="beta/secret")
    answers = {call(http, "/v1/recall", "POST", made["all"], scope=of).text for of in ("beta/secret", "beta/nothing")}
    assert len(answers) == 1


def test_bearer_is_the_only_way_in(office):
    http, _, made = office
    for header in (
        made["root"],
        f"Basic {made['root']}",
        "Bearer",
        f"Bearer {made['root'][:-1]}",
        "Bearer " + "x" * 9000,
    ):
        assert http.post("/v1/count", json={}, headers={"authorization": header}).status_code == 401, header[:20]
    assert http.post("/v1/count", json={}, headers={"authorization": f"bearer {made['root']}"}).status_code == 200
    assert http.get("/v1/store", params={"token": made["root"]}).status_code == 401


def test_only_a_hash_is_kept(tmp_path):
    with Memory(tmp_path / "m.db") as memory:
        secret, token = tokens.create(memory, "ana", scope="/acme/ana/", rights=("write", "read"))
        assert tokens.find(memory, secret) == token
        assert (token.scope, token.rights) == ("acme/ana", ("read", "write"))
        memory.flush()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in held
    assert secret.removeprefix("loci_").encode() not in held
    assert token.hash.encode() in held


def test_tokens_that_make_no_sense_are_refused(tmp_path):
    with Memory(tmp_path / "m.db") as memory:
        tokens.create(memory, "ana")
        for wrong in ({"name": "ana"}, {"name": " "}, {"name": "b", "rights": ()}, {"name": "b", "rights": ("fly",)},
                      {"name": "b", "lasts": 0}, {"name": "b", "scope": "../x"}):  # fmt: skip
            with pytest.raises(ValueError):
                tokens.create(memory, **wrong)
        assert len(tokens.listed(memory)) == 1
        (ended,) = tokens.revoke(memory, tokens.listed(memory)[0].id)
        assert ended.name == "ana"
        with pytest.raises(ValueError, match="no token"):
            tokens.revoke(memory, "ana")
        tokens.create(memory, "ana")  # the name is free again


def test_revoking_elsewhere_takes_effect_at_once(tmp_path):
    with Memory(tmp_path / "m.db") as memory, Memory(tmp_path / "m.db") as elsewhere, running(memory) as url:
        secret, _ = tokens.create(elsewhere, "ana")
        with Memory(url, token=secret) as remote:
            assert remote.count() == 0
            tokens.revoke(elsewhere, "ana")
            with pytest.raises(Denied, match="revoked"):
                remote.count()
        with Memory(url) as nobody, pytest.raises(Denied):  # the last token is gone: closed, not open again
            nobody.count()


def test_an_open_server_closes_with_the_first_token(tmp_path):
    with Memory(tmp_path / "m.db") as memory, running(memory) as url, Memory(url) as remote:
        assert remote.add("a kitten") == [1]
        secret, _ = tokens.create(memory, "ana")
        with pytest.raises(Denied):
            remote.count()
        with Memory(url, token=secret) as known:
            assert known.count() == 1


def test_browsers_sent_by_other_sites_are_refused(url):
    bad = ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
           {"host": "evil.example"}, {"host": "127.0.0.1.evil.example:80"}, {"host": "[::1"})  # fmt: skip
    with httpx2.Client(base_url=url, trust_env=False, verify=False) as http:
        for headers in bad:
            for path, body in (("/v1/add", {"what": "x"}), ("/v1/count", {})):
                assert http.post(path, json=body, headers=headers).status_code == 403, headers
            assert http.get("/v1/export", headers=headers).status_code == 403, headers
        assert http.post("/v1/count", json={}, headers={"origin": url}).json() == {"count": 0}
        assert http.post("/v1/count", json={}, headers={"host": "localhost:1"}).json() == {"count": 0}
        preflight = http.options(
            "/v1/add", headers={"origin": "http://evil.example", "access-control-request-method": "POST"}
        )
        assert preflight.status_code == 403
        assert not [name for name in preflight.headers if name.startswith("access-control")]


PATHS = (
    "../beta", "acme/../beta", "acme/..", "acme/./x", ".", "..", "//", "acme//x", "acme/%2e%2e/beta", "%2e%2e/beta", "acme\\..\\beta",
    "acme/\x00", "acme/ ", "ａcme", "acme\u2215beta", "acme\u200b", "ACME", "acme%2fbeta", "acme*", "%", "_cme", "a" * 2000,
    "acme' OR '1'='1", "\ud800", "acme/\u2024\u2024/beta",
)  # fmt: skip


def test_no_path_leaves_the_scope(office):
    """Whatever is given as a scope: refused, or kept and seen under the token's own scope, and beta sees nothing new."""
    http, _, made = office
    call(http, "/v1/add", "POST", made["root"], scope="beta", what="the beta secret")
    for path in PATHS:
        for verb, body in (("add", {"what": "trick"}), ("recall", {"query": "beta secret"}), ("items", {})):
            content = __import__("json").dumps(body | {"scope": path}).encode()
            headers = {"authorization": f"Bearer {made['all']}", "content-type": "application/json"}
            answer = http.post(f"/v1/{verb}", content=content, headers=headers)
            assert answer.status_code in (200, 403, 422), (path, answer.text)
            assert "the beta secret" not in answer.text, path
        assert http.get("/v1/export", params={"scope": path.encode("utf-8", "replace").decode()},
                        headers={"authorization": f"Bearer {made['all']}"}).status_code in (200, 403, 422)  # fmt: skip
    items = call(http, "/v1/items", "POST", made["root"], scope="/").json()["items"]
    assert {item["scope"] for item in items if item["text"] == "trick"} <= {
        item["scope"] for item in items if item["scope"].startswith("acme/")
    }
    assert [item["text"] for item in items if item["scope"].split("/")[0] == "beta"] == ["the beta secret"]


def test_trust_cannot_be_claimed(office):
    http, _, made = office
    for body in (
        {"what": "x", "trust": "owner"},
        {"what": {"text": "x", "trust": 2}},
        {"what": ["x", {"text": "x", "trust": "owner"}]},
    ):
        assert http.post("/v1/add", json=body, headers={"authorization": f"Bearer {made['write']}"}).status_code == 403
    lines = http.post(
        "/v1/import", content=b'{"text": "x", "trust": 2}\n', headers={"authorization": f"Bearer {made['write']}"}
    )
    assert lines.json()["error"]["type"] == "Denied"
    assert call(http, "/v1/count", "POST", made["root"]).json() == {"count": 0}
    assert (
        http.post(
            "/v1/add", json={"what": "x", "trust": "untrusted"}, headers={"authorization": f"Bearer {made['write']}"}
        ).status_code
        == 200
    )


def test_verifying_tells_nothing_of_others(office):
    http, _, made = office
    call(http, "/v1/add", "POST", made["root"], scope="beta", what="the beta secret")
    mine = call(http, "/v1/add", "POST", made["write"], what="mine, to be erased").json()["ids"][0]
    foreign = call(http, "/v1/verify_forgotten", "POST", made["forget"], id=1)
    nobody = call(http, "/v1/verify_forgotten", "POST", made["forget"], id=99)
    assert foreign.status_code == nobody.status_code == 404
    assert foreign.json()["error"]["message"].replace("[1]", "[99]") == nobody.json()["error"]["message"]
    assert call(http, "/v1/verify_forgotten", "POST", made["all"], id=mine, text="the beta secret").status_code == 403
    assert call(http, "/v1/forget", "POST", made["forget"], ids=[mine], erase=True).json()["ids"] == [mine]
    assert call(http, "/v1/verify_forgotten", "POST", made["forget"], id=mine).json()["clean"] is True


# --- fifty tenants --------------------------------------------------------------------------------------------------

TENANTS = 50
SAID = (
    "we decided to buy the house",
    "the code of the door is 4711",
    "Ana adopted a kitten",
    "the code of the door is 4712",
)


def isolation(url, secrets):
    """Every tenant writes the same sentences at the same time; then nobody may see, touch or count another's."""
    ids = {}

    def write(name):
        with contextlib.suppress(UnknownItem), Memory(url, token=secrets[name]) as remote:
            some = remote.add([f"{text}, says {name}" for text in SAID], session="talk", once="the same key")
            remote.add(Item(text=f"derived by {name}", kind="fact", sources=tuple(some[:2])))
            remote.link(some[0], "then", some[1])
            remote.learn(remote.recall("what is the code of the door?", 2), 1.0)
            ids[name] = some

    threads = [threading.Thread(target=write, args=(name,)) for name in secrets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == len(secrets), "a tenant could not write"
    assert len({id_ for some in ids.values() for id_ in some}) == len(SAID) * len(secrets)
    names = list(secrets)
    for place, name in enumerate(names):
        other = names[(place + 1) % len(names)]
        with Memory(url, token=secrets[name]) as remote:
            _sees_only_its_own(remote, name)
            if place % 7 == 0:
                _reaches_only_its_own(remote, name, list(ids[other]))


def _sees_only_its_own(remote, name):
    out = io.StringIO()
    remote.export(out, scope=remote.scope)
    items = remote.items()
    seen = [item.text for item in items] + [hit.item.text for query in SAID for hit in remote.recall(query, 50)]
    assert len(items) == remote.count() == len(SAID) + 1, f"{name} sees {len(items)} items"
    assert all(name in text.split() for text in seen), f"{name} sees {[t for t in seen if name not in t.split()][:3]}"
    mine = {item.id for item in items}
    assert {end for link in remote.links(sorted(mine)) for end in (link.src, link.dst)} <= mine
    assert all(f"tenant{n}" not in out.getvalue() for n in range(TENANTS) if f"tenant{n}" not in name), (
        "the export tells of others"
    )
    assert {job.scope for job in remote.jobs()} <= {f"org/{name}"}
    assert {item.id for item in remote.diff(0, "2999-01-01").added} == mine


def _reaches_only_its_own(remote, name, foreign):
    for what in (remote.get, remote.links, remote.forget, remote.restore, lambda ids: remote.history(ids[0]),
                 lambda ids: remote.contradictions(ids[0]), lambda ids: remote.link(ids[0], "x", ids[1]),
                 lambda ids: remote.add("x", supersedes=ids), lambda ids: remote.add(Item(text="x", sources=tuple(ids))),
                 lambda ids: remote.verify_forgotten(ids[0])):  # fmt: skip
        with contextlib.suppress(UnknownItem):
            found = what(foreign)
            assert found == [], f"{name} reached {found}"
    assert remote.count() == len(SAID) + 1, "a refused call changed something"


def tenants(memory, count):
    return {
        f"tenant{n}": tokens.create(memory, f"tenant{n}", scope=f"org/tenant{n}", rights=tokens.RIGHTS)[0]
        for n in range(count)
    }


def test_fifty_tenants_never_see_each_other(tmp_path):
    with Memory(tmp_path / "m.db") as memory:
        secrets = tenants(memory, TENANTS)
        with running(memory) as url:
            isolation(url, secrets)
        assert memory.count(scope="org") == TENANTS * (len(SAID) + 1)


@pytest.mark.parametrize("broken", ["scope", "root", "key"])
def test_a_server_that_mixes_tenants_is_caught(tmp_path, monkeypatch, broken):
    """Broken twins: one ignores the token's scope, one lets every token see all, one keeps keys for all tenants together."""
    if broken == "scope":
        monkeypatch.setattr(Access, "at", lambda self, scope: "org")
    elif broken == "root":
        monkeypatch.setattr(
            gate, "admit", lambda *args, **given: replace(auth.admit(*args, **given), scope=ROOT, default=ROOT)
        )
    with Memory(tmp_path / "m.db") as memory:
        if broken == "key":
            plain = memory.add

            def add(what, **given):
                place = given["scope"]
                for item in [Item(text=one) if isinstance(one, str) else one for one in what]:
                    object.__setattr__(item, "scope", place)
                return plain(what, **{**given, "scope": "org"})

            monkeypatch.setattr(memory, "add", add)
        secrets = tenants(memory, 3)
        with running(memory) as url, pytest.raises(AssertionError):
            isolation(url, secrets)


def test_an_export_can_be_given_back_to_its_tenant_alone(tmp_path):
    """A tenant's own export, imported by another tenant, lands under the other's scope and names nothing of the first."""
    with Memory(tmp_path / "m.db") as memory:
        secrets = tenants(memory, 2)
        with (
            running(memory) as url,
            Memory(url, token=secrets["tenant0"]) as zero,
            Memory(url, token=secrets["tenant1"]) as one,
        ):
            zero.add("a kitten of zero")
            with (tmp_path / "zero.jsonl").open("w") as file:
                zero.export(file, scope="org/tenant0")
            assert one.load(tmp_path / "zero.jsonl") == 1
            assert {item.scope for item in one.items()} == {"org/tenant1/org/tenant0"}
            assert zero.count() == 1
        assert exchange.export(memory, io.StringIO()) > 4
