"""A worker's app that gives a message out again after a second, as a broker does with whatever takes longer than it allows."""

from marketplace.celery import app

app.conf.broker_transport_options = {
    **app.conf.broker_transport_options,
    "visibility_timeout": 1,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
