"""The environment decides, and production does not start on defaults."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .runs import ROOT

SAFE = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "a-secret-key-of-a-production-0123456789",
    "API_KEY_PEPPER": "a-pepper-of-a-production-0123456789abc",
    "ALLOWED_HOSTS": "market.example",
}


def read(expression: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Evaluate an expression in the settings of a fresh process."""
    return subprocess.run(
        [sys.executable, "-c", f"from marketplace import settings; print({expression})"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_production_starts_with_secrets_of_its_own() -> None:
    done = read("settings.SECURE_SSL_REDIRECT, settings.SESSION_COOKIE_SECURE, settings.DEBUG", **SAFE)
    assert done.stdout == "True True False\n", done.stderr


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is missing, too short or a default"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY is missing, too short or a default"),
        ({"API_KEY_PEPPER": ""}, "API_KEY_PEPPER is missing, too short or a default"),
        ({"DEBUG": "1"}, "DEBUG must be off"),
        ({"LOCAL_WEBHOOKS": "1"}, "LOCAL_WEBHOOKS must be off"),
        ({"ENVIRONMENT": "prod"}, "must be development or production"),
    ],
)
def test_production_refuses_to_start(changed: dict[str, str], says: str) -> None:
    done = read("1", **SAFE | changed)
    assert done.returncode == 1
    assert says in done.stderr


def test_a_default_secret_is_refused_in_production_even_when_set() -> None:
    default = read("settings.SECRET_KEY").stdout.strip()
    assert "SECRET_KEY is missing" in read("1", **SAFE | {"SECRET_KEY": default}).stderr


def test_a_value_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pepper"
    file.write_text("a-pepper-from-a-file-0123456789abcdef\n", encoding="utf-8")
    environment = SAFE | {"API_KEY_PEPPER": "", "API_KEY_PEPPER_FILE": str(file)}
    assert read("settings.API_KEY_PEPPER", **environment).stdout == "a-pepper-from-a-file-0123456789abcdef\n"


def test_the_password_of_the_database_may_be_a_secret_of_its_own() -> None:
    done = read(
        "settings.DATABASES['default']['PASSWORD']", DATABASE_URL="postgres://me@db/x", DATABASE_PASSWORD="p@ss/word"
    )
    assert done.stdout == "p@ss/word\n"


def test_a_broker_on_a_socket_keeps_its_number() -> None:
    done = read("settings.CELERY_BROKER_URL", REDIS_URL="unix:///run/valkey.sock?db=3")
    assert done.stdout == "redis+socket:///run/valkey.sock?virtual_host=3\n"


def test_no_task_runs_longer_than_its_message_is_hidden() -> None:
    done = read("settings.CELERY_BROKER_TRANSPORT_OPTIONS['visibility_timeout'] > settings.CELERY_TASK_TIME_LIMIT")
    assert done.stdout == "True\n"


def test_when_a_block_is_final() -> None:
    assert read("[settings.FINALITY]").stdout == "[1]\n"
    assert read("settings.FINALITY", CHAIN_ID="8453").stdout == "finalized\n"
    assert read("settings.FINALITY", CHAIN_ID="8453", FINALITY=" Safe ").stdout == "safe\n"
    assert read("[settings.FINALITY]", CHAIN_ID="8453", FINALITY="12").stdout == "[12]\n"


@pytest.mark.parametrize("said", ["0", "-1", "latest", "1.5", "١٢"])
def test_anything_else_is_final_for_nobody(said: str) -> None:
    done = read("1", FINALITY=said)
    assert done.returncode == 1
    assert 'must be "finalized", "safe" or a number of blocks from 1' in done.stderr
