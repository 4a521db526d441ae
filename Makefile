# make setup    virtual environment from the lock files (every other target does it itself)
# make check    format, lint, types, layers, fast tests: under a minute; MODEL_EXAMPLES=100 for more than 5 of the queue's model
# make fix      what the tools can put right by themselves
# make test     every test, with a real Apache Kafka (Java 17 and Maven); 50 examples of the model
# make faults   the tests that send drivers bad input over bad lines, and the page of them in drivers/README.md
# make fuzz     hostile input for every parser: N=1000000 inputs each, SEED=1, TARGET="mqtt http" for some of them
# make proof    the tests that inject faults into the whole gateway, and the page of them, tests/PROOF.md
# make crash    power cuts at every operation of the queue on a simulated disk: N=100000 images, from SEED=1
# make damage   files of the queue that are damaged at rest: what starts from them, and what it says; N=200 of each kind, SEED=
# make bits     each bit of a small closed queue flipped, each page lost or misplaced, one after the other; N=20000 of them SEED=, N=0 for all
# make interrupted power cuts while such files are set aside and saved; N=5000 images, SEED=
# make ext4     power cuts of a mounted ext4 while a queue writes, as root: N=20 of them, SEED=
# make demo     devices -> gateway -> Kafka through a cut link and a killed gateway, and the verdict
#               DEMO_SECONDS=40 DEMO_DEVICES=40 DEMO_RATE=20; SABOTAGE=ack-early breaks the promise on purpose
# make kills    a gateway under load is killed with -9 at random times, and judged; N=50 SEED=
# make sweep    a kill, an error, a full disk or a delay at the n-th system call of a gateway at work; N=40 SEED=, N=0 for all, CASE=
# make cuts     a cluster of three and the links to it suffer by seed while a gateway delivers, then the count; N=200 SEED= FAULT=
# make brokers  each of those faults once, with outages of ten minutes
# make soak     all drivers, one fault after the other, then the verdict and what memory and descriptors did; MINUTES=30 SEED=
# make nightly  those runs at a night's size, one after the other, onto the page; SEED= for other than the day's,
#               NIGHTLY="crash:N=1000000 kills:N=1000" for some of them
# make bench    the design's figures, on this machine; BENCH_COUNT=100000 and BENCH="drain wear" make it smaller
# make lock     newest versions that pyproject.toml allows, with hashes

PYTHON ?= python3
NIGHTLY ?= crash:N=1000000 damage:N=2000 bits:N=0 interrupted:N=5000 sweep:N=0 kills:N=1000 cuts:N=200 fuzz:N=1000000 soak:MINUTES=62
BIN := .venv/bin
DONE := .venv/.done
LOCKED = $(BIN)/uv pip compile pyproject.toml -q --universal --python-version 3.11 --generate-hashes --no-header

.PHONY: setup check fix test faults proof nightly kills cuts brokers sweep soak bench demo tools lock fuzz crash damage bits interrupted ext4
.DEFAULT_GOAL := check

setup: $(DONE)

$(DONE): tests/requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tidegate needs Python 3.11 or newer: make PYTHON=/path/to/python3")'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "no virtual environment: is python3-venv installed?" >&2; exit 1; }
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r tests/requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

check: setup
	$(BIN)/ruff format --check -q
	$(BIN)/ruff check -q
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/lint-imports --no-logo
	MODEL_EXAMPLES=$${MODEL_EXAMPLES:-5} $(BIN)/pytest -q -n 3 -m "not kafka and not slow"

fix: setup
	$(BIN)/ruff check -q --fix
	$(BIN)/ruff format -q

test: setup tools
	$(BIN)/pytest -q -n 2 --dist loadfile

faults: setup
	$(BIN)/python -m pytest -q -p tests.faults tests/mqtt tests/http tests/modbus tests/serial tests/coap

fuzz: setup
	@$(BIN)/python -m tests.fuzz.fuzz $(if $(N),--count $(N)) $(if $(SEED),--seed $(SEED)) $(TARGET)

proof: setup tools
	@rm -f .proof && PROOF=.proof $(BIN)/pytest -q -m proof && $(BIN)/python -m tests.proof .proof

nightly: setup tools
	@rm -f .proof; failed=; for run in $(NIGHTLY); do \
		PROOF=.proof $(MAKE) --no-print-directory SEED=$(or $(SEED),$(shell date +%Y%m%d)) $$(echo $$run | tr : ' ') || failed="$$failed $$run"; \
	done; if [ -e .proof ]; then $(BIN)/python -m tests.proof .proof; fi; \
	if [ "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

crash: setup
	$(BIN)/python -m tests.crash.crash --images $(or $(N),100000) --seed $(or $(SEED),1)

damage: setup
	@$(BIN)/python -m tests.damage.damage $(if $(N),--times $(N)) $(if $(SEED),--seed $(SEED))

bits: setup
	@$(BIN)/python -m tests.damage.bits $(if $(N),--n $(N)) $(if $(SEED),--seed $(SEED))

interrupted: setup
	@$(BIN)/python -m tests.damage.interrupted $(if $(N),--images $(N)) $(if $(SEED),--seed $(SEED))

ext4: setup
	@$(BIN)/python -m tests.damage.ext4 $(if $(N),--times $(N)) $(if $(SEED),--seed $(SEED))

demo: setup tools
	@$(BIN)/python -m tests.demo.demo $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS)) $(if $(DEMO_DEVICES),--devices $(DEMO_DEVICES)) \
		$(if $(DEMO_RATE),--rate $(DEMO_RATE)) $(if $(SABOTAGE),--sabotage $(SABOTAGE))

kills: setup tools
	@$(BIN)/python -m tests.kills.kills $(if $(N),--n $(N)) $(if $(SEED),--seed $(SEED))

sweep: setup tools
	@$(BIN)/python -m tests.whole.sweep $(if $(N),--n $(N)) $(if $(SEED),--seed $(SEED)) $(if $(CASE),--case $(CASE))

cuts: setup tools
	@$(BIN)/python -m tests.brokers.cuts $(if $(N),--n $(N)) $(if $(SEED),--seed $(SEED)) $(if $(FAULT),--fault $(FAULT))

brokers: setup tools
	@$(BIN)/python -m tests.brokers.cuts --full $(if $(SEED),--seed $(SEED))

soak: setup tools
	@$(BIN)/python -m tests.soak.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

bench: setup tools
	@$(BIN)/python -m tests.bench.bench $(if $(BENCH_COUNT),--count $(BENCH_COUNT)) $(BENCH)

# Java and Maven run the real Kafka; root on a Debian may fetch them, anybody else is told.
tools:
	@if command -v java >/dev/null && command -v mvn >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends openjdk-17-jre-headless maven; \
	else echo "Java 17 and Maven are needed to run Apache Kafka: apt install openjdk-17-jre-headless maven" >&2; exit 1; fi

lock: setup
	$(BIN)/python -m pip install -q uv
	$(LOCKED) --upgrade -o requirements.lock
	$(LOCKED) --extra oscore -c requirements.lock -o requirements-oscore.lock
	$(LOCKED) --upgrade --extra dev -o tests/requirements.lock
