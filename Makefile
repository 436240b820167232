# What people and the build server run. Needs Python >= 3.11 and make; everything else is fetched, by hash.
PYTHON ?= python3
PYTHONS ?= python3.11 python3.12 python3.13
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
CODE := processor tests deploy
RELEASE_TOOLS := build/release-tools
DOCS_TOOLS := build/docs-tools
# Three on two cores: most of the tests wait for a broker, and those that compile take a core each.
JOBS := 3
PARALLEL := --numprocesses $(JOBS:1=0) --dist loadfile --no-loadscope-reorder

# Bytecode is kept, whatever the environment says: the tests start some hundred Pythons, and each would compile the program anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help venv lint style types check test tests demo bench bench-check bench-peers faults soak mutations trial compat serve config contracts dashboard manifests docs lock wheels wheels-check sbom audit-deps pin-images release-check image-steps clean

help: ## show this
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## make the environment in .venv

$(STAMP): requirements.lock requirements-build.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements.lock -r requirements-build.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

lint: style types ## style and types

style: venv
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: venv
	$(BIN)/mypy

# What lives through whole logs again and again takes as long as all the rest of the core's tests, and is left to `make test`.
LONG := all_at_once changed_settings paths rebuild responses_gateways responses_wellformed restart simulation simulation_responses
check: lint ## the quick part: style, types, most of the core's tests
	RUN_STEPS_EXAMPLES=$${RUN_STEPS_EXAMPLES:-10} $(BIN)/python -m pytest -q --numprocesses 2 --dist worksteal tests/core tests/test_architecture.py $(LONG:%=--ignore tests/core/test_%.py)

test: style ## everything, on a real Apache Kafka (JOBS=1: in one process)
	$(MAKE) --no-print-directory --jobs=2 types tests

tests: venv
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

demo: venv ## see it work
	$(BIN)/run-steps demo

bench: venv ## measure; with BASE=<revision>: the compiled core of this tree beside that one's
	$(BIN)/python -m tests.bench$(if $(BASE),.against $(BASE))

bench-check: venv ## has the last `make bench` become worse than the recorded one?
	$(BIN)/python -m tests.bench.check

bench-peers: venv ## the same job by other stream processors, beside ours (ARGS="--peers quix --kills 2")
	$(BIN)/python -m tests.bench.peers $(ARGS)

faults: venv ## kill, pause, cut and deliver late, for long: was anything lost, doubled or wrong? (ARGS="--minutes 120 --seed 7")
	$(BIN)/python -m tests.faults $(ARGS)

soak: venv ## hours of load and faults: is anything lost, does memory grow? (HOURS=8)
	$(BIN)/python -m tests.faults.soak $(if $(HOURS),--hours $(HOURS)) $(ARGS)

mutations: venv ## mutation test of the audit: change published output 1,000 ways; each must be found
	for seed in 1 2 3; do $(BIN)/python -m tests.shell.mutations --mutations 1000 --seed $$seed || exit 1; done

compat: venv ## try other brokers and other producers' libraries, an hour: docs/compatibility.md (ARGS="--only 3.9.1,sarama")
	$(BIN)/python -m tests.compat $(ARGS)

trial: venv ## trial of the audit: an adversary who knows the code, and honest worlds that are hard to judge (ARGS="--forgeries 5000 --worlds 1000 --seed 1")
	$(BIN)/python -m tests.trial $(ARGS)

serve: venv ## run the worker (CONFIG=file)
	$(BIN)/run-steps serve $(if $(CONFIG),--config $(CONFIG))

config: venv ## write config/processor.toml from the settings model
	$(BIN)/python -m processor.config > config/processor.toml.new
	mv config/processor.toml.new config/processor.toml

COMPILE = $(UV) pip compile --universal --generate-hashes --python-version 3.11 --no-header --no-annotate

PEERS := tests/bench/peers/requirements

contracts: venv ## write docs/contracts: JSON Schema of published steps, AsyncAPI of the topics
	$(BIN)/python -m processor.contracts docs/contracts

dashboard: venv ## write deploy/grafana/run-steps.json
	$(BIN)/python deploy/grafana/make_dashboard.py

$(DOCS_TOOLS)/bin/mkdocs: deploy/site/requirements.txt
	$(PYTHON) -m venv $(DOCS_TOOLS)
	$(DOCS_TOOLS)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r deploy/site/requirements.txt
	@touch $@

docs: venv $(DOCS_TOOLS)/bin/mkdocs ## build the documentation as a site, in build/site; a broken link fails it
	$(BIN)/python -m deploy.site.stage build/site-pages
	NO_MKDOCS_2_WARNING=1 $(DOCS_TOOLS)/bin/mkdocs build --quiet --strict --config-file deploy/site/mkdocs.yml

manifests: ## write deploy/k8s from the Helm chart (needs helm)
	deploy/render-manifests.sh

lock: ## resolve the dependencies anew (needs uv)
	$(COMPILE) pyproject.toml --extra audit --extra sign --extra dask --extra otlp --extra aws --extra azure --extra demo --group dev -o requirements.lock
	$(COMPILE) pyproject.toml --extra otlp --extra aws --extra azure --constraint requirements.lock -o requirements-runtime.lock
	$(COMPILE) deploy/site/requirements.in -o deploy/site/requirements.txt
	for peer in quix faust bytewax; do $(COMPILE) $(PEERS)/$$peer.in -o $(PEERS)/$$peer.txt || exit 1; done
	$(subst 3.11,3.13,$(COMPILE)) $(PEERS)/flechtwerk.in -o $(PEERS)/flechtwerk.txt
	printf 'hatchling>=1.27\neditables\nmsgspec\nmypy\nsetuptools\n' | \
	  $(COMPILE) - --constraint requirements.lock -o requirements-build.lock

wheels: $(RELEASE_TOOLS)/bin/pip-audit ## source archive, wheel of Python alone, and compiled wheels for PYTHONS, in dist (needs a C compiler)
	PATH="$(abspath $(RELEASE_TOOLS)/bin):$$PATH" PYTHONS="$(PYTHONS)" deploy/build-wheels.sh dist

wheels-check: venv ## install each compiled wheel of dist in an empty environment and run the tests of the core on it
	PYTHONS="$(PYTHONS)" $(BIN)/python -m tests.wheels dist

$(RELEASE_TOOLS)/bin/pip-audit: deploy/release-tools.txt
	$(PYTHON) -m venv $(RELEASE_TOOLS)
	$(RELEASE_TOOLS)/bin/python -m pip --quiet --disable-pip-version-check install -r deploy/release-tools.txt

sbom: $(RELEASE_TOOLS)/bin/pip-audit ## write dist/run-steps.cdx.json: CycloneDX of what the image installs
	mkdir -p dist
	$(RELEASE_TOOLS)/bin/cyclonedx-py requirements requirements-runtime.lock --pyproject pyproject.toml -o dist/run-steps.cdx.json

audit-deps: $(RELEASE_TOOLS)/bin/pip-audit ## look the locked dependencies up in the advisories; one that cannot be looked up is a failure
	$(RELEASE_TOOLS)/bin/pip-audit --strict --require-hashes --disable-pip -r requirements-runtime.lock

pin-images: ## write the digests of the base images into Dockerfile and compose file (needs crane, and the registry)
	$(PYTHON) deploy/release_check.py --pin

release-check: ## is this tree fit for a release? images pinned, one version everywhere, changelog dated
	$(PYTHON) deploy/release_check.py

image-steps: ## run the build steps of the Dockerfile without a container engine
	deploy/build-image-steps.sh

clean: ## remove what make has made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
