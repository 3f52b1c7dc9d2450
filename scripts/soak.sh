#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What takes too long for `make check`: tests/guest/soak_*.py, peers' suites on
# our devices and on QEMU's. Their tables are kept in docs/results.md.
#
#	scripts/soak.sh [NAME]      only those whose name contains it
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-deps.sh build kit
kit=$(scripts/kit.sh)
scripts/build.sh build-check -Db_sanitize=address,undefined -Db_lundef=false
exec python3 tests/guest/run.py --soak --viodev build-check/viodev \
	--kit "$kit" "$@"
