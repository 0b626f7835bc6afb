# syntax=docker/dockerfile:1
# The worker's image: for an NVIDIA GPU with a driver of release 535 or newer (CUDA 12), or for a look on a CPU.
#
#   docker build -t nightreel .
#   docker build -t nightreel --build-arg WEIGHTS=baked .      with ./weights/MODEL inside, at /models/MODEL
#
# Everything is a wheel, so no stage needs a compiler. CUDA comes with torch's wheels; the driver comes from the host.
# No allocator setting: none has been measured to help. The layers that change least come first.

ARG PYTHON=python:3.11-slim-bookworm
ARG WEIGHTS=none

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

FROM ${PYTHON} AS weights-none
RUN mkdir /models

FROM ${PYTHON} AS weights-baked
COPY weights /models

# hadolint ignore=DL3006  # a stage above, chosen by the argument
FROM weights-${WEIGHTS} AS weights

FROM ${PYTHON} AS worker
LABEL org.opencontainers.image.title="Nightreel's worker" org.opencontainers.image.licenses="Apache-2.0"
# PYTHONSAFEPATH: a file in the working folder is never taken for a module.
# NVIDIA_*: what a host outside Cloud Run lends; Cloud Run lends all, and mounts it below /usr/local/nvidia.
ENV PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/usr/local/nvidia/bin \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    NIGHTREEL_WEIGHTS=/models \
    HF_HUB_OFFLINE=1
RUN useradd --create-home --uid 10001 nightreel
COPY requirements.txt /tmp/
RUN pip install --requirement /tmp/requirements.txt
COPY --from=weights /models /models
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-deps --no-index /dist/*.whl && pip check && nightreel schema > /dev/null
USER 10001
WORKDIR /home/nightreel
ENTRYPOINT ["nightreel"]
CMD ["work"]
