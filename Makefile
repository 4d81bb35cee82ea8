# podtally's commands. `make run` and `make test` need nothing but Python 3.11 or newer and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECORDING ?= tests/fixtures/cgroupfs/parity-1hz.tar.zst
LISTEN ?= 127.0.0.1:9753
PROMETHEUS ?= 127.0.0.1:9090
ATTACK_SECONDS ?= 900

.PHONY: help run monitor test format docs schema bench attack e2e loadtest image sbom audit lock clean

help: ## what there is
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "podtally needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=/path/to/python3.11 run"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "cannot make $(VENV): install Python's venv (python3-venv on Debian)"; exit 1; }

$(VENV)/run: $(VENV)/pyvenv.cfg requirements.lock pyproject.toml
	@echo "installing into $(VENV) ..."
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/dev: $(VENV)/run requirements-dev.lock pyproject.toml
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

run: $(VENV)/run ## serve a bundled recording of a real node in a loop; elsewhere with LISTEN=127.0.0.1:9754
	@$(BIN)/python -m monitoring.address $(LISTEN) "make run LISTEN=127.0.0.1:9754"
	@echo "A recording of a real node, in a loop: look at http://$(LISTEN)/ (Ctrl-C ends it)"
	@$(BIN)/python -m collector replay $(RECORDING) --loop --listen $(LISTEN)

monitor: $(VENV)/run ## the same with Prometheus before it: real data to query in a minute; elsewhere with LISTEN=, PROMETHEUS=127.0.0.1:9091
	@$(BIN)/python -m monitoring.local $(RECORDING) --listen $(LISTEN) --prometheus $(PROMETHEUS)

test: $(VENV)/dev ## everything: format, lint, types, tests, generated docs, manifests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $$(($$($(BIN)/python -c 'import os; print(os.cpu_count())') + 1))  # some wait for Prometheus
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m monitoring.dashboards.generate --check
	$(BIN)/python tests/fixtures/make_layouts.py --check

format: $(VENV)/dev ## mend what `make test` says of format and lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/dev ## write the generated documents, golden files and dashboards anew
	$(BIN)/python docs/generate.py
	$(BIN)/python -m monitoring.dashboards.generate

schema: $(VENV)/dev ## hold the dashboards against Grafana's own types and units, from the npm registry
	$(BIN)/python -m monitoring.dashboards.schema

bench: $(VENV)/dev ## measure cost per tick and per scrape, beside a plain C loop; writes docs/bench.md
	$(BIN)/python -m bench.run

attack: $(VENV)/dev ## attack it for 15 minutes, or ATTACK_SECONDS: fuzzers, clients, a kubelet; writes docs/attack.md if it is whole
	$(BIN)/python -m attack.run --seconds $(ATTACK_SECONDS)

e2e: $(VENV)/dev ## a real node in QEMU, the DaemonSet on it, its numbers beside kubectl top (docs/development.md)
	$(BIN)/python -m tests.e2e run

loadtest: $(VENV)/dev ## every load profile, small, against a local application: by k6 if it is installed, else by a stand-in in Node
	$(BIN)/python -m pytest -rs tests/loadtest/all_profiles.py

image: ## build the image for real with buildah and start the collector from it
	tests/image/build.sh

sbom: $(VENV)/run ## write build/sbom/podtally.cdx.json, the CycloneDX SBOM of what the lock file installs on this machine
	@mkdir -p build/sbom
	@$(BIN)/pip install -q --disable-pip-version-check --dry-run --ignore-installed --only-binary :all: --require-hashes \
	  --report build/sbom/report.json -r requirements.lock
	@$(BIN)/python supply/sbom.py --report build/sbom/report.json --lock requirements.lock \
	  --site $(VENV)/lib/python3*/site-packages \
	  --version "$$($(BIN)/python -c 'import collector; print(collector.__version__)')" > build/sbom/podtally.cdx.json
	@rm build/sbom/report.json
	@echo build/sbom/podtally.cdx.json

audit: $(VENV)/dev ## hold the lock files against a database of advisories on disk: DATABASE=a checkout of pypa/advisory-database
	@test -n "$(DATABASE)" || { echo "name the database: make audit DATABASE=DIR (docs/supply.md)"; exit 2; }
	@$(BIN)/python -m supply.audit "$(DATABASE)"

lock: $(VENV)/dev ## resolve the lock files anew
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install -q pip-tools
	$(VENV)/lock/bin/pip-compile -q --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-index-url \
	  --no-emit-trusted-host --no-emit-find-links -o requirements.lock pyproject.toml
	$(VENV)/lock/bin/pip-compile -q --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-index-url \
	  --no-emit-trusted-host --no-emit-find-links --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml

clean: ## remove what the commands above made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/cread
