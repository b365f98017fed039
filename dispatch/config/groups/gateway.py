"""The gateway: its address, its limits, its API keys, and the audit log."""

from __future__ import annotations

import ipaddress
from typing import Any

import pydantic
from pydantic import Field

from dispatch.config import tls
from dispatch.config.groups.base import Group, Names, OptionalSecret, PortNumber, check_pair, names


class GatewaySettings(Group):
    """The HTTP gateway."""

    http_host: str = Field(
        "127.0.0.1", description="Address the gateway binds. A non-loopback one needs `api_keys` or `api_keys_file`."
    )
    http_port: PortNumber = Field(8_080, description="Port of the gateway; 0 lets `make up` choose a free one.")
    http_tls_cert: str = Field(
        "",
        description="PEM file of the gateway's certificate, with those that lead to its authority: it then speaks HTTPS only.",
    )
    http_tls_key: str = Field(
        "", description="PEM file of its key, not encrypted. Default: the key is in the file of the certificate."
    )
    http_tls_client_ca: str = Field(
        "", description="PEM file of authorities: clients must present a certificate of one, beside their API key."
    )
    http_hsts: int = Field(
        31_536_000,
        ge=0,
        description="Seconds for which browsers use HTTPS only (`Strict-Transport-Security`); sent over HTTPS; 0 is never.",
    )
    http_workers: int = Field(
        2,
        ge=1,
        le=64,
        description="Gateway processes. Where all parts share two cores, one serves a third more tasks than two.",
    )
    http_threads: int = Field(
        16,
        ge=2,
        le=256,
        description="Requests of each gateway process that use a Redis Cluster, or Redis over TLS, at the same time, each with a "
        "connection to it; a request that waits for its client or for a task is none of them. Otherwise all share one connection.",
    )
    http_connections: int = Field(
        4_096,
        ge=16,
        le=65_536,
        description="Connections of clients that each gateway process holds. Beyond, the one that has been idle for longest is "
        "closed; where none is idle, a new one gets 503.",
    )
    http_peer_connections: int = Field(
        1_024,
        ge=0,
        le=65_536,
        description="Connections of one address (of one /64 network with IPv6) that each gateway process holds (429 beyond); "
        "0 is no limit.",
    )
    http_proxies: Names = Field(
        (),
        description="Addresses or networks of reverse proxies, comma-separated, that `http_peer_connections` does not count.",
    )
    http_waits: int = Field(
        2_000,
        ge=1,
        le=50_000,
        description="Long polls and event streams of each gateway process, together.",
    )
    http_waits_per_principal: int = Field(500, ge=1, le=50_000, description="Those of one principal among them.")
    max_body: int = Field(
        262_144,
        ge=1_024,
        le=1_048_576,
        description="Bytes a request body may have (413 above); 1 MiB at most. Workers take bodies with about as many values.",
    )
    max_batch_body: int = Field(
        4_194_304,
        ge=1_024,
        le=67_108_864,
        description="Bytes that the body of a batch of tasks may have (413 above); each of its items has those of `max_body`.",
    )
    http_head_timeout: float = Field(
        5.0,
        gt=0,
        le=60,
        description="Seconds a client has to send request line and headers, from their first byte (408 after).",
    )
    http_head_bytes: int = Field(
        32_768,
        ge=8_192,
        le=1_048_576,
        description="Bytes of a request's header fields together (431 above); one has 8,190 at most.",
    )
    http_body_timeout: float = Field(
        10.0, gt=0, le=300, description="Seconds a client has to send a request body (408 after)."
    )
    http_body_rate: int = Field(
        500,
        ge=0,
        le=1_000_000,
        description="Bytes a second that a request body must arrive with on average after its first 5 s (408 below); 0 is any.",
    )
    http_write_timeout: float = Field(
        10.0,
        gt=0,
        le=300,
        description="Seconds a client has to take a response, or one event of a stream; after them its connection is closed.",
    )
    http_drain_bytes: int = Field(
        8_388_608,
        ge=0,
        le=1_073_741_824,
        description="Bytes of a refused request's body that are read, so that its connection stays usable; beyond, it is closed.",
    )
    http_drain_timeout: float = Field(
        2.0,
        gt=0,
        le=60,
        description="Seconds for which a refused request's body is read; after them its connection is closed.",
    )
    rate_limit: int = Field(
        30_000,
        ge=0,
        le=1_000_000,
        description="Requests a principal may send within `rate_window`, to all gateway processes together (429 above); 0 is no limit.",
    )
    rate_window: float = Field(60.0, ge=1, le=86_400, description="Seconds that `rate_limit` counts for.")
    quota_open_tasks: int = Field(
        10_000, ge=0, description="Tasks of a principal that have not ended; more are 429. 0 is no limit."
    )
    quota_stored_bytes: int = Field(
        67_108_864,
        ge=0,
        description="Bytes of the messages stored for a principal's open tasks and dead letters; more are 429. 0 is no limit.",
    )
    quota_dead_letters: int = Field(
        5_000, ge=0, description="Dead letters of a principal beyond which its new tasks are 429. 0 is no limit."
    )
    api_keys: Names = Field(
        (),
        description="`<id>:<hmac>:<scope>+<scope>`, perhaps with ` expires=<time>`, comma-separated; made by `dispatch keys new`. Empty: open, on loopback only.",
        repr=False,
    )
    api_keys_file: str = Field(
        "",
        description="File of API keys, one entry of `api_keys` a line, beside those of `api_keys`; followed while the gateway "
        "runs, written by `dispatch keys`. With it, every request needs a key.",
    )
    api_key_pepper: OptionalSecret = Field(
        None, description="Secret of the keys' HMAC; needed with `api_keys` and `api_keys_file`."
    )
    console: bool = Field(True, description="Whether the gateway serves the operators' console at `/ops`.")
    console_idle: float = Field(
        3_600.0,
        ge=60,
        le=86_400,
        description="Seconds without a click after which a session of the console is over; a page that updates itself is no click.",
    )
    console_session: float = Field(
        43_200.0,
        ge=60,
        le=604_800,
        description="Seconds after which a session of the console is over in any case: 12 h.",
    )
    confirm_timeout: float = Field(2.0, gt=0, le=2.5, description="Seconds the gateway waits for the broker's confirm.")
    store_timeout: float = Field(0.6, gt=0, le=0.75, description="Seconds the gateway waits for each Redis answer.")
    trace_url: str = Field(
        "", description="Template of a link to a trace, with `{traceId}`; shown in the API when set."
    )

    @pydantic.field_validator("http_tls_cert")
    @classmethod
    def _http_cert(cls, value: str) -> str:
        tls.check_readable(value)
        return value

    @pydantic.field_validator("http_tls_key")
    @classmethod
    def _http_key(cls, value: str, info: pydantic.ValidationInfo) -> str:
        check_pair(info, "http_tls", value)
        return value

    @pydantic.field_validator("http_tls_client_ca")
    @classmethod
    def _http_client_ca(cls, value: str, info: pydantic.ValidationInfo) -> str:
        tls.check_authorities(value)
        if value and not info.data.get("http_tls_cert"):
            raise ValueError("needs DISPATCH_HTTP_TLS_CERT")
        return value

    @pydantic.field_validator("api_keys", "http_proxies", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return names(value)

    @pydantic.field_validator("http_proxies")
    @classmethod
    def _proxies(cls, value: Names) -> Names:
        for entry in value:
            ipaddress.ip_network(entry)
        return value


class AuditSettings(Group):
    """The audit log."""

    audit_entries: int = Field(
        50_000,
        ge=1_000,
        le=10_000_000,
        description="Entries that the audit log in Redis keeps, about; older ones go. Some 200 bytes each.",
    )
    audit_ttl: float = Field(
        7_776_000.0,
        ge=60,
        le=315_360_000,
        description="Seconds that the audit log in Redis keeps an entry, about: 90 days.",
    )
