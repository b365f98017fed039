"""A real system whose console a browser opens; a browser for each file, since its start takes long."""

import pytest
from pydantic import SecretStr

from support.console import ADMIN, ADMIN_ENTRY, PEPPER, visiting
from support.gateway_live import running_gateway
from support.ports import free_port
from support.worker import open_bench, running_worker
from tools import chromium


@pytest.fixture(scope="module")
def system(module_settings):
    """Its URL, and a client of its API with every scope."""
    settings = module_settings.model_copy(
        update={"api_keys": (ADMIN_ENTRY,), "api_key_pepper": SecretStr(PEPPER), "delay_levels": 12}
    )
    with (
        open_bench(settings),
        running_worker(settings),
        running_gateway(settings, free_port()) as (client, _, _),
    ):
        client.headers["Authorization"] = f"Bearer {ADMIN}"
        yield str(client.base_url).rstrip("/"), client


@pytest.fixture(scope="module")
def browser():
    with chromium.browser() as made:
        yield made


@pytest.fixture
def seen(browser, system):
    """A visitor who is signed in."""
    with visiting(browser, system[0]) as made:
        made.sign_in(ADMIN)
        yield made
