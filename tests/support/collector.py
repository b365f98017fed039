"""An OpenTelemetry collector for tests: takes spans over OTLP/HTTP and keeps them."""

import contextlib
import gzip
import http.server
import threading
import time
from collections.abc import Iterator

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from support.waiting import eventually

KINDS = ("", "internal", "server", "client", "producer", "consumer")


class Span:
    """A span as it was sent."""

    def __init__(self, span, about: dict[str, object]) -> None:
        self.service, self.process = about["service.name"], about["process.pid"]
        self.name = span.name
        self.kind = KINDS[span.kind]
        self.trace_id, self.span_id = span.trace_id.hex(), span.span_id.hex()
        self.parent_id = span.parent_span_id.hex()
        self.start, self.end = span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9
        self.links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
        self.attributes = {each.key: _value(each.value) for each in span.attributes}
        self.failed = span.status.code == 2
        self.status = span.status.message

    def __repr__(self) -> str:
        return f"<{self.name} {self.span_id} below {self.parent_id}>"


class Collector:
    """What has come so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []
        self.paths: set[str] = set()

    def environ(self, **more: str) -> dict[str, str]:
        """What makes a process send its spans here, soon."""
        return {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            **more,
        }

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace, in order of their begin."""
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.start)

    def complete(self, trace_id: str, *names: str, timeout: float = 15) -> list[Span]:
        """The trace once it has these spans and none with a parent that is missing but the client's."""

        def whole() -> list[Span] | None:
            spans = self.trace(trace_id)
            found = [span.name for span in spans]
            enough = all(found.count(name) >= names.count(name) for name in names)
            return spans if enough and len(orphans(spans)) <= 1 else None

        eventually(whole, timeout, lambda: f"the trace has {names}; it is\n{tree(self.trace(trace_id))}")
        time.sleep(0.3)  # what is on its way to us
        return self.trace(trace_id)


def orphans(spans: list[Span]) -> list[Span]:
    """Spans whose parent is not among them."""
    known = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id not in known]


def tree(spans: list[Span]) -> str:
    """A trace as text: indented, with begin and duration in milliseconds."""
    if not spans:
        return "(nothing)"
    zero = min(span.start for span in spans)
    known = {span.span_id for span in spans}

    def lines(parent: str | None, depth: int) -> Iterator[str]:
        for span in spans:
            if (span.parent_id if span.parent_id in known else None) == parent:
                at, took = (span.start - zero) * 1_000, (span.end - span.start) * 1_000
                mark = f" !{span.attributes.get('error.type', '')}" if span.failed else ""
                links = f" → {', '.join(link for _, link in span.links)}" if span.links else ""
                yield f"{at:9.1f} {took:9.1f}  {'  ' * depth}{span.name} [{span.service} {span.span_id}]{mark}{links}"
                yield from lines(span.span_id, depth + 1)

    return "\n".join(lines(None, 0))


def _value(value):
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            made.paths.add(self.path)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = {each.key: _value(each.value) for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    made.spans.extend(Span(span, about) for span in scope.spans)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
