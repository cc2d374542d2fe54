#!/usr/bin/env python
"""The command line of the project: `python manage.py help`."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as wrong:  # EX_CONFIG of sysexits.h: commands' own exit codes are answers
        sys.stderr.write(f"{wrong}\n")
        sys.exit(78)
