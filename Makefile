# make demo: the whole study on real pairs.  make test: everything that is checked.  Both make .venv when it is missing.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STORE ?= store

.PHONY: demo explorer test test-explorer test-slow lint planted check-demo check-docs bench-rerun bench-sae test-interchange test-deploy test-ray torture scaling server worker deploy stop bench-embed bench-stats bench-explorer clean

.venv/installed: pyproject.toml constraints.txt
	@began=$$SECONDS; \
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or later is needed (PYTHON=... names it)"; exit 2; }; \
	test -x $(BIN)/python || $(PYTHON) -m venv .venv && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev]' && \
	touch $@ && echo "installed in $$((SECONDS - began)) s"

demo: .venv/installed
	$(BIN)/bridgescope run studies/demo.toml --store $(STORE)
	@echo "its concepts and bridges, to look at: make explorer$(if $(filter-out store,$(STORE)), STORE=$(STORE))"

# The explorer's front end, from its lock file.
WEB := explorer/web
FRONT := $(WEB)/dist/index.html
$(FRONT): $(shell find $(WEB) \( -name node_modules -o -name dist \) -prune -o -type f -print)
	@command -v npm >/dev/null || { echo "npm is needed to build the explorer"; exit 2; }
	cd $(WEB) && npm ci --ignore-scripts --no-audit --no-fund && npm run build
	@touch $@

# The explorer of the demo's store, which `make demo` filled. STUDY names another study.
STUDY ?= studies/demo.toml
explorer: .venv/installed $(FRONT)
	$(BIN)/bridgescope explore $(STUDY) --store $(STORE)

# The explorer's server, and its pages in Chromium (CHROMIUM names another), live ones over the demo's store. Screenshots: build/explorer
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
test-explorer: .venv/installed $(FRONT)
	@test -n "$(CHROMIUM)" || { echo "make test-explorer needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it"; exit 2; }
	@test -d $(STORE)/studies/demo || { echo "make test-explorer needs the demo's store: make demo STORE=$(STORE)"; exit 2; }
	OMP_NUM_THREADS=1 CHROMIUM="$(CHROMIUM)" STORE="$(abspath $(STORE))" $(BIN)/python -m pytest tests/explorer tests/explorer/browser

# A study whose truth is known: made, run, and compared with it.
planted: .venv/installed
	$(BIN)/python bench/planted.py --to $(STORE)/planted
	$(BIN)/bridgescope run studies/planted.toml --store $(STORE) --set pairs.path=$(abspath $(STORE))/planted --set models.planted.spec=embeddings:$(abspath $(STORE))/planted
	$(BIN)/python bench/check_planted.py --store $(STORE) --vectors $(STORE)/planted

# The demo's figures beside their bars, from the store that `make demo` filled.
check-demo: .venv/installed
	$(BIN)/python bench/check_demo.py --store $(STORE)

# Commands, columns, links and options that the documents name; the commands need the store that `make demo` filled.
check-docs: .venv/installed
	$(BIN)/python docs/check.py --store $(STORE)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Three processes on two cores: studies wait for Prefect's server now and then.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m "not slow"

# Whole studies: checkpoints, the frontier, the paper's study, gc, diff, deployments in this process, a failing disk; attacks on SQL. Minutes.
test-slow: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m slow

# A real Prefect server with a worker: deployments, landings, kills. Minutes.
test-deploy: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/deploy

# An environment laid over .venv, with the extra `ray`.
.venv-ray/installed: .venv/installed
	@began=$$SECONDS; \
	rm -rf .venv-ray && .venv/bin/python -m venv .venv-ray && \
	.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(.venv-ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/bridgescope.pth" && \
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]' && \
	touch $@ && echo "Ray installed in $$((SECONDS - began)) s"

# Ray clusters of several raylets on loopback, killed mid-stage. Minutes.
test-ray: .venv-ray/installed
	OMP_NUM_THREADS=1 .venv-ray/bin/python -m pytest tests/raylets

# Random kill -9 and resume, CYCLES times; ends with the tables of a study that was never interrupted.
CYCLES ?= 20
torture: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/torture.py --cycles $(CYCLES)

# Bytes, FLOPs and GPU-hours at three sizes, each with its formula.
scaling: .venv/installed
	$(BIN)/python bench/scaling.py

# A Prefect server on loopback, a process worker, and every deployment of deploy/prefect.yaml. Their data: .prefect/
server: .venv/installed
	@BIN=$(BIN) deploy/local.sh server

worker: .venv/installed
	@BIN=$(BIN) deploy/local.sh worker

deploy: .venv/installed
	@BIN=$(BIN) deploy/local.sh deploy

stop:
	@BIN=$(BIN) deploy/local.sh stop

# Seconds of a second run, beside its bars. Alone on the machine.
bench-rerun: .venv/installed
	$(BIN)/python bench/rerun.py --store $(STORE)

# The peers' own environment, laid over .venv: see bench/peers.txt.
.venv-peers/installed: .venv/installed bench/peers.txt
	@began=$$SECONDS; \
	rm -rf .venv-peers && .venv/bin/python -m venv .venv-peers && \
	.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(.venv-peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/bridgescope.pth" && \
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r bench/peers.txt && \
	touch $@ && echo "peers installed in $$((SECONDS - began)) s"

# Rates of the SAE trainer beside its peers', beside their bars. Alone on the machine; BENCH="--quick" runs each once.
bench-sae: .venv-peers/installed
	$(BIN)/python -m bench.bench_sae $(BENCH) $(if $(wildcard $(STORE)/studies/demo),--store $(STORE))

# Files exchanged with SAELens and overcomplete, loaded by those libraries themselves.
test-interchange: .venv-peers/installed
	OMP_NUM_THREADS=1 PYTHONPATH=. .venv-peers/bin/python -m pytest bench/test_peers.py

# Embedding beside the bounds of its parts and the loops people write. Alone on the machine; DEVICE=cuda for a GPU.
DEVICE ?= cpu
bench-embed: .venv/installed
	$(BIN)/python bench/embed.py --device $(DEVICE)

# What the statistics cost and whether they are right, beside the bars. Alone on the machine.
bench-stats: .venv/installed
	$(BIN)/python bench/stats.py --work $(STORE)/bench-stats

# How quickly the explorer paints, moves and answers in headless Chromium, beside the bars. Alone on the machine.
bench-explorer: .venv/installed $(FRONT)
	CHROMIUM="$(CHROMIUM)" $(BIN)/python bench/explorer.py --store $(STORE)

clean:
	rm -rf .venv .venv-peers .venv-ray $(WEB)/dist $(WEB)/node_modules build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
