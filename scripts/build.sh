#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Build viodev in folder $1; further arguments go to `meson setup`.
set -eu
cd "$(dirname "$0")/.."
dir=$1
shift

scripts/install-deps.sh --check build
[ -f "$dir/build.ninja" ] || meson setup "$dir" "$@" >"$dir.log" 2>&1 || {
	cat "$dir.log" >&2
	echo "viodev: meson setup failed; see above" >&2
	exit 1
}
rm -f "$dir.log"
ninja -C "$dir" --quiet
ln -sf src/viodev/viodev "$dir/viodev"
