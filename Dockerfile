# podtally's image. Build it from the repository's root:
#
#   docker build -t podtally:0.1.0 .          (BuildKit, which is Docker's default builder; or: buildah bud -t ... .)
#
# Nothing below names an architecture: the same file builds amd64 and arm64.

# The index digest of a multi-architecture image, so the base cannot change under the same tag. Any image with python3
# (3.11 or newer) and its venv module will do in its place: --build-arg BASE=...
ARG BASE=python:3.13-slim-bookworm@sha256:cbd229d7b9bd041012af758ce5ffd807a6518d76493ce9035d208f1db9ceff1e

FROM ${BASE} AS build

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1

# Two environments: one with pip and the build backend, which stays behind, and one without pip, which is shipped.
RUN python3 -m venv /opt/build \
 && python3 -m venv --without-pip /opt/podtally

# pip's settings (index, proxy, certificates) come from outside as the optional secrets pip.conf and ca.pem, which are
# mounted for one command and are in no layer. Without them pip uses its defaults.
# --only-binary: every dependency has wheels for both architectures, so there is no compiler here, and no setup.py runs.
WORKDIR /src
COPY requirements.lock ./
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    export PIP_CONFIG_FILE=/run/secrets/pip.conf \
 && printf 'setuptools==84.2.1 --hash=sha256:%s\n' \
        ca140b45d5325a9478f880e351484f62fef15f336462e449ca0c03c873d589c2 > /opt/build/backend.txt \
 && /opt/build/bin/pip install --no-compile --require-hashes --only-binary :all: -r /opt/build/backend.txt \
 && /opt/build/bin/pip --python /opt/podtally/bin/python3 install \
        --no-compile --require-hashes --only-binary :all: --report /opt/build/report.json -r requirements.lock

# The package itself needs no network: its dependencies are there, and the backend is the one checked above.
COPY . ./
RUN /opt/build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /opt/build/wheels . \
 && /opt/build/bin/pip --python /opt/podtally/bin/python3 install \
        --no-compile --no-index --no-deps /opt/build/wheels/podtally-*.whl

# What a running collector never reads: the dependencies' own tests, documents, type stubs, C sources and commands, and
# two large parts that are alternatives to what is used: kubernetes' asyncio client and zstandard's cffi backend.
RUN cd /opt/podtally/lib/python3*/site-packages \
 && find . -depth -mindepth 2 -type d \( -name test -o -name tests -o -name e2e_test -o -name docs \) -exec rm -r '{}' + \
 && find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete \
 && rm -rf kubernetes/aio zstandard/_cffi.* \
 && find /opt/podtally/bin -type f ! -name podtally -delete

# Bytecode, standard library included: official Python images ship none for it, and with a read-only root file system
# the collector could not keep its own, so each start would parse hundreds of files again. It is in one tree apart,
# because the standard library's place differs from base to base. "unchecked" means by no file times, which copying
# between stages and rebuilding tools may change. Not the kubernetes client: it is larger than all the rest, the
# collector never imports it, and the commands that do wait half a second longer.
RUN export PYTHONPYCACHEPREFIX=/opt/podtally/pycache \
 && compile="/opt/podtally/bin/python3 -m compileall -q -f --invalidation-mode unchecked-hash" \
 && $compile -x '/(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|venv|pydoc_data|site-packages|dist-packages)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && $compile -x '/site-packages/kubernetes/' /opt/podtally/lib \
 && /opt/podtally/bin/podtally --help > /opt/build/help.txt


# What the image holds, for whoever looks for a vulnerable version or a changed file: a CycloneDX SBOM of what pip has
# installed above, each package with the hash of its wheel, which has to be one of the lock file's; and the SHA-256 of every
# file that this build brings (cd / && sha256sum -c /usr/share/podtally/SHA256SUMS).
ARG BASE
RUN mkdir /opt/build/share \
 && python3 supply/sbom.py --report /opt/build/report.json --lock requirements.lock --base "${BASE}" \
        --site /opt/podtally/lib/python3*/site-packages \
        --wheel /opt/build/wheels/podtally-*.whl \
        --version "$(/opt/podtally/bin/python3 -c 'import collector; print(collector.__version__)')" \
        > /opt/build/share/sbom.cdx.json \
 && cd / && find opt/podtally -type f -print0 | sort -z | xargs -0 sha256sum > /opt/build/share/SHA256SUMS


# No RUN from here on: the final stage needs neither network nor emulation, and a command could leave nothing behind.
FROM ${BASE}

LABEL org.opencontainers.image.title="podtally" \
      org.opencontainers.image.description="Per-pod CPU and memory from cgroup v2 files, as kubectl top counts them" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/podtally /opt/podtally
COPY --from=build /opt/build/share /usr/share/podtally

# MMAP_THRESHOLD: buffers of 64 KiB and more (a scrape's text, the kubelet's list) go back to the system when they are
# freed, which keeps the resident memory at its floor.
# DONTWRITEBYTECODE: the root file system is read-only in the DaemonSet, and there is nothing left to write.
ENV PATH=/opt/podtally/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPYCACHEPREFIX=/opt/podtally/pycache \
    MALLOC_MMAP_THRESHOLD_=65536

# Numbers, because runAsNonRoot cannot check a name. 65534 is nobody; all files the collector reads are world-readable.
USER 65534:65534
WORKDIR /
EXPOSE 9753
ENTRYPOINT ["podtally"]
CMD ["serve"]
