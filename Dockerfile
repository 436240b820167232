# Two stages: the first makes wheels (ours with its core compiled) and installs them, everything checked by hash; the second holds the result.
# `make image-steps` runs these very steps without a container engine.
# Named by digest in a release: `make pin-images` writes it, `make release-check` demands it.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /src
COPY requirements-build.lock requirements-runtime.lock ./
RUN python -m pip install --no-cache-dir --require-hashes -r requirements-build.lock
RUN python -m pip wheel --no-cache-dir --require-hashes --wheel-dir /wheels -r requirements-runtime.lock
RUN command -v gcc >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev; }
COPY pyproject.toml README.md LICENSE ./
COPY deploy/build_hook.py ./deploy/
COPY processor ./processor
ARG REVISION=unknown
RUN BUILD_COMMIT="${REVISION:-unknown}" HATCH_BUILD_HOOKS_ENABLE=1 python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .
RUN python -m venv --without-pip /opt/run-steps
RUN python -m pip --python /opt/run-steps/bin/python install --no-cache-dir --no-index --no-deps /wheels/*.whl
RUN /opt/run-steps/bin/python -m compileall -q /opt/run-steps/lib

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="run-steps" \
      org.opencontainers.image.description="Finished run steps from the event stream of AI agents, exactly once, on Kafka" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/run-steps /opt/run-steps
ENV PATH=/opt/run-steps/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RUN_STEPS_HTTP__HOST=0.0.0.0 \
    RUN_STEPS_LOG__FORMAT=json
# A number and not a name, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/opt/run-steps/bin/python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('RUN_STEPS_HTTP__PORT', '8080') + '/healthz', timeout=4)"]
ENTRYPOINT ["/opt/run-steps/bin/python", "-m", "processor"]
CMD ["serve"]
