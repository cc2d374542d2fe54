"""Times as ISO 8601 has them. They are UTC everywhere: `TIME_ZONE` says so."""

DATE_FORMAT = "Y-m-d"
DATETIME_FORMAT = r"Y-m-d\TH:i:s\Z"
TIME_FORMAT = "H:i:s"
