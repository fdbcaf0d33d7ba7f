# Everything that this project's commands need is made inside the folder: .venv (packages), data (CIFAR) and, to compare
# with, .peer (the published package). Needs make and Python 3.10 or newer; `make` alone lists the commands.

PYTHON ?= python3 python3.13 python3.12 python3.11 python3.10
LAB_ARGS ?=
NOTEBOOKS ?=
BENCHMARK_ARGS ?= all
GPU_ARGS ?=
WORKERS ?= 2
export BSCONV_DATA ?= $(CURDIR)/data

PEER := bsconv==0.4.0
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# figures and IPython start from their own defaults, whatever the user has set up
PLAIN := MPLCONFIGDIR="$(CURDIR)/.venv/matplotlib" IPYTHONDIR="$(CURDIR)/.venv/ipython"
# one thread for each of the two processes; waiting threads sleep instead of spinning
CHECKS := $(PLAIN) BSCONV_OFFLINE=1 BSCONV_MODE=fast OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# a warning in a cell fails it; ipykernel's own on being shut down, and tornado's own on being started by Python 3.12 and
# newer, must not
STRICT := PYTHONWARNINGS=error,ignore::PendingDeprecationWarning:ipykernel.kernelbase,ignore::DeprecationWarning:tornado.ioloop
# without reordering, files with few but long tests do not come last
PYTEST := $(PY) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore tests/browser

LAB_SETTINGS := .venv/share/jupyter/lab/settings/overrides.json
SERVER_SETTINGS := .venv/etc/jupyter/jupyter_server_config.py

FETCH = if [ -f "$(BSCONV_DATA)/cifar10.npz" ]; then echo "data: CIFAR-10 is there"; \
	else echo "data: fetching CIFAR-10 (170 MB)"; $(PY) -m bsconv data cifar10 >/dev/null; fi

# The environment stands when its Python still runs and the stamp, written last, names this folder and these requirements.
STANDS := $(shell $(PY) -c 'import pip' 2>/dev/null && { pwd; cat pyproject.toml; } | cmp -s - .venv/.installed && echo yes)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help lab quick test check nightly notebooks docs course figures data benchmark gpu dist lint types unit slow notebook-tests browser \
	env peer FORCE

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

lab: env  ## open JupyterLab at notebooks/00_index.ipynb (LAB_ARGS="--no-browser --port 9999")
	@$(FETCH) || echo "data: no CIFAR-10 to be had; the notebooks will say so and use the synthetic set"
	@echo "lab: opening notebooks/00_index.ipynb in JupyterLab"
	@exec $(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/00_index.ipynb \
		--ContentsManager.hide_globs="['__pycache__', 'conftest.py', 'run_all.py', 'ruff.toml', 'sanitize.cfg']" \
		$$([ "$$(id -u)" != 0 ] || echo --allow-root) $(LAB_ARGS)

quick: lint types  ## lint, types, and the quick tests of what differs from main: a minute or two
	@tests=$$(PYTHONPATH=tests $(PY) -m helpers.changed) && echo "quick:" $$tests && \
		$(CHECKS) $(PYTEST) --slow none $$tests
	@echo "quick: all passed"

test: lint types unit notebook-tests  ## lint, types, all quick tests and some slow ones, notebooks against their stored outputs
	@echo "test: all passed"

check: slow browser  ## what `make test` leaves out: most slow tests, and every notebook in a browser
	@echo "check: all passed"

nightly: test check peer  ## all of it, and tests that take an hour; writes docs/reliability.md
	@$(FETCH)
	@$(CHECKS) HYPOTHESIS_PROFILE=nightly $(PYTEST) -m nightly --reliability docs/reliability.md tests
	@echo "nightly: all passed"

notebooks: env  ## run notebooks headless and store their outputs (NOTEBOOKS="01 02" takes some)
	@echo "notebooks: running them and storing their outputs"
	@$(CHECKS) $(STRICT) $(PY) notebooks/run_all.py $(NOTEBOOKS)

docs: env  ## build the documentation into site/: notebooks, API and command line as pages
	@echo "docs: building site/index.html"
	@$(PLAIN) NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --config-file docs/mkdocs.yml

course: env  ## write copies of the notebooks for students into course/; for teachers, solutions and slides
	@$(PY) docs/course.py

figures: env  ## draw the README's figures from recorded results
	@$(PLAIN) $(PY) docs/figures.py

data: env  ## fetch CIFAR-10 into data/ unless it is there
	@$(FETCH)

benchmark: peer  ## measure against the published package (BENCHMARK_ARGS="training --help")
	@$(FETCH) || echo "data: no CIFAR-10 to be had; what needs none is measured"
	@$(PLAIN) $(PY) -m benchmarks $(BENCHMARK_ARGS)

gpu: peer  ## on a machine with a GPU: CUDA tests, benchmarks, records, notebooks in full; ten minutes, go on by calling again
	@$(FETCH) || echo "data: no CIFAR-10 to be had; what needs none is done"
	@$(PLAIN) $(PY) -m benchmarks.gpu $(GPU_ARGS)

dist: env  ## build the sdist, and the wheel from it, into dist/
	@rm -rf dist
	@$(PIP) install --quiet --quiet build
	@$(PY) -m build --outdir dist >.venv/dist.log 2>&1 || { tail -20 .venv/dist.log >&2; exit 1; }
	@ls dist/*

lint: env  ## ruff: rules and format, notebooks too
	@echo "lint: ruff checks rules and format"
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check . || { echo "lint: mend it with $(PY) -m ruff format" >&2; exit 1; }

types: env
	@echo "types: mypy"
	@$(PY) -m mypy --no-error-summary

unit: env
	@echo "tests: pytest, $(WORKERS) processes, of slow tests one for each file"
	@$(CHECKS) $(PYTEST) --slow first tests

slow: env
	@echo "tests: pytest, $(WORKERS) processes, the slow tests that \`make test\` leaves out"
	@$(CHECKS) $(PYTEST) -m slow --slow rest tests

notebook-tests: env
	@echo "notebooks: nbval runs each and compares every output"
	@$(CHECKS) $(STRICT) $(PY) -m pytest -n $(WORKERS) --dist loadscope --nbval --nbval-current-env \
		--nbval-cell-timeout 120 --nbval-sanitize-with notebooks/sanitize.cfg notebooks

# each process has a JupyterLab, its kernels and a browser run, and takes whole notebooks
browser: env  ## every notebook and widget in JupyterLab in Chromium (skipped, and so said, where there is none)
	@echo "browser: JupyterLab in Chromium runs every notebook and moves every widget"
	@$(CHECKS) $(PY) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests/browser

env: .venv/.installed $(LAB_SETTINGS) $(SERVER_SETTINGS)  ## make .venv with all requirements
	@echo "env: .venv is ready"

.venv/.installed: $(if $(STANDS),,FORCE)
	@rm -f $@
	@if ! $(PY) -c 'import pip' 2>/dev/null; then \
		for python in $(PYTHON); do \
			if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then break; fi; \
			python=; \
		done; \
		if [ -z "$$python" ]; then \
			echo "env: needs Python 3.10 or newer with its venv module (Debian: apt install python3-venv);" \
				"none of these is: $(PYTHON). Name one: make PYTHON=/path/to/python" >&2; \
			exit 1; \
		fi; \
		echo "env: making .venv with $$($$python --version)"; \
		$$python -m venv --clear .venv; \
	fi
	@echo "env: installing bsconv and its requirements into .venv (PyTorch alone may take minutes)"
	@$(PIP) install --quiet --quiet 'pip>=22'
	@$(PIP) install --quiet --quiet --editable '.[lab,dev]'
	@$(PLAIN) $(PY) -c 'import matplotlib.font_manager'  # builds its font list now, not with a message in a notebook
	@{ pwd; cat pyproject.toml; } >$@

# on narrow screens lines of code go on below, instead of being cut
$(LAB_SETTINGS): | .venv/.installed
	@mkdir -p $(@D)
	@echo '{"@jupyterlab/notebook-extension:tracker": {"codeCellConfig": {"lineWrap": true}}}' >$@

$(SERVER_SETTINGS): docs/jupyter_server_config.py | .venv/.installed
	@mkdir -p $(@D)
	@cp $< $@

peer: env .peer

# installed elsewhere and renamed, so that .peer is there only when complete
.peer: | .venv/.installed
	@echo "env: fetching $(PEER) into .peer, to compare with"
	@rm -rf .venv/peer
	@if $(PIP) install --quiet --quiet --retries 1 --no-deps --target .venv/peer $(PEER) 2>.venv/peer.log; then mv .venv/peer .peer; \
	else echo "env: no $(PEER) to be had (see .venv/peer.log); what compares with it is skipped"; fi
