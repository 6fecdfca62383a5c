# On a fresh machine `make demo` and `make test` do all the set-up. Downloads are cached outside the tree.
PYTHON ?= python3.11
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

.PHONY: setup demo test fast lint clean
.DELETE_ON_ERROR:

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "AffectLens needs $(PYTHON): install it, or run make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(READY)

demo: $(READY)   ## the main job on the embedded model, with a report at the end
	$(BIN)/affectlens models pull smollm2-135m
	$(BIN)/affectlens probe smollm2-135m --battery starter

test: lint   ## the whole suite: lint, types, tiny models, real model, notebook, wheel
	$(BIN)/affectlens models pull smollm2-135m
	@$(BIN)/python -c "import llama_cpp" 2>/dev/null \
		|| $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[llamacpp]' \
		|| echo "llama.cpp could not be built here: its parity tests are skipped"
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

fast: $(READY)   ## tiny models only
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m 'not real' -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
