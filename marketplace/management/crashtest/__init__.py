"""The fault harness behind `manage.py crashtest`: real workers and web servers die and err, and the money must not notice.

Lives here: a ground of its own for each lane (`ground`), workers that are forked and die (`zygote`, `crew`), what the harness
has asked for (`asked`), what the chain and the books say of it (`judge`), and the plays: `kills`, `histories`, `recovery`.
Nothing here is imported by the service.
"""
