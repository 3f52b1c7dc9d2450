#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Installs build folder $1 into an empty folder, as a packager does, and builds
# the examples against what is there alone, by pkg-config; $2 is the build's
# b_sanitize, which they need too. embed and embed_rng must run, hello serve.
set -euo pipefail

source=$(cd "$(dirname "$0")/../.." && pwd)
build=$1
sanitize=${2:-none}
dest=$(mktemp -d)
trap 'rm -rf "$dest"' EXIT

fail() {
	echo "install.sh: $*" >&2
	exit 1
}

meson install -C "$build" --destdir "$dest" --no-rebuild --quiet

pc=$(find "$dest" -name viodev.pc)
[ -n "$pc" ] || fail 'no viodev.pc'
for what in bin/viodev include/viodev/virtio.h 'lib*/libviodev.so' \
	share/man/man1/viodev.1 share/qemu/vhost-user/50-viodev-block.json; do
	find "$dest" -path "*/$what" -o -path "*/${what/lib\*/lib\*/\*}" |
		grep -q . || fail "no $what"
done

# What libvirt finds a back-end program by, and starts.
for json in "$dest"/*/share/qemu/vhost-user/50-viodev-*.json \
	"$dest"/*/*/share/qemu/vhost-user/50-viodev-*.json; do
	[ -e "$json" ] || continue
	program=$(sed -n 's/.*"binary": "\(.*\)".*/\1/p' "$json")
	type=$(sed -n 's/.*"type": "\(.*\)".*/\1/p' "$json")
	[ -e "$dest$(readlink "$dest$program")" ] || fail "$json: $program"
	(exec -a "$program" "$dest$(readlink "$dest$program")" \
		--print-capabilities) | grep -q "\"type\":\"$type\"" ||
		fail "$json: $type"
done

# What a compiler on the target system would be told, with $dest for its root,
# where no backend's -dev package is installed: no other .pc file is found.
export PKG_CONFIG_LIBDIR=${pc%/*} PKG_CONFIG_SYSROOT_DIR=$dest PKG_CONFIG_PATH=
libdir=$(pkg-config --variable=libdir viodev)
case $libdir in "$dest"*) ;; *) libdir=$dest$libdir ;; esac

# compile PROGRAM SOURCE PACKAGE [ARG...]
compile() {
	local flags
	read -ra flags < <(pkg-config --cflags "$3")
	[ "$sanitize" = none ] || flags+=("-fsanitize=$sanitize")
	"${CC:-cc}" -std=gnu17 -Wall -Wextra -Werror \
		"${flags[@]}" -o "$dest/$1" "$2" "${@:4}"
}

read -ra libs < <(pkg-config --libs viodev)
compile embed_rng "$source/examples/embed_rng.c" viodev "${libs[@]}"
compile hello "$source/examples/hello.c" viodev "${libs[@]}"
compile shout "$source/examples/shout.c" viodev "${libs[@]}" -pthread
read -ra libs < <(pkg-config --libs viodev-test viodev)
compile testkit "$source/tests/install/testkit.c" viodev "${libs[@]}"
read -ra libs < <(pkg-config --libs viodev-core)
compile core "$source/tests/install/core.c" viodev-core "${libs[@]}"
compile embed "$source/examples/embed.c" viodev-core "${libs[@]}"
read -ra libs < <(pkg-config --static --libs viodev)
compile embed_rng-static "$source/examples/embed_rng.c" viodev \
	"${libs[@]/#-lviodev/$libdir/libviodev.a}"

# libviodev-core wants libc alone.
if [ "$sanitize" = none ]; then
	for program in core embed; do
		! readelf -d "$dest/$program" | grep NEEDED |
			grep -v 'libc\.so' || fail "$program: wants more than libc"
	done
fi
version=$(pkg-config --modversion viodev)
[ "$("$dest/core")" = "$version $version 10441af4" ] || fail "core: $("$dest/core")"
"$dest/embed_rng-static" | grep -q '^16 random bytes: ..' || fail 'embed_rng-static'

viodev_include=$(find "$dest" -path '*/include/viodev')
"$source/tests/install/headers.sh" "${viodev_include%/viodev}"

export LD_LIBRARY_PATH=$libdir
for program in embed embed_rng; do
	"$dest/$program" | tee "$dest/$program.out"
	grep -q '^16 random bytes: ..' "$dest/$program.out" || fail "$program: no bytes"
	grep -q '^1 interrupt$' "$dest/$program.out" || fail "$program: no interrupt"
done

[ "$("$dest/testkit")" = $'64 bytes\n64 bytes' ] || fail testkit
"$dest/hello" "$dest/hello.sock" >"$dest/hello.out" &
hello=$!
for _ in $(seq 600); do
	grep -q ready "$dest/hello.out" && break
	sleep 0.05
done
[ -S "$dest/hello.sock" ] || fail 'hello: no socket'
kill "$hello"
"$(find "$dest" -path '*/bin/viodev')" --version
