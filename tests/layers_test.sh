#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# layers.sh finds every forbidden arrow. layers_test.sh LAYERS.SH NM CC...
check=$1 nm=$2
shift 2
cc=$*
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0

# LAYER: the layers that it must not call; what it must not include
forbidden() {
	case $1 in
	base) echo core pci back dev serve ;;
	core) echo base pci back dev serve ;;
	pci) echo base back dev serve ;;
	back) echo core pci dev serve ;;
	dev) echo pci serve ;;
	serve) echo back dev ;;
	esac
}

forbidden_headers() {
	for other in $(forbidden "$1"); do
		case $1:$other in
		core:base | pci:base) ;; # inline functions
		*) echo "\"$other/x.h\"" ;;
		esac
	done
	echo '"viodev/x.h"' '<viodev/unlisted.h>'
	case $1 in
	base) echo '<viodev/gmem.h>' '<viodev/virtio.h>' ;;
	core) echo '<viodev/pci.h>' '<viodev/virtio.h>' ;;
	pci) echo '<viodev/device.h>' '<viodev/server.h>' ;;
	back) echo '<viodev/virtio_core.h>' '<viodev/virtio.h>' ;;
	dev) echo '<viodev/pci.h>' '<viodev/server.h>' ;;
	serve) echo '<viodev/device.h>' ;;
	esac
}

# Writes the layer's source, includes $2 and calls $3, and makes its library.
layer() {
	mkdir -p "$tmp/src/$1"
	for header in $2; do
		echo "#include $header"
	done >"$tmp/src/$1/x.h"
	{
		for other in $3; do
			echo "int $other(void);"
		done
		echo "int in_$1(void);"
		echo "int in_$1(void) { return 0"
		for other in $3; do
			echo " + $other()"
		done
		echo '; }'
	} >"$tmp/src/$1/x.c"
	$cc -c -o "$tmp/$1.o" "$tmp/src/$1/x.c"
	rm -f "$tmp/libviodev_$1.a"
	ar rc "$tmp/libviodev_$1.a" "$tmp/$1.o"
}

# expect TEXT: the check printed it
expect() {
	grep -qF -- "$1" "$tmp/out" && return
	echo "not found: $1"
	status=1
}

layer base '' ''
layer core '"base/x.h"' ''
layer pci '"base/x.h" "core/x.h" <viodev/virtio.h>' in_core
layer back '"base/x.h" <viodev/loop.h>' in_base
layer dev '"back/x.h" <viodev/virtio.h>' 'in_back in_core vi_softc_linkup'
layer serve '"pci/x.h" <viodev/pci.h>' 'in_pci in_core in_base'
sh "$check" "$tmp/src" "$tmp" "$nm" || status=1

for l in base core pci back dev serve; do
	layer $l "$(forbidden_headers $l)" \
		"$(for other in $(forbidden $l); do echo "in_$other"; done)"
done
sh "$check" "$tmp/src" "$tmp" "$nm" >"$tmp/out" && status=1
for l in base core pci back dev serve; do
	for other in $(forbidden $l); do
		expect "$l calls in_$other() of $other"
	done
	for header in $(forbidden_headers $l); do
		expect "/$l/x.h:$(grep -nF "$header" "$tmp/src/$l/x.h" |
			cut -d: -f1):#include $header"
	done
done

echo 'int x; /* vhost-user */' >"$tmp/src/dev/y.c"
echo 'void x(void) { pci_kick(0); }' >"$tmp/src/serve/vhost_user_x.c"
sh "$check" "$tmp/src" "$tmp" "$nm" >"$tmp/out"
expect '/dev/y.c:1:int x; /* vhost-user */'
expect '/serve/vhost_user_x.c:1:void x(void) { pci_kick(0); }'
exit $status
