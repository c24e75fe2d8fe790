# syntax=docker/dockerfile:1
# Three images from one file:
#   docker build --target cpu -t aqaa:cpu .            the gateway, nano or vllm-http; no GPU needed
#   docker build --target gpu -t aqaa:gpu .            the same with vLLM in the process, for CUDA
#   docker build --target decoder -t aqaa:decoder .    vLLM alone, for gateways with vllm-http
# Not built where this was written (no Docker engine there): the same steps run in .ci/run.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY tokenizers tokenizers
COPY vocoder vocoder
COPY server server
COPY clients clients
COPY recipe recipe
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.11-slim AS base
# A folder named `tokenizers` in the working directory must never win over Hugging Face's package.
ENV PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
RUN useradd --create-home --uid 10001 aqaa
COPY --from=build /wheels /wheels
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
ENTRYPOINT ["aqaa"]
CMD ["serve", "--host", "0.0.0.0"]

FROM base AS cpu
# Name PyTorch's index of CPU wheels here, else pip brings a CUDA build of several gigabytes.
ARG PIP_EXTRA_INDEX_URL
COPY deploy/without_cuda.py /usr/local/lib/aqaa/
RUN pip install /wheels/*.whl \
    && python /usr/local/lib/aqaa/without_cuda.py
USER aqaa

FROM base AS gpu
RUN pip install "$(ls /wheels/*.whl)[vllm]"
USER aqaa

# vLLM's own image and our logits processors. They need nothing that is not in it.
FROM vllm/vllm-openai:v0.32.0 AS decoder
COPY --from=build /wheels /wheels
RUN uv pip install --system --no-deps /wheels/*.whl
# The image's own user: uid 2000, group 0, with a cache in /home/vllm.
USER 2000:0
