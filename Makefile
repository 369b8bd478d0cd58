# kickwatch: set-up, the first verdict, tests, benchmarks. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
RUN_ARGS ?=
TEST_ARGS ?=
INSTALL_ARGS ?=
WHEEL_DIR ?= dist
BENCHMARKS ?= $(sort $(wildcard tests/benchmarks/bench_*.py))
# Tests that need these cannot skip. `make test KICKWATCH_REQUIRE=` lets them.
KICKWATCH_REQUIRE ?= kernel,docker,prometheus,systemd,guest
export PYTHON KICKWATCH_REQUIRE

PROBES := daemon/kickwatch/observe/probes
PROBE_SOURCES := $(wildcard $(PROBES)/*.bpf.c)
PROBE_OBJECTS := $(PROBE_SOURCES:.bpf.c=.bpf.o)
BPF_ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,x86,$(shell uname -m)))
# -mcpu=v2: v3 brings value-returning atomics, which kernels before 5.12 refuse. -g makes the BTF that names the maps;
# the debug information beside it is some kilobytes, less than the 48 MB of packages that bring llvm-strip.
# The multiarch directory has asm/types.h, which -target bpf does not look for.
BPF_CFLAGS := -O2 -g -target bpf -mcpu=v2 -D__TARGET_ARCH_$(BPF_ARCH) -Wall -Werror -ffile-prefix-map=$(CURDIR)=.

.PHONY: help setup packages test-packages lab-packages venv native probes engine run test test-long test-all kernels lint bench wheel install remove clean

help:
	@echo 'make setup    all that is needed, Docker Engine included; the command is then .venv/bin/kickwatch'
	@echo 'make run      set up, then an experiment: the bill and the verdict (RUN_ARGS=... for `kickwatch trial --until-decided`)'
	@echo 'make test     set up, then lint, types, unit tests and the main job live (TEST_ARGS=... for pytest, KICKWATCH_REQUIRE=... to let skip)'
	@echo 'make test-all make test, then the long tests: fault loops, every engine, another kernel in a guest'
	@echo 'make kernels  Debian kernels in QEMU: what kickwatch sees on each, real faults (KICKWATCH_LAB_MACHINES=..., LABORATORY.md)'
	@echo 'make bench    set up, then the benchmarks (BENCHMARKS=tests/benchmarks/bench_NAME.py for one)'
	@echo 'make native   the native programs and the BPF objects'
	@echo 'make wheel    kickwatch as a wheel in $(WHEEL_DIR)/, native programs and BPF objects inside'
	@echo 'make install  the wheel as a systemd service on this machine; starts nothing (INSTALL_ARGS=... for deploy/install)'
	@echo 'make remove   takes that away again; an edited configuration and the history stay (INSTALL_ARGS=--purge: they too)'
	@echo 'make clean    remove what was built and the virtual environment'

setup: packages venv native engine

packages:
	@deploy/setup packages

test-packages: packages
	@deploy/setup test-packages

lab-packages: packages
	@deploy/setup lab-packages

venv: packages
	@deploy/setup venv

native: probes
	@$(MAKE) --no-print-directory --silent -C daemon/kickwatch/native >&2
	@echo 'native: programs and $(words $(PROBE_OBJECTS)) BPF objects are built' >&2

native probes $(PROBE_OBJECTS): | packages

probes: $(PROBE_OBJECTS)

$(PROBES)/%.bpf.o: $(PROBES)/%.bpf.c $(wildcard $(PROBES)/*.h) Makefile
	@echo 'native: compiling $<' >&2
	@clang $(BPF_CFLAGS) -I/usr/include/$$(gcc -print-multiarch) -c $< -o $@.new
	@mv -f $@.new $@

engine: venv
	@deploy/setup engine

run: setup
	@deploy/with-engine --or-runtime .venv/bin/kickwatch trial --until-decided $(RUN_ARGS)

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# For whoever comes new: lint, types, unit tests, and the main job on this kernel, with Docker, systemd and Prometheus.
test: setup test-packages
	@$(MAKE) --no-print-directory lint
	deploy/with-engine .venv/bin/pytest -m 'not lab and not long' --durations=15 $(TEST_ARGS)

# The fault loops, every engine, the guest. What boots a guest is half a gigabyte of packages: only where its test must
# not skip.
test-long: setup test-packages $(if $(findstring guest,$(KICKWATCH_REQUIRE)),lab-packages)
	deploy/with-engine .venv/bin/pytest -m 'long and not lab' --durations=25 $(TEST_ARGS)

test-all: test
	@$(MAKE) --no-print-directory test-long

kernels: lab-packages venv native
	@.venv/bin/python tests/lab/matrix.py $(TEST_ARGS)

bench: setup
	@deploy/with-engine $(SHELL) -c 'status=0; for script; do echo "== $$script"; \
		.venv/bin/python "$$script" || status=1; done; exit $$status' bench $(BENCHMARKS)

wheel: venv native
	@rm -f $(WHEEL_DIR)/kickwatch-*.whl
	@.venv/bin/python -m pip --quiet wheel --disable-pip-version-check --no-deps --wheel-dir $(WHEEL_DIR) .
	@echo "wheel: $$(ls $(WHEEL_DIR)/kickwatch-*.whl)" >&2

install: wheel
	@deploy/install --wheel $(WHEEL_DIR)/kickwatch-*.whl $(INSTALL_ARGS)

remove:
	@deploy/install --remove $(INSTALL_ARGS)

clean:
	@$(MAKE) --no-print-directory -C daemon/kickwatch/native clean
	rm -rf .venv $(PROBES)/*.bpf.o
