# make demo: the whole study on real pairs.  make test: linters and tests.  Both make .venv if it is missing.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STORE ?= store
# The commands start many processes, which would compile every module again where this variable is set.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo explorer front-end test test-explorer test-pages test-slow lint planted vlm-like check-demo docs screenshots check-docs bench-rerun bench-sae bench-sae-quality test-interchange test-deploy test-ray torture torture-pictures scaling server worker deploy notify stop bench-embed bench-vectors bench-stats bench-floors bench-frontier bench-explorer bench-plan bench-calibration bench-analyze bench-sources bench-gpu golden clean

.venv/installed: pyproject.toml constraints.txt
	@began=$$SECONDS; \
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or later is needed (PYTHON=... names it)"; exit 2; }; \
	test -x $(BIN)/python || $(PYTHON) -m venv .venv && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev]' && \
	touch $@ && echo "installed in $$((SECONDS - began)) s"

demo: .venv/installed
	$(BIN)/bridgescope run studies/demo.toml --store $(STORE)
	@echo "look at its concepts and bridges: make explorer$(if $(filter-out store,$(STORE)), STORE=$(STORE))"

# Builds the explorer's front end, with the versions of its lock file.
WEB := explorer/web
FRONT := $(WEB)/dist/index.html
$(FRONT): $(shell find $(WEB) \( -name node_modules -o -name dist \) -prune -o -type f -print)
	@command -v npm >/dev/null || { echo "npm is needed to build the explorer"; exit 2; }
	cd $(WEB) && npm ci --ignore-scripts --no-audit --no-fund && npm run build
	@touch $@

# The explorer's front end alone, for `bridgescope explore` over studies of your own.
front-end: $(FRONT)

# Serves the explorer over the store that `make demo` filled. STUDY=... names another study than the demo.
STUDY ?= studies/demo.toml
explorer: .venv/installed $(FRONT)
	$(BIN)/bridgescope explore $(STUDY) --store $(STORE)

# Tests of the explorer's server, which `make test` runs too, and of its pages.
test-explorer: .venv/installed test-pages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/explorer

# Tests of the explorer's pages in Chromium (CHROMIUM=... names another browser). The live pages are tested over the demo's
# store. Screenshots are written to build/explorer.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
test-pages: .venv/installed $(FRONT)
	@test -n "$(CHROMIUM)" || { echo "make test-pages needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it"; exit 2; }
	@test -d $(STORE)/studies/demo || { echo "make test-pages needs the demo's store: make demo STORE=$(STORE)"; exit 2; }
	cd $(WEB) && npm run --silent lint
	OMP_NUM_THREADS=1 CHROMIUM="$(CHROMIUM)" STORE="$(abspath $(STORE))" $(BIN)/python -m pytest tests/explorer/browser

# Makes vectors from a known dictionary, runs a study on them, and compares its results with the dictionary.
planted: .venv/installed
	$(BIN)/python bench/planted.py --to $(STORE)/planted
	$(BIN)/bridgescope run studies/planted.toml --store $(STORE) --set pairs.path=$(abspath $(STORE))/planted --set models.planted.spec=embeddings:$(abspath $(STORE))/planted
	$(BIN)/python -m bench.check_planted --store $(STORE) --vectors $(STORE)/planted

# The same with vectors that look like those of a vision-language model.
vlm-like: .venv/installed
	$(BIN)/python -m bench.plant_vlm_like --to $(STORE)/vlm_like
	$(BIN)/bridgescope run studies/vlm_like.toml --store $(STORE) --set pairs.path=$(abspath $(STORE))/vlm_like --set models.planted.spec=embeddings:$(abspath $(STORE))/vlm_like
	$(BIN)/python -m bench.check_vlm_like --store $(STORE) --vectors $(STORE)/vlm_like

# Prints the demo's results with their bars (the bounds that they must meet), from the store that `make demo` filled.
check-demo: .venv/installed
	$(BIN)/python bench/check_demo.py --store $(STORE)

# Builds the documentation as a site in build/docs. A dead link or a missing anchor fails the build.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the documentation: build/docs/index.html"

# Takes the pictures of the explorer in docs/images, from the store that `make demo` filled. It needs Chromium.
screenshots: .venv/installed $(FRONT)
	CHROMIUM="$(CHROMIUM)" $(BIN)/python docs/screenshots.py --store $(STORE)

# Checks that the commands, keys, columns, links and options in the documents exist, builds the site, and runs the
# tutorial's commands and the notebook. The commands and the notebook need the store that `make demo` filled.
check-docs: .venv/installed
	$(BIN)/python docs/check.py --store $(STORE)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Three processes keep two cores busy, because a study sometimes waits for Prefect's server.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m "not slow"

# Tests that run whole studies (kills and signals, checkpoints, the frontier, the paper's study, gc, diff, deployments in
# this process, a failing disk), that take ten seconds or more, and all attacks on the guard of SQL. Takes 20 to 30 minutes.
test-slow: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m slow

# The golden result of each stage, written again where the version of the stage was raised.
golden: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/golden/write.py

# Tests on a real Prefect server with a worker: deployments, the event `pairs landed`, kills. Takes minutes.
test-deploy: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/deploy

# An environment with the extra `ray`, which also sees the packages of .venv.
.venv-ray/installed: .venv/installed
	@began=$$SECONDS; \
	rm -rf .venv-ray && .venv/bin/python -m venv .venv-ray && \
	.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(.venv-ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/bridgescope.pth" && \
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]' && \
	touch $@ && echo "Ray installed in $$((SECONDS - began)) s"

# Tests on Ray clusters of several raylets (Ray's node processes) on loopback, which are killed during a stage. Takes
# minutes.
test-ray: .venv-ray/installed
	OMP_NUM_THREADS=1 .venv-ray/bin/python -m pytest tests/raylets

# Kills a study at random times and resumes it, CYCLES times. Its tables must equal those of an uninterrupted study.
CYCLES ?= 20
torture: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/torture.py --cycles $(CYCLES)

# Acquires and embeds COUNT mutated pictures under a limit of memory: every one must be embedded or counted.
COUNT ?= 10000
torture-pictures: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/pictures.py --count $(COUNT)

# Prints bytes, FLOPs and GPU-hours of studies of three sizes, each with its formula.
scaling: .venv/installed
	$(BIN)/python bench/scaling.py

# A Prefect server on loopback, a process worker, and every deployment of deploy/prefect.yaml. Their data: .prefect/
server: .venv/installed
	@BIN=$(BIN) deploy/local.sh server

worker: .venv/installed
	@BIN=$(BIN) deploy/local.sh worker

deploy: .venv/installed
	@BIN=$(BIN) deploy/local.sh deploy

# Tell a webhook (TO=https://...) or a notification block of Prefect (TO=slack-webhook/NAME) of scheduled runs that fail.
notify: .venv/installed
	@BIN=$(BIN) deploy/local.sh notify $(TO)

stop:
	@BIN=$(BIN) deploy/local.sh stop

# Seconds of a second run of the demo, beside their bars. Run nothing else meanwhile.
bench-rerun: .venv/installed
	$(BIN)/python bench/rerun.py --store $(STORE)

# An environment with the peers (other SAE libraries), which also sees the packages of .venv: see bench/peers.txt.
.venv-peers/installed: .venv/installed bench/peers.txt
	@began=$$SECONDS; \
	rm -rf .venv-peers && .venv/bin/python -m venv .venv-peers && \
	.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(.venv-peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/bridgescope.pth" && \
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r bench/peers.txt && \
	touch $@ && echo "peers installed in $$((SECONDS - began)) s"

# Rates of the SAE trainer relative to those of its peers, with bars. Run nothing else meanwhile.
# BENCH="--quick" measures each once.
bench-sae: .venv-peers/installed
	$(BIN)/python -m bench.bench_sae $(BENCH) $(if $(wildcard $(STORE)/studies/demo),--store $(STORE))

# Quality of SAEs on planted vectors and on the demo, beside its bars and other libraries. Takes hours; QUALITY="--quick"
# takes small sizes, and QUALITY="--only SECTION" one section.
bench-sae-quality: .venv-peers/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.sae_quality $(QUALITY) $(if $(wildcard $(STORE)/studies/demo),--store $(STORE))

# Files of SAELens, dictionary_learning and overcomplete, written and loaded by those libraries themselves.
test-interchange: .venv-peers/installed
	OMP_NUM_THREADS=1 PYTHONPATH=. .venv-peers/bin/python -m pytest bench/test_peers.py

# Rates of embedding relative to its parts alone and to the loops that users write. Run nothing else meanwhile.
# DEVICE=cuda measures on a GPU.
DEVICE ?= cpu
bench-embed: .venv/installed
	$(BIN)/python bench/embed.py --device $(DEVICE)

# Rates of embedding and of SAE training on a GPU, beside published rates and bounds. DEVICE=cpu runs a tenth of the size
# and measures no GPU.
bench-gpu: DEVICE = cuda
bench-gpu: .venv/installed
	$(BIN)/python -m bench.gpu --device $(DEVICE) $(BENCH)

# Seconds to embed vectors at two sizes, and of `status`, with bars. Needs 6 GB of disk. Run nothing else meanwhile.
bench-vectors: .venv/installed
	$(BIN)/python bench/vectors.py --work $(STORE)/bench-vectors

# Time, memory and correctness of the statistics, beside their bars. Run nothing else meanwhile.
bench-stats: .venv/installed
	$(BIN)/python bench/stats.py --work $(STORE)/bench-stats

# Seconds and exactness of the floors of stability and of matching, with bars. Run nothing else meanwhile.
# FLOORS="--exact-up-to 8192" solves the largest size exactly, too (minutes).
bench-floors: .venv/installed
	$(BIN)/python bench/floors.py $(FLOORS)

# R2 at equal L0 of SAEs and baselines with each encoder. IMAGE and TEXT name .npy files whose rows belong together.
bench-frontier: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.frontier_encoders $(IMAGE) $(TEXT)

# What one more seed of the demo costs the stage analyze, beside its bar. Run nothing else meanwhile.
bench-analyze: .venv/installed
	$(BIN)/python bench/analyze.py --store $(STORE)

# Times in which the explorer paints, moves and answers in headless Chromium, with bars. Run nothing else meanwhile.
bench-explorer: .venv/installed $(FRONT)
	CHROMIUM="$(CHROMIUM)" $(BIN)/python bench/explorer.py --store $(STORE)

# Bytes and seconds of `bridgescope plan` beside those of the run, with bars. WORK is an empty folder. Run nothing else
# meanwhile.
WORK ?= $(STORE)/bench-plan
bench-plan: .venv/installed
	$(BIN)/python -m bench.plan --work $(WORK)

# The largest memory of the end of a training on 10 million rows from disk, with its bar. Needs 1.3 GB of disk.
bench-calibration: .venv/installed
	$(BIN)/python -m bench.calibration --folder $(STORE)

# Seconds to read lists of a million captions beside those of polars and pyarrow, with bars. Needs 2 GB of disk. Run
# nothing else meanwhile.
bench-sources: .venv/installed
	$(BIN)/python -m bench.sources --work $(STORE)/bench-sources

clean:
	rm -rf .venv .venv-peers .venv-ray $(WEB)/dist $(WEB)/node_modules build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
