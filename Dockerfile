# The service: web, workers, beat and one-shot commands, chosen by the command. See docker-compose.yml.
FROM python:3.11-slim-bookworm AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.txt /tmp/requirements.txt
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --require-hashes --no-deps -r /tmp/requirements.txt

FROM python:3.11-slim-bookworm
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=production \
    STATIC_ROOT=/srv/static
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin market \
    && useradd --system --uid 10002 --gid market --no-create-home --shell /usr/sbin/nologin signer \
    && install -d -o signer -g market -m 0700 /srv/keys /srv/journal \
    && install -d -o signer -g market -m 0750 /srv/addresses /run/signer
COPY --from=packages /opt/venv /opt/venv
WORKDIR /srv/app
COPY manage.py LICENSE ./
COPY contracts/artifacts contracts/artifacts
COPY escrow escrow
COPY marketplace marketplace
# Compiled here, because the file system is read-only when it runs. No secret is needed to collect static files.
RUN python -m compileall -q escrow marketplace manage.py \
    && ENVIRONMENT=development python manage.py collectstatic --noinput -v 0
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
CMD ["python", "-m", "marketplace.server", "--host", "0.0.0.0"]
