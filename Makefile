# kickwatch: set-up, the first verdict, tests, benchmarks. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
RUN_ARGS ?=
TEST_ARGS ?=
INSTALL_ARGS ?=
IMAGE_ARGS ?=
RELEASE_ARGS ?=
SUITE ?=
WHEEL_DIR ?= dist
WHEEL = $(WHEEL_DIR)/kickwatch-*_$(patsubst arm64,aarch64,$(ARCH)).whl
BENCHMARKS ?= $(sort $(wildcard tests/benchmarks/bench_*.py))
# Tests that need one of these fail instead of skipping if it is missing. `make test KICKWATCH_REQUIRE=` lets them skip.
KICKWATCH_REQUIRE ?= kernel,docker,prometheus,systemd,guest,browser,userland,cross
export PYTHON KICKWATCH_REQUIRE

# `make native ARCH=arm64` cross-builds below build/arm64, laid out as the package, and leaves this machine's files alone.
# Only the command line sets it: kernel developers have an ARCH in their environment.
HOST_ARCH := $(patsubst aarch64,arm64,$(shell uname -m))
ARCH := $(HOST_ARCH)
override ARCH := $(patsubst aarch64,arm64,$(patsubst amd64,x86_64,$(ARCH)))
ifeq ($(ARCH),$(HOST_ARCH))
CROSS :=
PACKAGE := daemon/kickwatch
else
CROSS := $(patsubst arm64,aarch64,$(ARCH))-linux-gnu-
PACKAGE := build/$(ARCH)/kickwatch
endif
ifneq ($(origin CC),command line)
CC := $(CROSS)gcc
endif

PROTOCOLS := $(wildcard daemon/kickwatch/workload/*.proto)
STUBS := $(PROTOCOLS:.proto=_pb2.py)

PROBES := daemon/kickwatch/observe/probes
BUILT_PROBES := $(PACKAGE)/observe/probes
PROBE_SOURCES := $(wildcard $(PROBES)/*.bpf.c)
PROBE_OBJECTS := $(patsubst $(PROBES)/%.bpf.c,$(BUILT_PROBES)/%.bpf.o,$(PROBE_SOURCES))
BPF_ARCH := $(patsubst x86_64,x86,$(ARCH))
# -mcpu=v2: v3 has value-returning atomics, which kernels before 5.12 refuse. -g generates the BTF that names the maps;
# its debug information takes some kilobytes, less than the 48 MB of packages that llvm-strip would need.
# The rule below adds the compiler's multiarch directory, native or of the cross headers, for asm/types.h and the
# registers of asm/ptrace.h: -target bpf does not search it. -dwarf-debug-flags puts the machine in the debug information,
# where hatch_build.py reads it: the ELF header says BPF for each machine.
BPF_CFLAGS := -O2 -g -target bpf -mcpu=v2 -D__TARGET_ARCH_$(BPF_ARCH) -Wall -Werror -ffile-prefix-map=$(CURDIR)=. \
	-Xclang -dwarf-debug-flags -Xclang __TARGET_ARCH_$(BPF_ARCH)

.PHONY: help setup packages test-packages image-packages lab-packages cross-packages arm64-packages deb-packages venv native probes stubs engine run test test-long test-all kernels lint bench wheel image deb release-check install remove docs man dashboards clean

help:
	@echo 'make setup     install what is needed, and Docker Engine if there is no engine; creates .venv/bin/kickwatch'
	@echo 'make run       setup, then one experiment with its verdict (RUN_ARGS=... for `kickwatch trial --until-decided`)'
	@echo 'make test      setup, lint, types, unit tests, and live tests of the main job (TEST_ARGS=... for pytest,'
	@echo '               KICKWATCH_REQUIRE= to skip tests whose needs are missing)'
	@echo 'make test-all  make test, then the long tests: fault loops, every engine, another kernel in a guest'
	@echo 'make kernels   the laboratory: Debian kernels and real faults in QEMU (docs/laboratory.md, KICKWATCH_LAB_MACHINES=...)'
	@echo 'make bench     setup, then the benchmarks (BENCHMARKS=tests/benchmarks/bench_NAME.py for one of them)'
	@echo 'make native    build the native programs, BPF objects and gRPC stubs (ARCH=arm64 to cross-build them in build/arm64)'
	@echo 'make wheel     build a wheel with native programs and BPF objects in $(WHEEL_DIR)/'
	@echo 'make image     build the OCI image of the daemon in build/image/, without a registry (docs/howto/kubernetes.md)'
	@echo 'make deb       build a .deb in $(WHEEL_DIR)/, with the list of its parts (SUITE=bookworm or trixie, docs/howto/packages.md)'
	@echo 'make release-check  the checklist of a release: what is done, and what is not'
	@echo 'make install   install the wheel as a systemd service, without starting it (INSTALL_ARGS=... for deploy/install)'
	@echo 'make remove    remove that service; keeps an edited configuration and the history (INSTALL_ARGS=--purge: all)'
	@echo 'make docs      setup of the generator, then the documentation as a site in build/docs'
	@echo 'make dashboards  the Grafana dashboards in deploy/grafana, from dashboards.py'
	@echo 'make man       the man pages in build/man; `make wheel` includes them'
	@echo 'make lint      ruff and mypy, after setup'
	@echo 'make clean     remove the virtual environment and everything that was built'

setup: packages venv native engine

packages:
	@deploy/setup packages

test-packages: packages venv
	@deploy/setup test-packages

image-packages: packages
	@deploy/setup image-packages

lab-packages: packages
	@deploy/setup lab-packages

cross-packages: packages
	@deploy/setup cross-packages

arm64-packages: cross-packages
	@deploy/setup arm64-packages

venv: packages
	@deploy/setup venv

native: probes stubs
	@$(MAKE) --no-print-directory --silent -C daemon/kickwatch/native CC="$(CC)" BIN=$(abspath $(PACKAGE))/native/bin >&2
	@echo 'native: built the programs and $(words $(PROBE_OBJECTS)) BPF objects for $(ARCH)' >&2

native probes $(PROBE_OBJECTS): | $(if $(CROSS),cross-packages,packages)
stubs $(STUBS): | venv

probes: $(PROBE_OBJECTS)

stubs: $(STUBS)

# Both the module and what mypy reads in its place.
%_pb2.py: %.proto pyproject.toml
	@echo 'native: generating $@' >&2
	@.venv/bin/python -m grpc_tools.protoc -I daemon --pyi_out=daemon --python_out=daemon $<

$(BUILT_PROBES)/%.bpf.o: $(PROBES)/%.bpf.c $(wildcard $(PROBES)/*.h) Makefile
	@echo 'native: compiling $<' >&2
	@mkdir -p $(@D)
	@multiarch=$$($(CC) -print-multiarch) && \
		clang $(BPF_CFLAGS) -I/usr/include/$$multiarch -I/usr/$$multiarch/include -c $< -o $@.new
	@mv -f $@.new $@

$(filter %_noread.bpf.o,$(PROBE_OBJECTS)): $(BUILT_PROBES)/%_noread.bpf.o: $(PROBES)/%.bpf.c

engine: venv
	@deploy/setup engine

run: setup
	@deploy/with-engine --or-runtime .venv/bin/kickwatch trial --until-decided $(RUN_ARGS)

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# For newcomers: lint, types, unit tests, and the main job on this kernel, with Docker, systemd and Prometheus.
test: setup test-packages
	tests/run main $(TEST_ARGS)

# The fault loops, every engine, the guest. The packages that boot a guest take half a gigabyte, so they are installed
# only if the guest's test may not skip.
test-long: setup test-packages $(if $(findstring guest,$(KICKWATCH_REQUIRE)),lab-packages) $(if $(findstring cross,$(KICKWATCH_REQUIRE)),cross-packages)
	tests/run long $(TEST_ARGS)

test-all: test
	@$(MAKE) --no-print-directory test-long

kernels: lab-packages $(if $(findstring arm64,$(KICKWATCH_LAB_MACHINES)),arm64-packages) venv native
	@.venv/bin/python tests/lab/matrix.py $(TEST_ARGS)

bench: setup
	@deploy/with-engine $(SHELL) -c 'status=0; for script; do echo "== $$script"; \
		.venv/bin/python "$$script" || status=1; done; exit $$status' bench $(BENCHMARKS)

# Warnings are errors, and so is a link to a page, heading or file that is not there.
docs: venv
	@deploy/setup docs
	@.venv/bin/sphinx-build --fail-on-warning --keep-going --quiet -d build/doctrees docs build/docs
	@echo 'docs: build/docs/index.html' >&2

man: venv
	@.venv/bin/python docs/generate.py man build/man
	@echo 'man: build/man' >&2

# As code: deploy/grafana/dashboards.py. A test compares the files with what it makes.
dashboards: venv
	@.venv/bin/python deploy/grafana/dashboards.py

wheel: venv native man
	@rm -f $(WHEEL)
	@KICKWATCH_WHEEL_ARCH=$(ARCH) .venv/bin/python -m pip --quiet wheel --disable-pip-version-check --no-deps \
		--wheel-dir $(WHEEL_DIR) .
	@echo "wheel: $$(ls $(WHEEL))" >&2

image: wheel image-packages
	@.venv/bin/python deploy/image/build.py --wheel $(WHEEL) $(IMAGE_ARGS)

deb-packages: packages
	@deploy/setup deb-packages

# For this machine's suite, unless SUITE names another: the package's programs run on both.
deb: deb-packages wheel
	@.venv/bin/python deploy/debian/build.py --wheel $(WHEEL) --out $(WHEEL_DIR) $(if $(SUITE),--suite $(SUITE))

release-check: test-packages venv
	@.venv/bin/python deploy/release.py $(RELEASE_ARGS)

install: wheel
	@deploy/install --wheel $(WHEEL) $(INSTALL_ARGS)

remove:
	@deploy/install --remove $(INSTALL_ARGS)

clean:
	@$(MAKE) --no-print-directory -C daemon/kickwatch/native clean
	rm -rf .venv $(PROBES)/*.bpf.o $(STUBS) $(STUBS:.py=.pyi) build/arm64 build/x86_64 build/image build/docs build/doctrees build/man docs/generated
