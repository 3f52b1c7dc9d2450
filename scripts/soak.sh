#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What takes too long for `make check`: each fuzz target for half an hour, and
# tests/guest/soak_*.py, peers' suites on our devices and on QEMU's. Their tables
# are kept in docs/results.md.
#
#	scripts/soak.sh [fuzz | NAME...]  fuzz targets, or suites with such names
set -euo pipefail
cd "$(dirname "$0")/.."

fuzz=0
if [ $# -eq 0 ] || [ "$1" = fuzz ]; then
	scripts/fuzz.sh all 1800 || fuzz=$?
fi
[ "${1:-}" != fuzz ] || exit $fuzz

scripts/install-deps.sh build kit
kit=$(scripts/kit.sh)
scripts/build.sh build-check -Db_sanitize=address,undefined -Db_lundef=false
python3 tests/guest/run.py --soak --viodev build-check/viodev \
	--kit "$kit" "$@"
exit $fuzz
