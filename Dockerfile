# One image for routers, roots and workers, of amd64 and arm64: the command decides. compose.yaml has
# a cluster of three, deploy/kubernetes another one, docs/deploy.md the steps.
FROM python:3.12-slim AS build

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY kernels kernels
COPY dllama dllama
COPY cluster cluster
COPY api api
RUN python -m venv /opt/dllama && /opt/dllama/bin/pip install --no-cache-dir .

FROM python:3.12-slim

# A number, so that Kubernetes can see that it is not root.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /state dllama \
    && install --directory --owner=dllama --group=dllama /cache /models /state
COPY --from=build /opt/dllama /opt/dllama

# Volumes for /cache spare a start the compiling of kernels and the sending of weights; those for
# /state keep the keys by which nodes know each other, and models that were pulled.
ENV PATH=/opt/dllama/bin:$PATH \
    DLLAMA_CACHE=/cache \
    DLLAMA_HOME=/state \
    DLLAMA_MODELS=/state/models
USER 10001:10001
WORKDIR /models
EXPOSE 8080 9998-10062
CMD ["dllama", "--help"]
