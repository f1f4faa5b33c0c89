# Everything from nothing: `make demo` or `make test` in a fresh clone makes its own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test chaos lint bench train-demo-model clean
.DELETE_ON_ERROR:

demo: $(VENV)/.worker  ## 31 prompts become 31 videos in videos/, and a page that shows them
	$(BIN)/ddit run examples/shapes.jsonl --out videos
	$(BIN)/python -m demo_model.contact_sheet videos

# The end-to-end tests start processes of their own and look at the clock: they run one at a time.
test: $(VENV)/.dev  ## rules, types, unit, service and fault tests
	$(BIN)/pytest --numprocesses 2 --dist loadfile --ignore tests/e2e
	$(BIN)/pytest tests/e2e -m 'not chaos'

# The other faults, and a short soak; --minutes 20 is the long one.
chaos: $(VENV)/.dev  ## what `make test` leaves out: more faults, and two minutes of random ones
	$(BIN)/pytest tests/e2e -m chaos
	$(BIN)/python benchmarks/soak.py --minutes 2 --seed 1

lint: $(VENV)/.dev  ## the rules and types alone
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.worker  ## the figures in docs/benchmarks.md
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/submit.py

# Goes on where it was stopped. Then copy the folder shapes over configs/models/shapes, raise the
# revision in shapes.yaml, measure with demo_model.evaluation and write the card with demo_model.card.
train-demo-model: $(VENV)/.dev  ## hours: the demo model anew, in .demo-model/shapes
	$(BIN)/python -m demo_model.training .demo-model

clean:  ## forget the environment and the embedded cluster
	-$(BIN)/ddit down
	rm -rf $(VENV) .ddit

# torch goes first, pinned: whatever asks for it later finds this one.
$(VENV)/.torch: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	touch $@

$(VENV)/.worker: $(VENV)/.torch
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[worker]'
	touch $@

$(VENV)/.dev: $(VENV)/.worker
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[worker,dev]'
	touch $@
