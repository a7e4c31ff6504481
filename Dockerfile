# One image for roots and workers: the command decides. See compose.yaml for a cluster.
FROM python:3.12-slim

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY kernels kernels
COPY dllama dllama
COPY cluster cluster
COPY api api
RUN pip install --no-cache-dir . \
    && useradd --create-home dllama \
    && install --directory --owner=dllama /cache /models /home/dllama/.config /home/dllama/.config/dllama

# Kernels are compiled at the first start: keep /cache on a volume.
ENV DLLAMA_CACHE=/cache
USER dllama
WORKDIR /models
EXPOSE 8080 9998-10062
CMD ["dllama", "--help"]
