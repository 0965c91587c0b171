# Each target does its own set-up: any Python >= 3.12 will do, with or without uv.
# Pass options with ARGS, for example: make demo ARGS=--serve, make test ARGS='-k bootstrap'

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types check bench clean

BIN := .venv/bin

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv agree with uv.lock (every other target does it first)
	@sh scripts/bootstrap.sh

demo: setup ## watch a real OpenHands agent's cost rise: no key, no Docker, no network
	@$(BIN)/openhands-otel demo $(ARGS)

test: setup ## run the tests
	@$(BIN)/python -m pytest $(ARGS)

lint: setup ## check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup ## check types, strictly
	@$(BIN)/pyright

check: lint types test ## all three

bench: setup ## measure freshness, payload and overhead
	@for benchmark in freshness payload overhead; do \
	    echo "== $$benchmark"; $(BIN)/python benchmarks/$$benchmark.py $(ARGS) || exit 1; \
	done

clean: ## remove what make and the tools made here
	@rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis dist
