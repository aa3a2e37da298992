# One image for worker, API and the `ais` command: the wheel and what it needs, nothing else.
# The manual, which the API serves: as `make site` builds it.
FROM python:3.11.13-slim-bookworm AS site
WORKDIR /src
COPY requirements-docs.txt .
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements-docs.txt
COPY zensical.toml .
COPY docs docs
COPY manual manual
RUN zensical build --clean --strict && rm build/manual/404.html && python -m manual.whole build/manual

FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
COPY . .
COPY --from=site /src/build/manual manual/site
# What builds the wheel is locked as well: its entry of the lock file for development.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements-dev.txt > build.txt \
    && pip install --no-cache-dir --require-hashes --no-deps -r build.txt \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11.13-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

COPY requirements.txt .
RUN pip install --require-hashes --no-deps -r requirements.txt \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ais
COPY --from=build /wheels /wheels
RUN pip install --no-deps /wheels/*.whl

USER 10001
EXPOSE 8000
ENTRYPOINT ["ais"]
