# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
# `make demo` and `make test` install what they need; see tools/setup.

PY := .venv/bin/python
ARGS ?=
WRITE_DOCS ?=
SHELL_SCRIPTS := tools/setup tools/reproducible tools/sanitize tools/fuzz tools/coverage .ci/run

.PHONY: help demo test test-kernels test-lab lint format bench build reproducible sanitize differential fuzz coverage clean run-setup dev-setup lab-setup

help:
	@echo "make demo          the main job, on this kernel, in a namespace of its own"
	@echo "make test          all tests, in two processes; ARGS='-k name' chooses, VNETHASH_REQUIRE_KERNEL=1 forbids skips"
	@echo "make test-kernels  the kernel tests on other kernels, the wheel in another root; see docs/kernels.md"
	@echo "make test-lab      kernels of our own: built (once, 15 minutes), then tests in them"
	@echo "make lint          ruff, mypy, shellcheck"
	@echo "make format        let ruff format"
	@echo "make bench         benchmarks; ARGS=--quick runs each once"
	@echo "make build         rebuild what is made from native/"
	@echo "make reproducible  the BPF object does not depend on where it is built"
	@echo "make sanitize      tests of the native core under AddressSanitizer and UBSan"
	@echo "make differential  a million frames through all implementations; ARGS='--frames N --seed WORD'"
	@echo "make fuzz          ten million of them, and five minutes of coverage-guided fuzzing of each target"
	@echo "make coverage      lines and branches of the dissector, virtio/ and rss/ that tests reach"
	@echo "make clean         remove all that was made"

demo: run-setup
	@.venv/bin/vnethash demo $(ARGS)

test: dev-setup
	@$(PY) -m pytest $(or $(ARGS),-n 2)

test-kernels: dev-setup
	@VNETHASH_REQUIRE_KERNELS=1 VNETHASH_WRITE_DOCS=$(WRITE_DOCS) $(PY) -m pytest tests/kernels $(ARGS)

test-lab: lab-setup
	@.venv/bin/vnethash lab build
	@VNETHASH_REQUIRE_LAB=1 $(PY) -m pytest tests/lab $(ARGS)

lint: dev-setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	shellcheck $(SHELL_SCRIPTS)

format: dev-setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: dev-setup
	@.venv/bin/vnethash bench $(ARGS)

build: dev-setup

reproducible: dev-setup
	@tools/reproducible

sanitize: dev-setup
	@tools/sanitize $(ARGS)

differential: dev-setup
	@$(PY) -m tests.differential --frames 1000000 $(ARGS)

fuzz: dev-setup
	@tools/fuzz 300
	@$(PY) -m tests.differential --frames 10000000 $(ARGS)

coverage: dev-setup
	@tools/coverage

run-setup:
	@tools/setup run

dev-setup:
	@tools/setup dev

lab-setup:
	@tools/setup lab

clean:
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src/vnethash/_built -mindepth 1 ! -name __init__.py -exec rm -rf {} +
	find bench src tests -name __pycache__ -type d -prune -exec rm -rf {} +
