# The few commands of this repository. `make` alone lists them. Compiled things go to one directory outside the tree, shared by all targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export CARGO_TARGET_DIR ?= $(HOME)/.cache/millstream/target
export PATH := $(CURDIR)/.cache/venv/bin:$(CURDIR)/.cache/node/node_modules/.bin:$(PATH)

# Our own crates as fast as they get; dependencies are optimised in every profile, so none of them is compiled again.
OPTIMISED := --config profile.dev.opt-level=3 --config profile.dev.debug-assertions=false --config profile.dev.overflow-checks=false

.PHONY: help setup build demo kafka kafka-stop test bench soak fmt lint clean
help: ## Lists the commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: ## Installs what is missing on this machine, and says what.
	@scripts/setup

build: setup ## Builds the millstream binary.
	cargo build --package millstream-cli

demo: build ## Flights through Wasm operators: builds everything, runs examples/flights, prints what came out.
	@scripts/demo

kafka: ## Starts a Kafka broker on this machine, without containers, and prints its address (VERSION="3.9.2": another version).
	@MILLSTREAM_KAFKA_VERSION="$(VERSION)" scripts/kafka status .cache/kafka/local 2>/dev/null || MILLSTREAM_KAFKA_VERSION="$(VERSION)" scripts/kafka start .cache/kafka/local

kafka-stop: ## Stops it; what it holds stays in .cache/kafka/local.
	@scripts/kafka stop .cache/kafka/local

test: setup ## Runs every test.
	cargo test --quiet --manifest-path guest-sdk/rust/bindings/Cargo.toml
	cargo test --workspace --doc
	cargo nextest run --workspace --no-fail-fast

bench: setup ## Measures every figure, prints a table and writes docs/bench/latest.json. ONLY="boundary q5": these alone.
	cargo build --package millstream-bench --package millstream-cli $(OPTIMISED)
	"$(CARGO_TARGET_DIR)/debug/millstream-bench" $(if $(ONLY),--only $(ONLY))

soak: setup ## Runs the tests that take minutes in their long form: state of gigabytes under a small memory, a thousand kills, five thousand deploys, twenty thousand simulated histories, ten thousand faults between a job and its broker, brokers that go and come back (Kafka 3.9.2).
	MILLSTREAM_SOAK=1 MILLSTREAM_KAFKA_VERSION=3.9.2 cargo nextest run --profile soak --workspace $(OPTIMISED) -E 'test(larger_than_memory) or test(deploys_leave_nothing_behind) or test(faults_on_the_way_of_requests) or binary(jobs) or binary(simulation)'

fmt: ## Formats the Rust code.
	cargo fmt --all

lint: setup ## What .ci/run checks besides the tests: format, clippy, licences and sources of dependencies.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny --log-level error check bans licenses sources

clean: ## Removes what was built and installed for this repository.
	rm -rf .cache "$(CARGO_TARGET_DIR)"
