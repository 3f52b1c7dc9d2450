#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What takes too long for `make check`: each fuzz target for half an hour, known
# faults planted one at a time, and tests/guest/soak_*.py, peers' suites on our
# devices and on QEMU's. Their tables are kept in docs/results.md.
#
#	scripts/soak.sh [fuzz | plants | NAMES]    fuzz targets, planted faults,
#	                                           or suites that pytest's option
#	                                           -k selects by NAMES
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
if [ $# -eq 0 ] || [ "$1" = fuzz ]; then
	scripts/fuzz.sh all 1800 || failed=$?
fi
[ "${1:-}" != fuzz ] || exit $failed
if [ $# -eq 0 ] || [ "$1" = plants ]; then
	scripts/install-deps.sh build test
	scripts/plants.py || failed=$?
fi
[ "${1:-}" != plants ] || exit $failed

scripts/install-deps.sh build test kit
kit=$(scripts/kit.sh)
scripts/build.sh build-check -Db_sanitize=address,undefined -Db_lundef=false
pytest-3 -s tests/guest/soak_*.py --viodev build-check/viodev --kit "$kit" \
	-k "$*"
exit $failed
