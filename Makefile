# SPDX-License-Identifier: BSD-2-Clause
# The front door. `make help` lists what it opens.

BUILD ?= build
.PHONY: help deps build format tidy demo check check-bare check-arch soak fuzz plants bench conformance kit install clean

help:
	@echo 'make deps         install what building needs (Debian)'
	@echo 'make build        the command is $(BUILD)/src/viodev/viodev, also as $(BUILD)/viodev'
	@echo 'make format       the C sources, as .clang-format says'
	@echo 'make tidy         look at them with clang-tidy'
	@echo 'make demo         boot a Linux guest on devices that viodev serves'
	@echo 'make check        all tests: unit, command line, real guests'
	@echo 'make check-bare   the demo and all tests on bare Debian 12 and 13 (root)'
	@echo 'make check-arch   build for i386 and s390x, and run the unit tests'
	@echo 'make soak         suites that take long: peers'"'"' on our devices and on QEMU'"'"'s'
	@echo 'make fuzz         TARGET= SECONDS=: fuzz one with libFuzzer; or list the targets'
	@echo 'make plants       NAMES=: plant known faults; does a test or fuzzer find each?'
	@echo 'make bench        measure against QEMU'"'"'s own devices'
	@echo 'make conformance  which requirements of the specification have a test'
	@echo 'make install      below PREFIX= (/usr/local); DESTDIR= stages it'

deps:
	@scripts/install-deps.sh build

build:
	@scripts/build.sh $(BUILD)

format:
	@scripts/format.sh

tidy:
	@scripts/tidy.sh

demo:
	@scripts/install-deps.sh build
	@scripts/build.sh $(BUILD)
	@scripts/demo.sh $(BUILD)/viodev

check:
	@scripts/check.sh

check-bare:
	@scripts/check-bare.sh

check-arch:
	@scripts/check-arch.sh

soak:
	@scripts/soak.sh

fuzz:
	@scripts/fuzz.sh $(TARGET) $(SECONDS)

plants:
	@scripts/install-deps.sh build test
	@python3 scripts/plants.py $(NAMES)

bench:
	@scripts/install-deps.sh build test kit
	@scripts/build.sh $(BUILD)
	@python3 bench/bench.py --viodev $(BUILD)/viodev --kit "$$(scripts/kit.sh)"

conformance:
	@python3 scripts/conformance.py

kit:
	@scripts/kit.sh

install: build
	@$(if $(PREFIX),meson configure $(BUILD) --prefix='$(PREFIX)')
	@meson install -C $(BUILD) $(if $(DESTDIR),--destdir $(DESTDIR))

clean:
	rm -rf build build-*
