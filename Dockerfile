# compress on the CPU: `docker build -t network-compress .`, then
# `docker run --rm -v "$PWD:/work" network-compress analyze model.pt`
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip install --index-url https://download.pytorch.org/whl/cpu torch torchvision
COPY pyproject.toml README.md LICENSE /src/
COPY compressor /src/compressor
RUN pip install "/src[vision,huggingface]" && rm -rf /src

# What is read and written belongs to whoever mounts it; nothing here needs root.
RUN useradd --create-home compress
USER compress
WORKDIR /work
ENTRYPOINT ["compress"]
CMD ["--help"]
