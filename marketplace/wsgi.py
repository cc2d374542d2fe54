"""The web's entry for a WSGI server. Everything is loaded here, once, before the first request comes."""

import gc
import os

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")

application = get_wsgi_application()
_routes = get_resolver().url_patterns  # loads every view
gc.collect()
gc.freeze()  # what is loaded stays: without this every full collection walks it again, in the middle of a payment
