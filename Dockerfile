# One image for worker, API and the `ais` command.
FROM python:3.11.13-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONPATH=/app
WORKDIR /app

COPY requirements.txt .
RUN pip install --require-hashes --no-deps -r requirements.txt \
    && printf '#!/bin/sh\nexec python -m cli "$@"\n' > /usr/local/bin/ais && chmod 0755 /usr/local/bin/ais \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ais

COPY *.py ./
COPY domain domain
COPY workflows workflows
COPY activities activities
COPY storage storage
COPY api api

USER 10001
EXPOSE 8000
ENTRYPOINT ["ais"]
