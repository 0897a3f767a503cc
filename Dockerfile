# Three images out of one file:
#
#   docker build --target controller .   HTTP and search, without torch or vLLM: sampling is done by
#                                        the vLLM servers that STEPBACK_ENGINE_URLS names
#   docker build --target cpu .          everything on a CPU: the embedded engine, or a vLLM server
#   docker build --target cuda .         the same on CUDA, over the official vLLM image
#
# The bases are named to the patch. A tag can still be built anew, as Debian's fixes come in: to pin them
# for good, give them by digest (NAME:TAG@sha256:...). Stages that build use
# BUILD_IMAGE, which may know a package mirror or certificates: nothing of it but the installed
# packages reaches an image. Each image's stages stand together and in this order, since the classic
# builder builds every stage above its target.
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm
ARG BUILD_IMAGE=${PYTHON_IMAGE}
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0


FROM ${BUILD_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The environment gets no pip of its own.
RUN python -m venv --without-pip /opt/stepback
WORKDIR /source


# The project alone: laid over its dependencies, it is the one small layer that a change renews.
FROM build AS application
COPY requirements-build.lock .
RUN pip install --quiet --break-system-packages --no-deps --require-hashes \
    --only-binary :all: -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY client client
COPY server server
COPY training training
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/stepback/bin/python install --quiet --no-deps /wheels/*.whl


# The documentation, which the server has at /guide/.
FROM build AS guide
COPY docs/requirements.txt docs/
RUN python -m venv /opt/site \
    && /opt/site/bin/pip install --quiet --no-deps --require-hashes -r docs/requirements.txt
COPY mkdocs.yml ./
COPY docs docs
COPY client client
COPY core core
COPY server server
COPY training training
RUN NO_MKDOCS_2_WARNING=1 /opt/site/bin/mkdocs build --strict --quiet --site-dir /guide


# What the images on Python's own base have in common. They need no file that they could write but
# below /tmp: run them with a read-only root and a tmpfs there.
FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp stepback
# USER: a cluster may run it under an id that has no name, and torch asks for one.
ENV PATH=/opt/stepback/bin:$PATH HOME=/tmp USER=stepback PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    STEPBACK_HOST=0.0.0.0 STEPBACK_MODEL=/models/multitask-10m STEPBACK_GUIDE_DIR=/guide
COPY models /models
COPY --from=guide /guide /guide
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
# Not urllib, which would ask a proxy of the environment for this very container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD \
    ["python", "-c", "from os import environ as e; from http.client import HTTPConnection as C; c = C('127.0.0.1', int(e.get('STEPBACK_PORT') or 8000), timeout=4); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["stepback"]
CMD ["serve"]


FROM build AS controller-dependencies
COPY requirements-controller.lock .
RUN pip --python /opt/stepback/bin/python install --quiet --no-deps --require-hashes \
    --only-binary :all: -r requirements-controller.lock


FROM runtime AS controller
# It would say at every start that there is no torch.
ENV TRANSFORMERS_NO_ADVISORY_WARNINGS=1
COPY --from=controller-dependencies /opt/stepback /opt/stepback
COPY --from=application /opt/stepback /opt/stepback


FROM build AS cpu-dependencies
# vLLM's CPU kernels are linked against it, and the base image lacks it.
RUN apt-get update -qq && apt-get install -qq --no-install-recommends libnuma1 >/dev/null \
    && cp /usr/lib/*-linux-gnu/libnuma.so.1 /opt/stepback/lib/
# Where pip also looks, for the CPU build of torch (PyTorch's CPU index).
ARG STEPBACK_TORCH_INDEX=
COPY requirements-cpu.lock .
RUN pip --python /opt/stepback/bin/python install --quiet --no-deps --require-hashes \
    --only-binary :all: ${STEPBACK_TORCH_INDEX:+--extra-index-url "$STEPBACK_TORCH_INDEX"} -r requirements-cpu.lock


FROM runtime AS cpu
ENV LD_LIBRARY_PATH=/opt/stepback/lib
COPY --from=cpu-dependencies /opt/stepback /opt/stepback
COPY --from=application /opt/stepback /opt/stepback


# The official image brings Python, torch and vLLM with all that it needs; the lock has the rest.
FROM ${VLLM_IMAGE} AS cuda
COPY --from=application /wheels /tmp/wheels
COPY requirements-cuda.lock /tmp/
# The project's own wheel comes by itself: pip would want a hash of it too.
RUN python3 -m pip install --no-cache-dir --no-deps --break-system-packages --require-hashes \
        --only-binary :all: -r /tmp/requirements-cuda.lock \
    && python3 -m pip install --no-cache-dir --no-deps --break-system-packages /tmp/wheels/*.whl \
    && rm -r /tmp/wheels /tmp/requirements-cuda.lock \
    && python3 -c "import stepback_client.cli, stepback_server.app, stepback_server.commands.engine" \
    && python3 -c "import opentelemetry.exporter.otlp.proto.http.trace_exporter" \
    && useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp stepback \
    && install --directory --owner 10001 --group 10001 /cache
ENV HOME=/tmp USER=stepback PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    STEPBACK_HOST=0.0.0.0 STEPBACK_DEVICE=cuda STEPBACK_MODEL=/models/multitask-10m \
    STEPBACK_GUIDE_DIR=/guide
COPY models /models
COPY --from=guide /guide /guide
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s CMD \
    ["python3", "-c", "from os import environ as e; from http.client import HTTPConnection as C; c = C('127.0.0.1', int(e.get('STEPBACK_PORT') or 8000), timeout=4); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["stepback"]
CMD ["serve"]
