# Triton with what the encoded form of a category and the probes need: diffusionad-client and Pillow.
#
#   docker build --file tools/deploy/images/gpu.Dockerfile \
#     --build-arg TRITON=nvcr.io/nvidia/tritonserver@sha256:... --tag diffusionad-triton .  # in the root folder
#
# TRITON has no default: take release 26.07 or later, which has all fixes up to the middle of 2026, by
# its digest. The whole image is for a GPU or a CPU; what is added needs neither.
ARG TRITON
FROM ${TRITON}

COPY client /tmp/client
# Twice. For Triton's own Python, which runs `image_decoding`: no dependencies, since decoding needs
# numpy, which Triton's Python backend has, and Pillow; newer bases guard that Python against pip, which is the
# right one here. And for `diffusionad health`, all of it, where it cannot get into Triton's way.
RUN PIP_BREAK_SYSTEM_PACKAGES=1 pip install --no-cache-dir --no-deps /tmp/client 'pillow>=10.3,<14' \
    && python3 -c 'import diffusionad_client.images' \
    && pip install --no-cache-dir --target /opt/diffusionad /tmp/client \
    && printf '#!/usr/bin/python3 -I\nimport sys\nsys.path.insert(0, "/opt/diffusionad")\nfrom diffusionad_client.cli import main\nmain()\n' \
        > /usr/local/bin/diffusionad \
    && chmod 755 /usr/local/bin/diffusionad \
    && diffusionad --version \
    && rm -rf /tmp/client \
    && mkdir -p /models /var/cache/diffusionad/tensorrt \
    && chown 10001:10001 /var/cache/diffusionad/tensorrt

USER 10001:10001
EXPOSE 8001 8002
VOLUME ["/models", "/var/cache/diffusionad/tensorrt"]
HEALTHCHECK --interval=15s --timeout=10s --start-period=30m --retries=4 \
    CMD ["diffusionad", "health", "--deep", "--allow-busy", "--timeout", "8"]
# NVIDIA's entry point is a script that prints a banner; nothing of it is needed.
ENTRYPOINT ["tritonserver"]
CMD ["--model-repository=/models", "--disable-auto-complete-config", "--allow-http=false"]
