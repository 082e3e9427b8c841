# Thin targets: what they do stands in pyproject.toml and in the programs that they call.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DURATION ?=
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: demo test fuzz bench soak chaos exact lint format lock dashboards clean

demo: $(VENV)/.installed  ## the main job on a simulated fleet, with its page (DURATION=60 ends it)
	$(BIN)/vigie demo $(if $(DURATION),--duration $(DURATION))

test: $(VENV)/.installed-dev  ## everything: programs that the tests need, then every test
	./tests/install-programs
	$(BIN)/pytest --numprocesses auto --dist loadfile

fuzz: $(VENV)/.installed-dev  ## a million mutated messages through every decoder
	$(BIN)/python tests/fuzz.py

bench: $(VENV)/.installed-dev  ## speed and memory, printed, about 25 minutes (PEERS=1 also against Pathway and PyFlink)
	$(BIN)/python benchmarks/throughput.py $(if $(PEERS),--peers $(PEERS))
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/simulator.py
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/broker_mqtt.py
	$(BIN)/python benchmarks/broker_kafka.py

soak: $(VENV)/.installed-dev  ## an hour at half of the capacity: memory, lag, lost and late readings (MINUTES=5 is short)
	$(BIN)/python benchmarks/soak.py $(if $(MINUTES),--minutes $(MINUTES))

chaos: $(VENV)/.installed-dev  ## a hundred kills of files, MQTT and Kafka sites, hosts cut off, full disks (VIGIE_KILLS=5 is short)
	./tests/install-programs
	VIGIE_KILLS=$${VIGIE_KILLS:-100} $(BIN)/pytest tests/chaos tests/kafka/test_site.py

exact: $(VENV)/.installed-dev  ## thousands of random streams against the oracles
	$(BIN)/pytest tests/exactness --hypothesis-profile=long --timeout=0

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

dashboards: $(VENV)/.installed-dev  ## rebuild the generated JSON
	$(BIN)/python -m dashboards.build deploy/grafana/dashboards

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(PIP) install --require-hashes -r requirements.lock -r requirements-dev.lock
	touch $@

lock: $(VENV)/.installed-dev  ## resolve the newest versions that pyproject.toml allows
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--upgrade --group build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--upgrade --group build --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
