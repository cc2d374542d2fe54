"""Every setting of the service, in one file: the environment decides. Each limit stands beside its reason.

Any variable may come from a file instead: `SECRET_KEY_FILE=/run/secrets/secret_key` is read when `SECRET_KEY` is unset.
Outside production the secrets have defaults; in production a missing or default secret stops the start.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def env(name: str, default: str = "") -> str:
    """Return the variable, or the content of the file that `<name>_FILE` names, or the default."""
    if value := os.environ.get(name):
        return value
    path = os.environ.get(f"{name}_FILE")
    return Path(path).read_text(encoding="utf-8").strip() if path else default


def env_int(name: str, default: int) -> int:
    """Return the variable as an integer."""
    return int(env(name, str(default)))


def env_bool(name: str, *, default: bool = False) -> bool:
    """Return whether the variable says 1, true, yes or on."""
    return env(name, str(default)).lower() in {"1", "true", "yes", "on"}


def env_list(name: str, default: str = "") -> list[str]:
    """Return the comma-separated parts of the variable."""
    return [part.strip() for part in env(name, default).split(",") if part.strip()]


def finality(name: str, default: str) -> int | str:
    """Return when a block never goes away again: the node's word "finalized" or "safe", or a number of blocks."""
    value = env(name, default).strip().lower()
    if value in {"finalized", "safe"}:
        return value
    if value.isascii() and value.isdigit() and int(value) >= 1:
        return int(value)
    raise ImproperlyConfigured(f'{name} is {value!r}; it must be "finalized", "safe" or a number of blocks from 1.')


def secret(name: str) -> str:
    """Return a secret; in production it must be set, long and not the default."""
    default = f"development-only-{name.lower()}-never-use-it-in-production-0123456789"
    value = env(name, default)
    if PRODUCTION and (value == default or len(value) < 32):
        raise ImproperlyConfigured(
            f"{name} is missing, too short or a default. Set {name} or {name}_FILE to at least 32 random characters, "
            f'for example from: python -c "import secrets; print(secrets.token_urlsafe(48))"'
        )
    return value


# --- Where this runs -------------------------------------------------------------------------------------------------
ENVIRONMENT = env("ENVIRONMENT", "development")
if ENVIRONMENT not in {"development", "production"}:
    raise ImproperlyConfigured(f"ENVIRONMENT is {ENVIRONMENT!r}; it must be development or production.")
PRODUCTION = ENVIRONMENT == "production"
DEBUG = env_bool("DEBUG")
if PRODUCTION and DEBUG:
    raise ImproperlyConfigured("DEBUG must be off when ENVIRONMENT is production: it shows settings to callers.")
if PRODUCTION and env("CRASH_AT"):
    raise ImproperlyConfigured("CRASH_AT must be unset when ENVIRONMENT is production: it kills the process.")
SECRET_KEY = secret("SECRET_KEY")
API_KEY_PEPPER = secret("API_KEY_PEPPER")
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", "" if PRODUCTION else "127.0.0.1,localhost,[::1]")
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS")
PUBLIC_URL = env("PUBLIC_URL", "http://127.0.0.1:8000")

# --- The project -----------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "escrow.apps.EscrowConfig",
    "marketplace.apps.MarketplaceConfig",
]
MIDDLEWARE = [
    "marketplace.api.middleware.RequestId",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "marketplace.urls"
WSGI_APPLICATION = "marketplace.wsgi.application"
ASGI_APPLICATION = "marketplace.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = "marketplace.formats"  # times of the admin as the logs have them: to the second, in UTC
USE_I18N = False
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False  # an API path is exact: a redirect would lose the body of a POST
STATIC_URL = "/static/"
STATIC_ROOT = env("STATIC_ROOT") or (BASE_DIR / "staticfiles" if PRODUCTION else None)
WHITENOISE_USE_FINDERS = not PRODUCTION  # no collectstatic outside production

# --- PostgreSQL ------------------------------------------------------------------------------------------------------
DATABASE_STATEMENT_TIMEOUT_MS = env_int("DATABASE_STATEMENT_TIMEOUT_MS", 15_000)  # the slowest claim of 10,000: 0.2 s
DATABASE_LOCK_TIMEOUT_MS = env_int("DATABASE_LOCK_TIMEOUT_MS", 5_000)  # a payment never waits longer for a hot account
# Reconciling adds up every transfer there is.
RECONCILE_STATEMENT_TIMEOUT_MS = env_int("RECONCILE_STATEMENT_TIMEOUT_MS", 600_000)
RECONCILE_BLOCKS = env_int("RECONCILE_BLOCKS", 2_000)  # newest blocks whose logs are all read again: one eth_getLogs
RECONCILE_SAMPLE = env_int("RECONCILE_SAMPLE", 20)  # older logs, drawn anew each time, whose block must still be there
RECONCILE_REPROVEN = env_int("RECONCILE_REPROVEN", 10_000)  # newest payments whose roots are made again: two seconds
RECONCILE_LATE_SECONDS = env_int("RECONCILE_LATE_SECONDS", 600)  # a sweep that is later than this is not coming
RESERVES_KEPT = env_int("RESERVES_KEPT", 8_640)  # outcomes of reconciling, one every 5 minutes: 30 days
RESERVES_PROVABLE = env_int(
    "RESERVES_PROVABLE", 3
)  # newest of them that keep their tree, which has a leaf for each debt
DATABASE_IDLE_TIMEOUT_MS = env_int("DATABASE_IDLE_TIMEOUT_MS", 30_000)  # a forgotten snapshot halves a hot row's rate
DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(
        env("DATABASE_URL", "postgres://postgres@127.0.0.1:5432/marketplace"),
        engine="marketplace.database",
        conn_max_age=None,  # a connection for each request costs nine tenths of the throughput
        conn_health_checks=True,
    )
}
if _PASSWORD := env("DATABASE_PASSWORD"):  # a secret of its own, so that the URL need not be one
    DATABASES["default"]["PASSWORD"] = _PASSWORD
DATABASES["default"].setdefault("OPTIONS", {}).update(
    connect_timeout=5,  # seconds; a database that is down must not hold a web worker
    server_side_binding=True,
    prepare_threshold=1,  # plans are kept from the second use; the first may be a migration of several statements
    options=(
        f"-c statement_timeout={DATABASE_STATEMENT_TIMEOUT_MS}"
        f" -c lock_timeout={DATABASE_LOCK_TIMEOUT_MS}"
        f" -c idle_in_transaction_session_timeout={DATABASE_IDLE_TIMEOUT_MS}"
    ),
)

# --- The web: threads for Django, the lane for payments -------------------------------------------------------------------
# Above what the database itself allows a statement; what is silent for longer keeps no thread of the web waiting.
WEB_DATABASE_ANSWER_MS = env_int("WEB_DATABASE_ANSWER_MS", DATABASE_STATEMENT_TIMEOUT_MS + 5_000)
WEB_THREADS = env_int("WEB_THREADS", 4)  # each holds one database connection; more only wait for the same core
LANE_BATCH = env_int("LANE_BATCH", 256)  # orders in one statement: all of them wait for the last
LANE_QUEUE = env_int("LANE_QUEUE", 4_096)  # orders that may wait: under a second's work; then 503 with Retry-After
LANE_MAX_BODY_BYTES = 4 * 1024  # reading it takes the loop a millisecond; larger bodies are Django's, in a thread
LANE_STATEMENT_TIMEOUT_MS = env_int("LANE_STATEMENT_TIMEOUT_MS", 6_000)  # above the lock timeout, which says more
LANE_LOCK_TIMEOUT_MS = env_int("LANE_LOCK_TIMEOUT_MS", 5_000)  # settlement holds what it signs for well under a second

# --- Redis: hints and limits, never the truth ------------------------------------------------------------------------
REDIS_URL = env("REDIS_URL", "redis://127.0.0.1:6379/0")  # or unix:///path?db=0
REDIS_TIMEOUT_SECONDS = 2.0  # readiness must answer even when Redis hangs

# --- Celery ----------------------------------------------------------------------------------------------------------
_SOCKET, _, _DB = REDIS_URL.removeprefix("unix://").partition("?db=")
CELERY_BROKER_URL = f"redis+socket://{_SOCKET}?virtual_host={_DB or 0}" if REDIS_URL.startswith("unix:") else REDIS_URL
CELERY_TASK_IGNORE_RESULT = True  # the row is the result; there is no result backend
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]  # never pickle: a message must not be able to run code
CELERY_TASK_ACKS_LATE = True  # a task may run twice, so every task claims its rows
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1  # a long sweep must not hold the next one back
CELERY_TASK_SOFT_TIME_LIMIT = 50  # seconds; a sweep is bounded and takes under one second
CELERY_TASK_TIME_LIMIT = 60
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 120,  # seconds; above the time limit, or a running task would be given out twice
    "unacked_restore_interval": 10,  # seconds between looks for what a dead worker had taken
    "unacked_restore_throttle": 1,  # at each of them; by default at every tenth, which is a minute and a half
    "priority_steps": [0],  # one list for each queue: no message is more urgent than another of its kind
    "socket_timeout": 5.0,
    "socket_connect_timeout": 5.0,
    "max_retries": 0,  # to connect, for a nudge: it is only a hint, and a caller waits for it. Workers wait a restart out
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a broker restart is waited out
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0.0}  # a nudge is only a hint: beat sweeps
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_TIMEZONE = "UTC"


def every(task: str, seconds: float) -> dict[str, Any]:
    """Return a beat entry. No message expires: a worker would go by its own clock. One of each waits (`escrow.hints`)."""
    return {"task": task, "schedule": timedelta(seconds=seconds)}


CELERY_BEAT_SCHEDULE = {
    "relay": every("escrow.relay_sweep", 0.5),
    "index": every("escrow.index_sweep", 0.5),
    "settle": every("escrow.settle_sweep", 1.0),
    "payout": every("escrow.payout_sweep", 2.0),
    "close": every("escrow.close_sweep", 1.0),
    "timers": every("escrow.timer_sweep", 5.0),
    "publish": every("escrow.publish_sweep", 1.0),
    "pulse": every("escrow.pulse_sweep", 5.0),
    "reconcile": every("escrow.reconcile", 300.0),
    "tasks": every("marketplace.task_sweep", 30.0),
    "webhooks": every("marketplace.webhook_sweep", 1.0),
    "webhook-memory": every("marketplace.webhook_forget", 3_600.0),
}
CELERY_BEAT_SCHEDULER = "marketplace.celery:Scheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 0.5  # seconds; the default of 5 would round the short sweeps up

# Each task has a queue with its name, and queues take turns: however long one task hangs, another is next. A worker that is
# told nothing listens to all of them.
_TASKS = [entry["task"] for entry in CELERY_BEAT_SCHEDULE.values()]
CELERY_TASK_QUEUES = {task: {"routing_key": task} for task in _TASKS}
CELERY_TASK_ROUTES = {task: {"queue": task} for task in _TASKS}
CELERY_TASK_CREATE_MISSING_QUEUES = False  # what nobody listens to is refused where it is sent

# --- The chain -------------------------------------------------------------------------------------------------------
# One node, or several separated by commas: the next one is asked when one fails, and two must agree on what is final.
RPC_URL = env("RPC_URL", "http://127.0.0.1:8545")
RPC_TIMEOUT_SECONDS = env_int("RPC_TIMEOUT_SECONDS", 10)  # a node that hangs must not hold a worker for its whole limit
CHAIN_ID = env_int("CHAIN_ID", 31337)
USDC_ADDRESS = env("USDC_ADDRESS")
ESCROW_ADDRESS = env("ESCROW_ADDRESS")
ESCROW_START_BLOCK = env_int("ESCROW_START_BLOCK", 0)  # where the contract's logs begin
TEST_CHAINS = (31337, 1337, 84532)  # anvil and hardhat, geth and ganache, Base Sepolia: no money there is real
# The first session of an account without a pool opens one with test money. By itself only on this machine's chains, whose
# USDC is our TestUSDC: anybody may mint that, and nobody Circle's.
SANDBOX = env_bool("SANDBOX", default=CHAIN_ID in TEST_CHAINS[:2])
if SANDBOX and CHAIN_ID not in TEST_CHAINS:
    raise ImproperlyConfigured(
        f"SANDBOX must be off on chain {CHAIN_ID}: it gives test money away, and needs a test chain."
    )
SANDBOX_GRANT_MICROS = env_int("SANDBOX_GRANT_MICROS", 10_000_000)  # 10 test USDC, once for each account
SIGNER_KEYS_DIR = env("SIGNER_KEYS_DIR")  # the signing process reads them, or a worker of SIGNERS=file
# Where each role's key is: file, socket:PATH of `manage.py signer`, rpc:URL#ADDRESS, aws-kms:KEY_ID or gcp-kms:RESOURCE;
# one for all, or role=source,role=source (docs/operations/signer.md).
SIGNERS = env("SIGNERS", "file")
SIGNER_TIMEOUT_SECONDS = env_int(
    "SIGNER_TIMEOUT_SECONDS", 30
)  # a look at 10,000 payments takes seconds on a busy machine
FINALITY = finality("FINALITY", "1" if CHAIN_ID == 31337 else "finalized")  # a local chain never reorganises
RELAYERS = env_int("RELAYERS", 1)  # keys that send; each pool has its own, so more of them send more at once
RELAY_BATCH = env_int("RELAY_BATCH", 20)  # chain actions signed between two looks at what is mined
RELAY_MAX_IN_FLIGHT = env_int(
    "RELAY_MAX_IN_FLIGHT", 64
)  # unmined of one signer: what a node's pool keeps of one sender
RELAY_RUN_SECONDS = env_int("RELAY_RUN_SECONDS", 10)  # a sweep works on for so long: well under a task's time limit
RELAY_WATCHED = env_int("RELAY_WATCHED", 2_000)  # actions in blocks that are not final: a quarter of an hour's
RELAY_RETRY_SECONDS = env_int("RELAY_RETRY_SECONDS", 5)  # a claim not finished by then is taken over
RELAY_REPLACE_SECONDS = env_int("RELAY_REPLACE_SECONDS", 30)  # unmined for this long: sent again with a higher fee
RELAY_MAX_ATTEMPTS = env_int("RELAY_MAX_ATTEMPTS", 20)  # then a person looks
GAS_PRICE_CEILING_GWEI = env_int("GAS_PRICE_CEILING_GWEI", 20)  # above it settling and payouts wait; Base asks 0.01
GAS_PRICE_CAP_GWEI = env_int("GAS_PRICE_CAP_GWEI", 200)  # no replacement offers more by itself
# What gas may cost in an hour before everything waits for a person: a key that is abused is found out cheaply. 0: no limit.
GAS_BUDGET_USD_PER_HOUR = env_int("GAS_BUDGET_USD_PER_HOUR", 0 if CHAIN_ID in TEST_CHAINS else 100)
ETH_USD = env_int("ETH_USD", 5_000)  # reckoned high: the budget is then spent too early, never too late
INDEX_BLOCK_RANGE = env_int("INDEX_BLOCK_RANGE", 2_000)  # blocks per eth_getLogs: public nodes refuse more
INDEX_SECONDS = env_int("INDEX_SECONDS", 20)  # a sweep starts no further chunk after them: a task is killed after 60
UNSAFE_DEPOSITS_MICROS = env_int(
    "UNSAFE_DEPOSITS_MICROS", 1_000_000_000
)  # $1,000: of all deposits together that are mined and not final; what a reorganisation of the chain could cost us at most

CHAIN_SILENT_SECONDS = env_int(
    "CHAIN_SILENT_SECONDS", 300
)  # without a block: the chain stands still, as far as we know
UNSETTLED_MICROS = env_int(
    "UNSETTLED_MICROS", 10_000_000_000
)  # $10,000: of all debts together that may wait for a chain that stands still; then nothing new is spent until it goes on

# --- Watching: who may read /metrics, and from when on /readyz says no ------------------------------------------------
METRICS_TOKEN = env("METRICS_TOKEN")  # without one only this machine may read /metrics, and none behind a proxy
PULSE_STALE_SECONDS = env_int("PULSE_STALE_SECONDS", 60)  # a worker looks every 5; a minute of silence is no hiccup
INDEX_STALE_SECONDS = env_int("INDEX_STALE_SECONDS", 60)  # it reads every half second; without it nothing lands
ACTION_STALE_SECONDS = env_int("ACTION_STALE_SECONDS", 900)  # a quarter of the hour that a signed batch may land in
SIGNER_RESERVE_SETTLEMENTS = env_int("SIGNER_RESERVE_SETTLEMENTS", 50)  # an hour of a busy day: time to refill

# --- Money: how long anybody may stay silent, and when debts land on chain -------------------------------------------
SETTLE_MIN_MICROS = env_int("SETTLE_MIN_MICROS", 1_000_000)  # $1: below it a settlement's gas is not worth it yet
SETTLE_MAX_AGE = env_int("SETTLE_MAX_AGE", 3_600)  # seconds; a small debt still lands within the hour
SETTLE_MAX_GROUP = env_int("SETTLE_MAX_GROUP", 64)  # batches in one chain transaction; their gas is the tighter limit
DISPATCH_LIMIT = env_int("DISPATCH_LIMIT", 500)  # batches put into chain actions by one sweep
SETTLE_MAX_RECORDS = env_int("SETTLE_MAX_RECORDS", 200)  # records in a batch: keeps the gas far below a block's limit
REVIEW_WINDOW = env_int("REVIEW_WINDOW", 72 * 3600)  # seconds; an invoice nobody reviewed is approved
REJECTION_WINDOW = env_int("REJECTION_WINDOW", 72 * 3600)  # a rejection nobody withdrew becomes a dispute
ANSWER_WINDOW = env_int("ANSWER_WINDOW", 72 * 3600)  # a dispute nobody answered is ruled for the payer
RULING_WINDOW = env_int("RULING_WINDOW", 14 * 24 * 3600)  # a dispute nobody ruled is split evenly
HOLD_DEFAULT_SECONDS = env_int("HOLD_DEFAULT_SECONDS", 900)  # a hold that says nothing: a call is over by then
HOLD_MAX_SECONDS = env_int("HOLD_MAX_SECONDS", 7 * 24 * 3600)  # money that is set aside longer is a task's
REFUND_WINDOW = env_int("REFUND_WINDOW", 72 * 3600)  # a refund that was asked for and not answered lapses
REFUND_MAX_DEBTS = env_int("REFUND_MAX_DEBTS", 10_000)  # debts that pay for one refund: as many as a batch nets
APPROVAL_WINDOW = env_int(
    "APPROVAL_WINDOW", 24 * 3600
)  # seconds a person has to allow a large payment; silence is a no
BACKTEST_MAX_DECISIONS = env_int("BACKTEST_MAX_DECISIONS", 50_000)  # read for one answer: 1.2 s of a thread
FEE_BPS = env_int("FEE_BPS", 100)  # 1 %, floored; the remainder stays with the payer
DISPUTE_WINDOW = env_int("DISPUTE_WINDOW", 3_600)  # seconds a settled credit can still be disputed on chain
FEE_PAYOUT_MIN_MICROS = env_int("FEE_PAYOUT_MIN_MICROS", 10_000_000)  # $10: below it fees wait in the contract
SETTLE_DEADLINE = env_int("SETTLE_DEADLINE", 3_600)  # seconds a signed batch may land; then its money is free again
SETTLE_MAX_PAYMENTS = env_int("SETTLE_MAX_PAYMENTS", 10_000)  # debts netted into a batch: 0.2 s of the database
POOL_EXPIRY = env_int("POOL_EXPIRY", 90 * 24 * 3600)  # seconds; then the payer can reclaim without us
POOL_CLOSE_MARGIN = env_int("POOL_CLOSE_MARGIN", 24 * 24 * 3600)  # closing starts so early that every timer can end
SWEEP_LIMIT = env_int("SWEEP_LIMIT", 100)  # rows a sweep takes at once; the next one takes the rest
SWEEP_MAX_FAILURES = env_int("SWEEP_MAX_FAILURES", 12)  # of one row, two hours in all; then a person looks
CLOSE_DELAY = env_int("CLOSE_DELAY", 3_600)  # seconds between the request to close and the reclaim: batches land in it

# --- The signing process: what it refuses to sign, whoever asks (docs/operations/signer.md) ------------------------------
SIGNER_MAX_GAS = env_int("SIGNER_MAX_GAS", 1 << 24)  # of one chain transaction: EIP-7825 allows no more
SIGNER_MAX_FEE_WEI = env_int("SIGNER_MAX_FEE_WEI", 2 * GAS_PRICE_CAP_GWEI * 10**9)  # per gas: room for a person's bump
SIGNER_MAX_HOURLY_GAS_WEI = env_int("SIGNER_MAX_HOURLY_GAS_WEI", 10**18)  # 1 ether: what a thief could burn in an hour
SIGNER_MAX_BATCH_MICROS = env_int("SIGNER_MAX_BATCH_MICROS", 100_000_000_000)  # 100,000 USDC: all of one deposit
SIGNER_MAX_HOURLY_MICROS = env_int("SIGNER_MAX_HOURLY_MICROS", 250_000_000_000)  # 250,000 USDC: time to stop a thief in
SIGNER_MAX_DEPOSIT_MICROS = env_int("SIGNER_MAX_DEPOSIT_MICROS", 100_000_000_000)  # 100,000 USDC into one pool at once
# A signature is good for so long at most: what settlement and payers need, and ten minutes of clocks that differ.
SIGNER_MAX_DEADLINE_SECONDS = env_int("SIGNER_MAX_DEADLINE_SECONDS", max(SETTLE_DEADLINE, 3_600) + 600)

# --- Webhooks: requests that we make to addresses that users name ------------------------------------------------------
LOCAL_WEBHOOKS = env_bool("LOCAL_WEBHOOKS")  # http and this machine's own addresses, for a market tried on one machine
if PRODUCTION and LOCAL_WEBHOOKS:
    raise ImproperlyConfigured(
        "LOCAL_WEBHOOKS must be off when ENVIRONMENT is production: it lets users call this machine."
    )
OUTSIDE_REFUSED_NETWORKS = env_list("OUTSIDE_REFUSED_NETWORKS")  # public networks of your own: never called either
OUTSIDE_LOOKUP_SECONDS = 5.0  # for a host's addresses: a name server that never answers must not hold a web thread
OUTSIDE_ANSWER_BYTES = 16 * 1024  # of an answer are read; nothing of it is kept
WEBHOOK_MAX_ENDPOINTS = env_int("WEBHOOK_MAX_ENDPOINTS", 10)  # of one owner: each gets every event
WEBHOOK_TIMEOUT_SECONDS = 15.0  # for an attempt in all: a receiver stores the message and answers, and works afterwards
WEBHOOK_RETRY_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)  # three days: a weekend's outage
WEBHOOK_JITTER = 0.1  # of each pause: what failed together must not come again together
WEBHOOK_LEASE_SECONDS = 30  # above the timeout: an attempt that was cut off is made again after it
WEBHOOK_THREADS = env_int("WEBHOOK_THREADS", 8)  # attempts at once in a worker process; each waits for its receiver
WEBHOOK_TURN_SECONDS = 1.0  # that an endpoint has a thread for, one message after the other; then another may have it
WEBHOOK_PER_ENDPOINT = 4  # of them to one endpoint; half the threads at most to all that fail, one to each of those
WEBHOOK_FAN_OUT = 500  # events of an endpoint in a sweep: a short database transaction
WEBHOOK_MAX_PENDING = 10_000  # deliveries that wait for one endpoint; the rest of its feed waits in the feed
WEBHOOK_DISABLE_AFTER = timedelta(days=5)  # of nothing but failures, and a delivery given up: nobody is there
WEBHOOK_KEEP = timedelta(days=30)  # what is delivered or given up is listed so long, and can be sent again
WEBHOOK_OVERLAP_SECONDS = 24 * 3600  # after a rotation both secrets sign: a day to give receivers the new one

# --- The API ---------------------------------------------------------------------------------------------------------
API_MAX_BODY_BYTES = 256 * 1024  # a deliverable fits; a flood of megabytes does not
API_BODY_SECONDS = 10  # to send a body in; a caller who takes longer is left
API_MAX_JSON_DEPTH = 32  # deeper documents are attacks on the parser
# How often: in each process of the web, unless a storage is named (docs/decisions/rate-limits-in-process.md).
RATE_LIMIT_CALLS = env("RATE_LIMIT_CALLS", "6000/minute")  # of one key: an eager program; a loop gone wild is stopped
RATE_LIMIT_PAYMENTS = env("RATE_LIMIT_PAYMENTS", "600000/minute")  # of one key: above what one server does
RATE_LIMIT_REFUSALS = env(
    "RATE_LIMIT_REFUSALS", "6000/minute"
)  # of one key: each refused payment is kept as a decision
RATE_LIMIT_UNAUTHENTICATED = env(
    "RATE_LIMIT_UNAUTHENTICATED", "600/minute"
)  # bad keys of one address: each asks the database
RATE_LIMIT_STORAGE = env(
    "RATE_LIMIT_STORAGE"
)  # redis://host/1: RATE_LIMIT_CALLS over all processes; payments never ask it
BACKTEST_AT_ONCE = max(1, WEB_THREADS // 2)  # each works for up to a second or two: the others stay for everybody else
CSV_AT_ONCE = max(1, WEB_THREADS // 2)  # whoever reads one slowly holds a thread: the others stay for everybody else
API_PAGE_DEFAULT = 50
API_PAGE_MAX = 200  # keeps a page under a megabyte
API_PAGE_MAX_BATCHES = 20  # so does this: a batch of 200 records, with its calldata, is shown in 50 KB
DATA_UPLOAD_MAX_MEMORY_SIZE = API_MAX_BODY_BYTES
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200  # the admin's largest form
TASK_DEFAULT_DUE = timedelta(hours=24)
TASK_MAX_DUE = timedelta(days=30)
TASK_GRACE = timedelta(hours=1)
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_PARSER_CLASSES": ["marketplace.api.parsing.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "marketplace.api.schema.Schema",
    "DEFAULT_AUTHENTICATION_CLASSES": [],  # an operation asks for its key itself: marketplace.api.endpoint
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_METADATA_CLASS": None,  # OPTIONS has no answer; the OpenAPI document has it
    "EXCEPTION_HANDLER": "marketplace.api.errors.handle",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Agent Market",
    "DESCRIPTION": (
        "Agents hire and pay each other; the money waits in escrow.\n\n"
        "Amounts are decimal strings of USDC with at most six decimals; times are RFC 3339 in UTC; unknown members are "
        "refused. Every operation that moves money takes an `Idempotency-Key`: the same key with the same request has "
        "one effect and one answer. Refusals are problem documents (RFC 9457) with a `code`, the facts, and what can "
        "be sent next."
    ),
    "VERSION": "0.1.0",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "POSTPROCESSING_HOOKS": [],  # the shapes name their own parts
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "apiKey": {"type": "http", "scheme": "bearer", "description": "A key of a payer, a session or a provider."}
        }
    },
}

# --- Security --------------------------------------------------------------------------------------------------------
SECURE_SSL_REDIRECT = PRODUCTION and env_bool("SECURE_SSL_REDIRECT", default=True)
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^livez$", r"^readyz$", r"^metrics$"]  # asked from inside, in plain HTTP
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = PRODUCTION
SECURE_HSTS_PRELOAD = PRODUCTION
BEHIND_PROXY = env_bool("BEHIND_PROXY")
if BEHIND_PROXY:  # only then may a header say that the caller came over TLS
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = PRODUCTION
CSRF_COOKIE_SECURE = PRODUCTION
SESSION_COOKIE_AGE = 12 * 3600  # seconds; a person who rules disputes signs in once a day
SESSION_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"

# --- Logs ------------------------------------------------------------------------------------------------------------
LOG_FORMAT = env("LOG_FORMAT", "json" if PRODUCTION else "text")
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "marketplace.logs.Json"}, "text": {"()": "marketplace.logs.Text"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["console"], "level": env("LOG_LEVEL", "INFO")},
    "loggers": {
        # Django's own handlers would write every line twice, and mail nobody.
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
        # One line for each beat of each sweep says nothing; a task that fails is an error.
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.worker.request": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
    },
}
