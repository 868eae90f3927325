# Two commands do everything on a bare machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A worker for each core; more would make tests of real time late.
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist worksteal
READY := $(VENV)/.ready

.PHONY: demo test check bench fuzz clean

demo: $(READY)
	@$(BIN)/crowline demo

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(READY)
	$(BIN)/ruff check src tests bench examples fuzz
	$(BIN)/ruff format --check src tests bench examples fuzz
	$(BIN)/mypy
	$(BIN)/mypy -p fuzz

fuzz: $(READY)
	$(BIN)/python -m fuzz all --seconds $(or $(SECONDS),20) --seed $(or $(SEED),1)

bench: $(READY)
	@for script in bench/*.py; do $(BIN)/python $$script || exit 1; done

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Crowline needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV) || { echo 'No virtual environment could be made: on Debian, apt-get install python3-venv'; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[server,test]'
	@touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache
