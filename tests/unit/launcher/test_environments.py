"""A process of the stack has its own secrets, and no others'."""

from pydantic import SecretStr

from dispatch.config import settings as configuration
from dispatch.config.settings import Settings
from launcher import environments
from support.cases import each

#: A value of its own for each setting with a secret.
STACK = {
    "PATH": "/bin",
    "DISPATCH_BROKER_URL": "amqp://admin:common@h/robot",
    "DISPATCH_GATEWAY_BROKER_URL": "amqp://gateway:for-gateway@h/robot",
    "DISPATCH_WORKER_BROKER_URL": "amqp://worker:for-worker@h/robot",
    "DISPATCH_REPLAY_BROKER_URL": "amqp://replay:for-replay@h/robot",
    "DISPATCH_MONITOR_BROKER_URL": "amqp://monitor:for-monitor@h/robot",
    "DISPATCH_ADMIN_BROKER_URL": "amqp://admin:for-admin@h/robot",
    "DISPATCH_MANAGEMENT_URL": "http://monitor:for-management@h",
    "DISPATCH_REDIS_URL": "redis://:for-redis@h/0",
    "DISPATCH_API_KEYS": f"shop:{'a' * 64}:tasks:read",
    "DISPATCH_API_KEYS_FILE": "/keys/for-keys",
    "DISPATCH_API_KEY_PEPPER": "for-pepper",
    "DISPATCH_HTTP_HOST": "0.0.0.0",
    "DISPATCH_FLOWER_HOST": "0.0.0.0",
    "DISPATCH_FLOWER_BASIC_AUTH": "ops:for-flower",
    "DISPATCH_ROBOT_CLIENT_SECRET": "for-vendor",
    "DISPATCH_QUEUE_TTL": "600",
}

SECRETS = {
    *("common", "for-gateway", "for-worker", "for-replay", "for-monitor", "for-admin", "for-management", "for-redis"),
    *("a" * 64, "for-keys", "for-pepper", "for-flower", "for-vendor"),
}


def seen(process: str, **more: str) -> set[str]:
    """The secrets in a process's environment."""
    text = "\n".join(environments.only({**STACK, **more}, process).values())
    return {secret for secret in SECRETS if secret in text}


@each(
    ("process", "own"),
    [
        ("gateway", {"for-gateway", "for-management", "for-redis", "a" * 64, "for-keys", "for-pepper"}),
        ("worker", {"for-worker", "for-replay", "for-management", "for-redis", "for-vendor"}),
        ("flower", {"for-monitor", "for-management", "for-flower"}),
        ("simulator", set()),
        ("rabbitmq", set()),
        ("redis", set()),
        ("whatever comes", set()),
    ],
)
def test_a_process_sees_its_own_secrets_only(process, own):
    assert seen(process) == own


@each("process", ["gateway", "worker", "flower"])
def test_what_a_process_sees_is_valid_and_has_the_common_settings(process):
    environ = environments.only(STACK, process)
    settings = configuration.load(environ)

    assert (environ["PATH"], settings.queue_ttl) == ("/bin", 600)
    assert settings.broker({"flower": "monitor"}.get(process, process)) == settings.broker_url.get_secret_value()


def test_the_common_url_stays_for_a_role_without_its_own():
    without = {name: value for name, value in STACK.items() if name != "DISPATCH_REPLAY_BROKER_URL"}
    settings = configuration.load(environments.only(without, "worker"))

    assert (settings.broker("worker"), settings.broker("replay")) == (
        STACK["DISPATCH_WORKER_BROKER_URL"],
        STACK["DISPATCH_BROKER_URL"],
    )


def test_certificates_go_where_a_url_uses_them(tmp_path):
    pem = tmp_path / "key.pem"
    pem.write_text("x")
    tls = {**STACK, "DISPATCH_BROKER_TLS_KEY": str(pem), "DISPATCH_FLOWER_BASIC_AUTH": "o:p"}
    amqps = {**tls, "DISPATCH_GATEWAY_BROKER_URL": "amqps://gateway:x@h/robot"}

    assert "DISPATCH_BROKER_TLS_KEY" in environments.only(amqps, "gateway")
    assert "DISPATCH_BROKER_TLS_KEY" not in environments.only(amqps, "worker")
    assert "DISPATCH_BROKER_TLS_KEY" not in environments.only(amqps, "simulator")


def test_every_setting_with_a_secret_has_its_owners():
    secret = {
        name
        for name, field in Settings.model_fields.items()
        if "SecretStr" in str(field.annotation) or isinstance(field.default, SecretStr) or not field.repr
    }

    assert secret - environments.OWNERS.keys() == set()
    assert environments.OWNERS.keys() - Settings.model_fields.keys() == set()
