"""The settings of the naive project: Django's and REST framework's defaults, less what a JSON API does not use."""

import os
from typing import Any

import dj_database_url

SECRET_KEY = os.environ.get("SECRET_KEY", "only for benchmarks")
API_KEY_PEPPER = os.environ.get("API_KEY_PEPPER", SECRET_KEY)
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["rest_framework", "benchmarks.naive"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "benchmarks.naive.urls"
WSGI_APPLICATION = "benchmarks.naive.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(
        os.environ.get("NAIVE_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/benchmark_naive"),
        conn_max_age=None,  # a connection for each request would make it slower still
    )
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["benchmarks.naive.auth.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "UNAUTHENTICATED_USER": None,
}
