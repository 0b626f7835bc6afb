# syntax=docker/dockerfile:1
# The dispatcher's image: takes work in and starts workers. No torch, no CUDA, no model.
#
#   docker build -t nightreel-dispatcher -f dispatcher.Dockerfile .

ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN pip install hatchling==1.33.0
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY queue queue
COPY storage storage
COPY pipelines pipelines
COPY worker worker
COPY dispatcher dispatcher
COPY cli cli
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

FROM ${PYTHON} AS dispatcher
LABEL org.opencontainers.image.title="Nightreel's dispatcher" org.opencontainers.image.licenses="Apache-2.0"
ENV PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN useradd --create-home --uid 10001 nightreel
COPY requirements-dispatcher.txt /tmp/
RUN pip install --requirement /tmp/requirements-dispatcher.txt
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-deps --no-index /dist/*.whl && pip check && nightreel schema > /dev/null
USER 10001
WORKDIR /home/nightreel
EXPOSE 8080
ENTRYPOINT ["nightreel"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
