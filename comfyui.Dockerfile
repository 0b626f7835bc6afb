# syntax=docker/dockerfile:1
# A ComfyUI server for pods: draws keyframes for workers elsewhere. No model inside: they lie on a volume.
#
#   docker build -t nightreel-comfyui -f comfyui.Dockerfile .
#   docker run --gpus all -p 127.0.0.1:8188:8188 -v /srv/comfyui:/workspace nightreel-comfyui
#
# Models are looked for in models/ of /workspace and /runpod-volume, in ComfyUI's own folders: diffusion_models, text_encoders,
# vae, checkpoints, loras. It asks nobody who he is: let no stranger reach its port, or put a proxy with a token before it.

ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS comfyui
ARG COMFYUI=a125cd84b054a57729b5eecab930ca9408719832
LABEL org.opencontainers.image.title="ComfyUI for Nightreel" org.opencontainers.image.licenses="GPL-3.0"
# PYTHONSAFEPATH: no module is taken from the working folder; ComfyUI's own lie where PYTHONPATH says.
ENV PYTHONSAFEPATH=1 \
    PYTHONPATH=/opt/comfyui \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --create-home --uid 10001 comfyui \
    && install --directory --owner=comfyui /data /data/custom_nodes /data/input /data/output /data/temp /data/user
# Builds for CUDA 12, as the worker's image has them: they run on drivers of release 535 and newer.
RUN pip install torch==2.10.0 torchaudio==2.10.0 torchvision==0.25.0
ADD https://github.com/comfyanonymous/ComfyUI.git#${COMFYUI} /opt/comfyui
RUN pip install --requirement /opt/comfyui/requirements.txt && pip check
RUN mkdir /etc/comfyui && for place in workspace runpod-volume; do \
        printf '%s:\n  base_path: /%s/models\n' "$place" "$place" \
        && printf '  %s: %s\n' checkpoints checkpoints diffusion_models diffusion_models loras loras \
            text_encoders text_encoders vae vae; \
    done > /etc/comfyui/models.yaml
USER 10001
WORKDIR /data
EXPOSE 8188
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8188/system_stats', timeout=8)"]
ENTRYPOINT ["python", "/opt/comfyui/main.py", "--base-directory", "/data", "--database-url", "sqlite:////data/user/comfyui.db", \
    "--extra-model-paths-config", "/etc/comfyui/models.yaml", "--disable-metadata"]
CMD ["--listen", "0.0.0.0", "--port", "8188"]
