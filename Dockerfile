# Two images from one file: `operator` (small, no torch) and `trainer` (torch and friends in one layer, the project's own
# files in the last one, so that a change of the project never rebuilds or ships the big layer again).
#
#   docker build --target operator -t finetune-operator:dev .
#   docker build --target trainer  -t finetune-trainer:dev .
#
# Both run as any non-root user on a read-only root file system: all that is written goes to /tmp. BASE may be any image
# with Python 3.11 and pip.
ARG BASE=python:3.11-slim

# --- operator
FROM ${BASE} AS operator-build
COPY requirements/uv.txt requirements/operator.txt /requirements/
# The installer (uv) lives in /tmp/uv for this one step and is part of no image.
RUN python3 -m pip install --quiet --no-cache-dir --no-compile --require-hashes --root-user-action ignore --target /tmp/uv -r /requirements/uv.txt \
    && python3 -m venv --without-pip /opt/venv \
    && /tmp/uv/bin/uv pip install --quiet --no-cache --link-mode copy --python /opt/venv --require-hashes -r /requirements/operator.txt \
    && rm -rf /tmp/uv \
    && find /opt/venv -type d \( -name tests -o -name test -o -name __pycache__ \) -prune -exec rm -rf {} + \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib
COPY crds/finetune_api /opt/app/finetune_api
COPY operator/finetune_operator /opt/app/finetune_operator
RUN find /opt/app -name __pycache__ -prune -exec rm -rf {} + \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/app

FROM ${BASE} AS operator
COPY --from=operator-build /opt/venv /opt/venv
COPY --from=operator-build /opt/app /opt/app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=finetune
WORKDIR /tmp
USER 65532:65532
EXPOSE 8080 8081 8443
ENTRYPOINT ["python", "-m", "finetune_operator"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="finetune-operator" \
      org.opencontainers.image.description="Operator for FineTuneJobs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# --- trainer: torch alone in the big layer, which changes only with torch; then its friends; then the project. Made in
# place, since copying a layer from another stage would write it twice.
# (compileall may fail: torch ships files with the syntax of newer Pythons, which nothing imports here)
FROM ${BASE} AS trainer
COPY requirements/uv.txt requirements/torch.txt /opt/requirements/
RUN python3 -m pip install --quiet --no-cache-dir --no-compile --require-hashes --root-user-action ignore --target /tmp/uv -r /opt/requirements/uv.txt \
    && python3 -m venv --without-pip /opt/venv \
    && /tmp/uv/bin/uv pip install --quiet --no-cache --link-mode copy --python /opt/venv --require-hashes -r /opt/requirements/torch.txt \
    && rm -rf /tmp/uv \
    && find /opt/venv -type d \( -name tests -o -name test -o -name __pycache__ \) -prune -exec rm -rf {} + \
    && (/opt/venv/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/venv/lib || true)
COPY requirements/trainer.txt /opt/requirements/
# only what is new here is trimmed and compiled: touching torch's files again would write them twice
RUN python3 -m pip install --quiet --no-cache-dir --no-compile --require-hashes --root-user-action ignore --target /tmp/uv -r /opt/requirements/uv.txt \
    && cd /opt/venv/lib/python3*/site-packages && ls | sort > /tmp/before \
    && /tmp/uv/bin/uv pip install --quiet --no-cache --link-mode copy --python /opt/venv --require-hashes -r /opt/requirements/trainer.txt \
    && ls | sort | comm -13 /tmp/before - > /tmp/new \
    && xargs -I@ find @ -type d \( -name tests -o -name test -o -name __pycache__ \) -prune -exec rm -rf {} + < /tmp/new \
    && (xargs /opt/venv/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash < /tmp/new || true) \
    && rm -rf /tmp/uv /tmp/before /tmp/new
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=finetune \
    HF_HOME=/tmp/huggingface \
    XDG_CACHE_HOME=/tmp/cache \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    TRITON_CACHE_DIR=/tmp/triton \
    TOKENIZERS_PARALLELISM=false
WORKDIR /tmp
COPY crds/finetune_api /opt/app/finetune_api
COPY trainer/finetune_trainer /opt/app/finetune_trainer
RUN find /opt/app -name __pycache__ -prune -exec rm -rf {} + \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/app
USER 65532:65532
ENTRYPOINT ["python", "-m", "finetune_trainer"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="finetune-trainer" \
      org.opencontainers.image.description="Trainer for FineTuneJobs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
