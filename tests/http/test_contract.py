"""The OpenAPI document says what the server does: every answer and every error fits it; figures and spans tell no secrets."""

from __future__ import annotations

import json
import logging
import re

import httpx2
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loci.app.http.app import create
from loci.app.http.errors import answered
from loci.app.http.limits import Limits
from loci.core import errors
from loci.core.errors import LociError
from loci.records import Memory, tokens
from loci.records.calls import VERBS
from loci.records.requests import Patience
from tests.http.serving import running

pytestmark = pytest.mark.enable_socket


def fits(document, answer, path, method):
    """Check an answer against the document, with a validator that is not ours."""
    operation = document["paths"][path][method.lower()]
    said = operation["responses"].get(str(answer.status_code))
    assert said is not None, f"{method} {path} answers {answer.status_code}, which the document does not know"
    schema = said["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(document | schema).validate(answer.json())


def test_the_document_is_complete():
    with Memory(":memory:") as memory:
        document = create(memory).openapi()
    assert document["openapi"].startswith("3.1")
    assert {path.removeprefix("/v1/") for path in document["paths"] if path.startswith("/v1/")} == {
        *VERBS,
        "import",
        "export",
        "store",
    }
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert operation["operationId"], path
            if path.startswith("/v1/"):
                assert {"400", "401", "403", "404", "409", "413", "422", "429", "500", "503", "507"} <= set(
                    operation["responses"]
                ), path
                assert operation["security"] == [{"token": []}], path
                for status, response in operation["responses"].items():
                    if status >= "400":
                        assert response["content"]["application/json"]["schema"] == {
                            "$ref": "#/components/schemas/ErrorAnswer"
                        }, path
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description") or name == "JsonValue", f"{name} is not described"


def test_every_answer_fits_the_document(client, memory):
    document = client.get("/openapi.json").json()
    ids = client.post(
        "/v1/add",
        json={"what": ["Ana: I work at the bakery.", {"text": "Bo: hello", "meta": {"a": [1]}}], "scope": "a"},
    ).json()["ids"]
    new = client.post(
        "/v1/add", json={"what": "Ana: I work at the museum.", "scope": "a", "supersedes": ids[:1]}
    ).json()["ids"]
    hits = client.post("/v1/recall", json={"query": "museum", "scope": "a"}).json()
    praise = {key: hits[key] for key in ("query", "scope", "known", "threshold", "error")}
    praise["hits"] = [{"id": hit["item"]["id"], "score": hit["score"], "why": hit["why"]} for hit in hits["hits"]]
    calls = [
        ("add", {"what": "x"}), ("add", {}), ("recall", {"query": "museum", "scope": "a"}), ("recall", {"query": 5}), ("get", {"ids": ids, "scope": "a"}),
        ("get", {"ids": [99]}), ("items", {"scope": "/"}), ("items", {"as_of": "2020-01-01"}), ("link", {"src": ids[0], "rel": "r", "dst": new[0], "scope": "a"}),
        ("links", {"ids": ids, "scope": "a"}), ("count", {}), ("learn", praise | {"reward": 1.0}), ("learn", praise | {"reward": 3.0}),
        ("contradictions", {"id": new[0], "scope": "a"}), ("history", {"id": ids[0], "scope": "a"}), ("diff", {"before": 0, "after": "2999-01-01", "scope": "a"}),
        ("jobs", {}), ("work", {}), ("embed", {}), ("flush", {}), ("consolidate", {"scope": "a", "budget": "1GB"}), ("consolidate", {"budget": "a lot"}),
        ("forget", {"ids": ids[1], "scope": "a"}), ("restore", {"ids": ids[1:], "scope": "a"}), ("forget", {"ids": ids[1], "scope": "a", "erase": True}),
        ("add", {"what": "spam", "principal": "web:x", "source": "page", "trust": "untrusted"}), ("quarantine", {"principal": "web:x"}),
        ("quarantined", {}), ("quarantine", {}), ("release", {"ids": [ids[0]]}), ("undo", {"source": "page"}), ("undo", {}),
        ("verify_forgotten", {"id": ids[1]}), ("erase", {"window": 0.0}), ("wipe", {"store": "no"}), ("wipe", {"store": memory.name}),
    ]  # fmt: skip
    assert {verb for verb, _ in calls} == set(VERBS)
    for verb, body in calls:
        answer = client.post(f"/v1/{verb}", json=body)
        fits(document, answer, f"/v1/{verb}", "POST")
    for path in ("/health", "/ready", "/v1/store"):
        fits(document, client.get(path), path, "GET")
    assert client.get("/v1/store").json()["name"] == memory.name


def test_what_is_not_there(client):
    for method, path, status in (("GET", "/v1/recall", 405), ("POST", "/v1/nothing", 404), ("GET", "/", 404), ("GET", "/v1/../docs", 200),
                                 ("POST", "/v1/recall/", 404), ("POST", "//v1/recall", 404), ("DELETE", "/v1/forget", 405)):  # fmt: skip
        answer = client.request(method, path)
        assert answer.status_code == status, path
        if status >= 400:
            assert answer.json()["error"]["message"]


def leaves(kind):
    return [kind, *(leaf for below in kind.__subclasses__() for leaf in leaves(below))]


@pytest.mark.parametrize("kind", [*leaves(LociError), ValueError, TypeError], ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_crosses_the_wire(kind):
    """Each is answered with a status of its own meaning and comes back as itself."""
    if kind.__module__ != errors.__name__ and issubclass(kind, LociError):
        pytest.skip("an error of a test")
    made = (
        kind("what, what was expected, what to do", needed=2, limit=1)
        if kind is errors.BudgetExceeded
        else kind("what, what was expected, what to do")
    )
    answer = answered(made)
    assert answer.status_code >= 400
    assert (answer.status_code == 503) == ("retry-after" in answer.headers)
    back = Patience("http://x", 0).error(answer.status_code, json.loads(answer.body))
    assert (type(back), str(back)) == (kind, str(made))
    if kind is errors.BudgetExceeded:
        assert (back.needed, back.limit) == (2, 1)


def test_what_nobody_foresaw_is_logged_and_not_told(memory, monkeypatch, caplog):
    def fails(**_):
        raise ZeroDivisionError("the secret inside")

    monkeypatch.setattr(memory, "count", fails)
    with running(memory) as url, caplog.at_level(logging.ERROR, "loci.http"):
        answer = httpx2.post(f"{url}/v1/count", json={}, trust_env=False, verify=False)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "InternalError")
    assert "secret" not in answer.text
    assert "the secret inside" in caplog.text


def test_a_store_that_fails_is_not_ready(tmp_path):
    memory = Memory(tmp_path / "m.db")
    with running(memory) as url:
        assert httpx2.get(f"{url}/ready", trust_env=False, verify=False).status_code == 200
        memory.close()
        answer = httpx2.get(f"{url}/ready", trust_env=False, verify=False)
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "ClosedError")
        assert httpx2.get(f"{url}/health", trust_env=False, verify=False).json() == {"ok": True}


def figures(client, **options):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics", **options).text)
        for sample in family.samples
    }


def test_figures_count_and_tell_nothing(client):
    client.post("/v1/add", json={"what": ["a kitten", "a dog"], "scope": "secret/place"})
    client.post("/v1/recall", json={"query": "kitten", "scope": "secret/place"})
    client.post("/v1/recall", json={"query": "zebra", "scope": "nowhere"})
    client.post("/v1/recall", json={})
    client.post("/v1/import", content=b'{"text": "x"}\n')
    client.get("/what/ever/is/asked")
    found = figures(client)
    assert found["loci_items_added_total",] == 3
    assert found["loci_recalls_total",] == 2
    assert found["loci_abstentions_total",] >= 1
    assert found["loci_requests_total", ("route", "/v1/recall"), ("status", "200")] == 2
    assert found["loci_requests_total", ("route", "/v1/recall"), ("status", "422")] == 1
    assert found["loci_requests_total", ("route", "other"), ("status", "404")] == 1
    assert found["loci_request_seconds_count", ("route", "/v1/recall")] == 3
    text = client.get("/metrics").text
    assert not re.search("secret|kitten|zebra|ever", text)


def test_figures_need_an_admin_unless_they_are_open(tmp_path):
    with Memory(tmp_path / "m.db") as memory:
        secret, _ = tokens.create(memory, "admin", rights=("admin",))
        for opened in (False, True):
            with (
                running(memory, open_metrics=opened) as url,
                httpx2.Client(base_url=url, trust_env=False, verify=False) as http,
            ):
                assert http.get("/metrics").status_code == (200 if opened else 401)
                assert http.get("/metrics", headers={"authorization": f"Bearer {secret}"}).status_code == 200


def test_spans_are_made_when_asked_for(memory):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with running(memory, tracer=provider.get_tracer("test")) as url, Memory(url) as remote:
        remote.add("a kitten", scope="secret")
        with pytest.raises(ValueError):
            remote.add("x", scope="..")
    spans = [(span.name, dict(span.attributes)) for span in kept.get_finished_spans()]
    where = {"http.request.method": "POST", "http.route": "/v1/add"}
    assert spans == [("POST /v1/add", where | {"http.response.status_code": status}) for status in (200, 422)]


def test_the_page_of_documentation_fetches_nothing(client):
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text
    assert not re.search(r'(src|href)="?https?:', page.text)
    for verb in VERBS:
        assert f"POST /v1/{verb}<" in page.text


def test_the_idempotency_header_is_the_key(client, memory):
    first = client.post("/v1/add", json={"what": "x"}, headers={"idempotency-key": "k1"}).json()
    assert client.post("/v1/add", json={"what": "x"}, headers={"idempotency-key": "k1"}).json() == first
    assert client.post("/v1/add", json={"what": "x", "once": "k1"}).json() == first
    assert (
        client.post("/v1/add", json={"what": "x", "once": "k2"}, headers={"idempotency-key": "k1"}).status_code == 422
    )
    assert client.post("/v1/add", json={"what": "x"}, headers={"idempotency-key": "k" * 300}).status_code == 422
    assert memory.count() == 1


def test_an_answer_is_not_kept_by_anyone_on_the_way(client):
    answer = client.post("/v1/count", json={})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


def test_limits_are_a_servers_own():
    assert Limits().body == 32_000_000
