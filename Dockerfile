# One image for every service of compose.yaml; the control plane simply does not load the heavy part.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1

# A volume that is new takes over the owner of the folder that it covers.
RUN useradd --create-home --uid 1000 ddit \
    && install --directory --owner ddit --group ddit /artifacts /videos /home/ddit/.cache

WORKDIR /opt/ddit
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY ddit_batch ddit_batch
COPY workers workers
COPY migrations migrations
COPY configs configs
# torch first, pinned: whatever asks for it later finds this one.
RUN pip install --no-cache-dir torch==2.13.0 && pip install --no-cache-dir '.[worker,s3]'

USER ddit
WORKDIR /home/ddit
ENTRYPOINT ["ddit"]
CMD ["--help"]
