# `diffusionad serve`: the embedded Triton, on a CPU, from our wheels and Debian alone.
#
#   docker build --file tools/deploy/images/cpu.Dockerfile \
#     --build-arg BASE=docker.io/library/debian@sha256:... --tag diffusionad-cpu .   # in the root folder
#
# BASE is a Debian 12: Python 3.11 and a glibc that the embedded Triton takes. Its Triton has known
# holes, so the server belongs behind the gateway.
ARG BASE
FROM ${BASE} AS built
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY client /src/client
COPY tools /src/tools
# Wheels first, and from them alone: what is served is what is released.
ARG PIP_INDEX_URL
RUN python3 -m venv /build && /build/bin/pip install --no-cache-dir build \
    && /build/bin/python -m build --wheel --outdir /wheels /src/client \
    && /build/bin/python -m build --wheel --outdir /wheels /src/tools \
    && python3 -m venv --without-pip /opt/diffusionad \
    && /build/bin/pip --python /opt/diffusionad/bin/python install --no-cache-dir \
        /wheels/diffusionad_client-*.whl "$(echo /wheels/diffusionad_tools-*.whl)[signing]"

FROM ${BASE}
# libpython is what Triton runs its models' processes with.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 libpython3.11 \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir /models
COPY --from=built /opt/diffusionad /opt/diffusionad
ENV PATH=/opt/diffusionad/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
EXPOSE 8001 8002
VOLUME ["/models"]
HEALTHCHECK --interval=15s --timeout=10s --start-period=10m --retries=4 \
    CMD ["diffusionad", "health", "--deep", "--allow-busy", "--timeout", "8"]
ENTRYPOINT ["diffusionad"]
CMD ["serve", "--repository=/models", "--model-config-name=cpu", "--host=0.0.0.0", "--unsafe-bind", "--max-restarts=0"]
