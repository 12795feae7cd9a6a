# One image for every role: `portcullis run --role …`, `portcullis simulate`, `portcullis check`. Built from the runtime lock with hashes.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/portcullis
COPY requirements-runtime.lock ./
RUN /opt/portcullis/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes -r requirements-runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY audit audit
COPY bench bench
COPY handlers handlers
COPY model model
COPY rules rules
COPY simulators simulators
COPY stream stream
RUN /opt/portcullis/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
    && /opt/portcullis/bin/pip uninstall --yes setuptools pip

FROM python:3.12-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin portcullis \
    && install --directory --owner portcullis --group portcullis --mode 0700 /var/lib/portcullis
COPY --from=build /opt/portcullis /opt/portcullis
ENV PATH=/opt/portcullis/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Everything a role writes: the audit file (recorder), and where its health address stands. All of it can be rebuilt from Kafka.
WORKDIR /var/lib/portcullis
USER 10001:10001
ENTRYPOINT ["portcullis"]
CMD ["--help"]
