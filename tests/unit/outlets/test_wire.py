"""The head of a request and the bytes of a response."""

import gzip
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.outlets.metrics.wire import Request, metrics, parse, refused

GET = "GET /metrics HTTP/1.1\r\nHost: node\r\n"


def test_a_request_of_prometheus() -> None:
    head = f"{GET}Accept: application/openmetrics-text;version=1.0.0\r\nAccept-Encoding: gzip\r\n\r\n"
    assert parse(head.encode()) == Request(None, head_only=False, gzipped=True)


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("GET /metrics HTTP/1.0", None),
        ("GET /metrics?format=prometheus HTTP/1.1", None),
        ("GET /metricsx HTTP/1.1", HTTPStatus.NOT_FOUND),
        ("GET / HTTP/1.1", HTTPStatus.NOT_FOUND),
        ("POST /metrics HTTP/1.1", HTTPStatus.METHOD_NOT_ALLOWED),
        ("GET /metrics HTTP/2.0", HTTPStatus.BAD_REQUEST),
        ("GET /metrics", HTTPStatus.BAD_REQUEST),
        ("\x16\x03\x01", HTTPStatus.BAD_REQUEST),  # TLS
        ("", HTTPStatus.BAD_REQUEST),
    ],
)
def test_path_method_and_version(line: str, refusal: HTTPStatus | None) -> None:
    assert parse(f"{line}\r\n\r\n".encode()).refusal is refusal


@pytest.mark.parametrize(
    ("codings", "gzipped"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("identity", False),
        ("xgzip", False),
        ("", False),
    ],
)
def test_accepted_encodings(codings: str, gzipped: bool) -> None:
    assert parse(f"{GET}accept-encoding: {codings}\r\n\r\n".encode()).gzipped is gzipped


@given(st.binary())
def test_any_bytes_are_parsed_or_refused(head: bytes) -> None:
    request = parse(head)
    assert request.refusal is None or request.refusal in {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.NOT_FOUND,
    }


@pytest.mark.parametrize("gzipped", [False, True])
def test_the_response_has_the_text_and_its_length(gzipped: bool) -> None:
    text = b"kickwatch_condition 1\n" * 100
    head, _, body = metrics(Request(None, gzipped=gzipped), text).partition(b"\r\n\r\n")
    assert (gzip.decompress(body) if gzipped else body) == text
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    assert (b"Content-Encoding: gzip" in head) is gzipped
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head


def test_head_has_the_length_and_no_body() -> None:
    head, _, body = metrics(Request(None, head_only=True), b"x" * 77).partition(b"\r\n\r\n")
    assert (body, b"Content-Length: 77" in head) == (b"", True)


def test_a_refusal_says_where_the_metrics_are() -> None:
    answer = refused(HTTPStatus.METHOD_NOT_ALLOWED).decode()
    assert answer.startswith("HTTP/1.1 405 Method Not Allowed\r\n")
    assert "Allow: GET, HEAD\r\n" in answer
    assert answer.endswith("/metrics\n")
    assert refused(HTTPStatus.NOT_FOUND, head_only=True).endswith(b"\r\n\r\n")
