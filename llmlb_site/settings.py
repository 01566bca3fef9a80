"""Django's settings, all derived from `Config`: see docs/settings.md for what an operator may set."""

from pathlib import Path
from typing import Any

import dj_database_url
import django_stubs_ext
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from llmlb_site import __version__
from llmlb_site.lib.config import read_cloud, read_config
from llmlb_site.lib.crypto import load_or_create_secret_key
from llmlb_site.lib.logs import logging_config

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
LLMLB = read_config(BASE_DIR)
CLOUD = read_cloud()

SECRET_KEY = LLMLB.secret_key or load_or_create_secret_key(LLMLB.data_dir)
DEBUG = False
ALLOWED_HOSTS = list(LLMLB.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(LLMLB.csrf_trusted_origins)

INSTALLED_APPS = [
    "llmlb_site.serve",  # before daphne: its `runserver` also starts the embedded worker
    "daphne",
    "llmlb_site.lib",
    "access",
    "nodes",
    "models_catalog",
    "history",
    "routing",
    "llmlb_site.dashboard",
    "llmlb_site.dashboard.adminsite.FleetAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic.runserver_nostatic",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "csp",
]

MIDDLEWARE = [
    "llmlb_site.lib.forwarded.ForwardedSchemeMiddleware",  # first: the others ask whether it is https
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "access.middleware.AccessMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "llmlb_site.urls"
ASGI_APPLICATION = "llmlb_site.asgi.application"
APPEND_SLASH = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "llmlb_site.dashboard.context.site",
            ],
        },
    }
]

# --- database -----------------------------------------------------------------------------------------------------


def _database() -> dict[str, Any]:
    url = LLMLB.database_url or f"sqlite:///{LLMLB.data_dir / 'llmlb.sqlite3'}"
    try:
        database: dict[str, Any] = dict(dj_database_url.parse(url))
    except (ValueError, KeyError) as error:
        raise ImproperlyConfigured(
            "LLMLB_DATABASE_URL: must be sqlite:///path or postgres://user@host/name."
        ) from error
    engine = database["ENGINE"]
    if engine.endswith("sqlite3"):
        # Any one of these alone still gives "database is locked" under load; together they gave none in 1 080 tries.
        database["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA journal_size_limit=67108864;"
            "PRAGMA cache_size=-16000; PRAGMA temp_store=MEMORY;",
        }
        # Threads share no connection, so a test database must be a file.
        database["TEST"] = {"NAME": str(LLMLB.data_dir / "test.sqlite3")}
    elif engine.endswith("postgresql"):
        database["CONN_MAX_AGE"] = 0  # the pool keeps them; under ASGI a persistent connection would never be closed
        database["CONN_HEALTH_CHECKS"] = True  # a connection that outlived its server is not handed out
        # A server that was away for long is not tried less and less often: whoever needs it tries anew.
        pool = {"min_size": 1, "max_size": LLMLB.database_pool, "timeout": 5, "reconnect_timeout": 3}
        # A server that vanishes without a word (its host is gone, a firewall forgot the connection) is noticed within
        # half a minute: by themselves Linux and libpq wait for a quarter of an hour, or for two.
        silent = {"connect_timeout": 5, "tcp_user_timeout": 20_000}
        silent |= {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2}
        # What the URL says behind its ? is libpq's: sslmode, sslrootcert, connect_timeout …
        database["OPTIONS"] = {**silent, **database.get("OPTIONS", {}), "pool": pool}
        if not database["NAME"] and "service" not in database["OPTIONS"]:
            raise ImproperlyConfigured("LLMLB_DATABASE_URL: names no database: postgres://user@host/name.")
    else:
        raise ImproperlyConfigured("LLMLB_DATABASE_URL: only sqlite:// and postgres:// are supported.")
    return database


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- what the Redis URL flips, all of it together -----------------------------------------------------------------
# No channel layer: events reach every process through `lib.relay`, and each tells its own open dashboards.

if LLMLB.redis_url:
    CACHES: dict[str, Any] = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": LLMLB.redis_url,
            "KEY_PREFIX": "llmlb",
            "OPTIONS": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5},  # a sign-in does not wait for Redis
        }
    }
    CELERY_BROKER_URL = LLMLB.redis_url
    if CELERY_BROKER_URL.startswith("rediss:") and "ssl_cert_reqs=" not in CELERY_BROKER_URL:
        # Where nothing is said of certificates Celery believes any; everybody else here asks for a good one.
        CELERY_BROKER_URL += ("&" if "?" in CELERY_BROKER_URL else "?") + "ssl_cert_reqs=required"
    CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": "llmlb:celery:"}
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    CELERY_BROKER_URL = "memory://localhost/"  # the host means nothing, but without one kombu warns
    CELERY_BROKER_TRANSPORT = "llmlb_site.serve.broker:Transport"

# --- Celery: fixed ticks; what is due is a column on the row -------------------------------------------------------

CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # Celery would give up after an hour
# A Redis that has become a replica, or has no memory left, is one that is away.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_TIMEZONE = "UTC"
CELERY_TASK_DEFAULT_QUEUE = "llmlb"
# The schedule is fixed: nothing to keep in a file. Of several beats on one Redis, one ticks.
CELERY_BEAT_SCHEDULER = "llmlb_site.beat:LeasedScheduler" if LLMLB.redis_url else "llmlb_site.beat:SteadyScheduler"
CELERY_BEAT_SCHEDULE = {
    "look-after-nodes": {"task": "nodes.tick", "schedule": 1.0, "options": {"expires": 2}},
    "prune-polls": {"task": "nodes.prune_polls", "schedule": 3600.0, "options": {"expires": 600}},
    "refresh-providers": {"task": "models_catalog.refresh_providers", "schedule": 10.0, "options": {"expires": 8}},
    "prepare-history": {"task": "history.prepare_days", "schedule": 3600.0, "options": {"expires": 600}},
    "prune-history": {"task": "history.prune", "schedule": 3600.0, "options": {"expires": 600}},
    "prune-credentials": {"task": "access.prune", "schedule": 3600.0, "options": {"expires": 600}},
}

# --- people -------------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "access.User"
AUTHENTICATION_BACKENDS = ["access.backends.RoleBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "overview"
LOGOUT_REDIRECT_URL = "login"
SESSION_COOKIE_AGE = LLMLB.session_days * 86400
SESSION_COOKIE_NAME = "llmlb_session"
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = "llmlb_csrf"
CSRF_FAILURE_VIEW = "llmlb_site.dashboard.errors.csrf_failure"

# --- what browsers are told ---------------------------------------------------------------------------------------

X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")  # of trusted proxies alone: see ForwardedSchemeMiddleware
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

# --- API ----------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "access.api.authentication.BearerAuthentication",
        "access.api.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["access.api.rules.DeclaredRule"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["access.api.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "access.api.schema.RuleSchema",
    "EXCEPTION_HANDLER": "access.api.errors.handle",
    "UNAUTHENTICATED_USER": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "llmlb management API",
    "VERSION": __version__,
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api",
    "COMPONENT_SPLIT_PATCH": False,  # our serializers of changes say themselves what may be left out
    "COMPONENT_SPLIT_REQUEST": True,  # what is asked for is not what is answered:
    "ENFORCE_NON_BLANK_FIELDS": True,  # a text that is sent may not be empty where none is allowed
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "access.api.schema.add_errors",
    ],
    "ENUM_NAME_OVERRIDES": {"NodeTypeEnum": "nodes.models.NodeType", "NodeStatusEnum": "nodes.models.NodeStatus"},
}

# --- languages, time, files, logs ---------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ja", "日本語")]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = "llmlb_site.lib.formats"

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = LLMLB.data_dir / "staticfiles"
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = False
SERVESTATIC_MANIFEST_STRICT = False

DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
LOGGING = logging_config(LLMLB.log_level, LLMLB.log_format)
