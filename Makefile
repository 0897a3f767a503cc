# The commands of the project; CI runs the same ones. Set PYTHON to use another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
AUDIT := .cache/audit
TOOLS := .cache/release-tools

.PHONY: package lint-release demo serve test test-fast test-jobs-docs image-test check format docs bench bench-routes bench-search bench-ablation bench-scaling \
	bench-cost bench-data bench-training bench-peers results trials locks audit site page-test page-bench clients-test ray-test ray-bench gym-test clean

demo: $(INSTALLED)   ## start, solve a few held-out problems, stop
	$(BIN)/python deploy/demo.py

serve: $(INSTALLED)  ## the controller on 127.0.0.1:8000
	$(BIN)/stepback serve

# Else each of a hundred processes would compile our sources anew.
unexport PYTHONDONTWRITEBYTECODE

# A start of an engine keeps a core busy, and many tests wait: four processes suit two cores. A file
# stays in one process, since its tests share an engine.
WORKERS := 4
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)   ## the whole test suite
	$(PYTEST)

test-fast: $(INSTALLED)  ## what needs no engine and no training
	$(PYTEST) -m 'not docker and not slow'

test-jobs-docs: $(INSTALLED)  ## of the slow ones: jobs on SQLite and PostgreSQL, notebooks and code blocks of the docs
	$(PYTEST) -m slow tests/server/jobs tests/docs

image-test: $(INSTALLED)  ## build the images, run the compose stack, drive it
	deploy/image-test.sh $(BIN)/python

check: $(INSTALLED)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## HTTP throughput against offline vLLM, as a ratio
	$(BIN)/python -m tests.benchmarks.throughput

bench-routes: $(INSTALLED)  ## /v1/chat/completions against /solve, as a ratio
	$(BIN)/python -m tests.benchmarks.routes

bench-search: $(INSTALLED)  ## accuracy against tokens, strategies side by side
	$(BIN)/python -m tests.benchmarks.search

bench-ablation: $(INSTALLED)  ## what each idea of best-first search is worth
	$(BIN)/python -m tests.benchmarks.ablation

PEERS := .cache/peers

bench-peers: $(INSTALLED) $(PEERS)/its-hub $(PEERS)/optillm  ## other projects' searches, on one server
	$(BIN)/python -m tests.benchmarks.peers

$(PEERS)/%: tests/benchmarks/peers/%.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --no-deps -r $<
	touch $@

bench-scaling: $(INSTALLED)  ## what a controller costs, and what a second replica brings
	$(BIN)/python -m tests.benchmarks.scaling

bench-cost: $(INSTALLED)  ## new, cached and prefilled tokens of a search as it grows
	$(BIN)/python -m tests.benchmarks.cost

bench-data: $(INSTALLED)  ## what each idea about the training data is worth: docs/data.md
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m tests.benchmarks.data

bench-training: $(INSTALLED)  ## training tokens/s, packed against padded and more, as ratios
	$(BIN)/python -m tests.benchmarks.training

results: $(INSTALLED)  ## stepback evaluate on the bundled checkpoint
	$(BIN)/python -m tests.benchmarks.accuracy

trials: $(INSTALLED) ## attacks on a running controller, its engines and its jobs: about 45 minutes
	for trial in flood interleaved hostile hang_up fuzz schema replicas discovery soak; do \
		$(BIN)/python -m tests.trials.$$trial || exit 1; \
	done
	for trial in killed yielding outage cost; do \
		$(BIN)/python -m tests.trials.jobs $$trial || exit 1; \
	done

SITE := .cache/site
BROWSER := .cache/browser

page-test: $(INSTALLED) $(BROWSER)  ## the page in a real Chromium (Debian's package chromium)
	$(BROWSER)/bin/python -m pytest -c tests/browser/pytest.ini tests/browser

page-bench: $(INSTALLED) $(BROWSER)  ## the first click to an answer, and a large tree that moves
	PYTHONPATH=.:tests/browser $(BROWSER)/bin/python tests/browser/speed.py

$(BROWSER): tests/browser/requirements.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --no-deps -r tests/browser/requirements.txt
	touch $@

CLIENTS := .cache/clients

clients-test: $(INSTALLED) $(CLIENTS)  ## OpenAI's clients, unmodified, against the real server
	$(CLIENTS)/bin/python -m pytest -c tests/clients/pytest.ini tests/clients

$(CLIENTS): tests/clients/requirements.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --no-deps --no-compile -r tests/clients/requirements.txt
	touch $@

# An environment with the project's own packages, and what one test needs in addition.
define over_the_project
$(PYTHON) -m venv --without-pip $@
$(BIN)/python -c "import sys; print(*filter(None, sys.path), sep='\n')" > $$(echo $@/lib/python*/site-packages)/project.pth
$(BIN)/python -m pip install --quiet --no-deps --no-compile --target $$(echo $@/lib/python*/site-packages) -r $<
touch $@
endef

RAY := .cache/ray

ray-test: $(INSTALLED) $(RAY)  ## the commands with --on ray; an actor and a command are killed
	$(RAY)/bin/python -m pytest -c tests/on_ray/pytest.ini tests/on_ray

ray-bench: $(INSTALLED) $(RAY)  ## lines a second with one actor and with two, and what Ray costs
	PYTHONPATH=.:tests/on_ray $(RAY)/bin/python tests/on_ray/speed.py

$(RAY): tests/on_ray/requirements.txt
	$(over_the_project)

GYM := .cache/gym

gym-test: $(INSTALLED) $(GYM)  ## each task of reasoning-gym: its own answer, and a wrong one
	$(GYM)/bin/python -m pytest -c tests/gym/pytest.ini tests/gym

$(GYM): tests/gym/requirements.txt
	$(over_the_project)

site: $(SITE)        ## the documentation as a site: build/site
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict --quiet

$(SITE): docs/requirements.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --no-deps --require-hashes -r docs/requirements.txt
	touch $@

docs: $(INSTALLED)   ## the reference pages that are written from the code
	$(BIN)/python docs/generate.py

locks: $(INSTALLED) $(TOOLS)  ## hashes of requirements.lock, and the images' locks cut out of it
	$(BIN)/python deploy/lock.py $(TOOLS)/bin/uv

audit: $(AUDIT)      ## known vulnerabilities of what the locks name; fails where no service answers
	$(AUDIT)/bin/python deploy/audit.py $(AUDIT_FLAGS)

package: $(TOOLS)    ## wheel and sdist: built, checked, installed into a bare environment
	deploy/package.sh $(PYTHON) $(TOOLS)

lint-release: $(TOOLS)  ## the release workflow
	$(TOOLS)/bin/zizmor --offline --config .github/zizmor.yml .github/workflows

$(TOOLS): requirements-build.lock
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet build==1.6.1 twine==6.2.0 zizmor==1.22.0 uv==0.13.9
	$@/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements-build.lock

$(AUDIT):
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet pip-audit==2.10.1

$(INSTALLED): requirements.lock pyproject.toml
	deploy/install.sh $(PYTHON) $(VENV)
	touch $@

clean:
	rm -rf $(VENV) $(AUDIT) $(TOOLS) dist
