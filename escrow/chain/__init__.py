"""The chain room: the only place that speaks web3. No Django, no Celery; import the module you need."""
