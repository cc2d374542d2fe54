"""The WSGI door of the service: Django and nothing else."""

import os

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")

application = get_wsgi_application()
ROUTES = get_resolver().url_patterns  # every view is loaded now: the first request must not wait a second for it
