#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Layers know those below them, never those above, by what they include and by
# what they call. layers.sh SRC LIBS NM: LIBS has a libviodev_LAYER.a for each.
src=$1 libs=$2 nm=$3
layers='base core pci back dev serve'
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0

# The layers that layer $1 may include, and call.
includes() {
	case $1 in
	core) echo base ;; # only what is inline there: see calls()
	pci) echo base core ;;
	back) echo base ;;
	dev) echo base core back model ;;
	serve) echo base core pci ;;
	esac
}

calls() {
	case $1 in
	pci) echo core ;;
	back) echo base ;;
	dev) echo base core back model ;;
	serve) echo base core pci ;;
	esac
}

# What a device model has of pci/: the functions that put it on a function.
model='vi_intr_init vi_pci_init vi_pcibar_setup vi_softc_fini vi_softc_linkup'

# The layer of a header. A public one that is not listed belongs to none.
layer_of() {
	case $1 in
	'"'*) header=${1#\"} && echo "${header%%/*}" ;;
	*/iov.h* | */loop.h*) echo base ;;
	*/gmem.h* | */net.h* | */version.h* | */virtio_core.h* | */virtio_bits.h*) echo core ;;
	*/pci.h*) echo pci ;;
	*/virtio.h* | */bhyve.h*) echo model ;;
	*/device.h*) echo dev ;;
	*/server.h*) echo serve ;;
	*) echo none ;;
	esac
}

sources() {
	grep -rH --include='*.[ch]' --exclude='*_test.c' --exclude='*_fuzz.c' "$@"
}

bad() {
	echo "$1"
	status=1
}

# allowed WORD WORDS...: whether the word is one of them
allowed() {
	word=$1
	shift
	case " $* " in *" $word "*) return 0 ;; esac
	return 1
}

check_includes() {
	may="$1 $(includes "$1")"
	allowed pci $may && may="$may model"
	sources -hoE '#include ("[a-z]+/|<viodev/)[^">]*' "$src/$1" |
		cut -d' ' -f2 | sort -u >"$tmp/headers"
	while read -r header; do
		allowed "$(layer_of "$header")" $may ||
			bad "$(sources -nF "#include $header" "$src/$1")"
	done <"$tmp/headers"
}

# Lines of a file or a folder that match.
never() {
	[ -e "$src/$1" ] || bad "$src/$1: not there"
	lines=$(sources -nE "$2" "$src/$1") && bad "$lines"
}

symbols() {
	"$nm" -g "$@" 2>/dev/null | awk 'NF > 1 { print $NF }' | sort -u
}

check_calls() {
	may="$1 $(calls "$1")"
	for other in $layers; do
		allowed "$other" $may && continue
		for name in $(comm -12 "$tmp/$1.uses" "$tmp/$other.has"); do
			allowed model $may && allowed "$name" $model && continue
			bad "$1 calls $name() of $other"
		done
	done
}

for layer in $layers; do
	symbols --defined-only "$libs/libviodev_$layer.a" >"$tmp/$layer.has"
	symbols -u "$libs/libviodev_$layer.a" >"$tmp/$layer.uses"
	[ -s "$tmp/$layer.has" ] || bad "$libs: no library of $layer"
done
for layer in $layers; do
	check_includes "$layer"
	check_calls "$layer"
done

# The disk engine: admission calls execution, execution calls the engine.
disk_engine='call.h engine.h engine.c syscalls.c uring.c threads.c image.h image.c'
disk_exec='exec.h exec.c rw.c zero.c flush.c'
if [ -d "$src/back/disk" ]; then
	for file in $disk_engine; do
		never "back/disk/$file" '#include.*"back/disk/(request|exec|admission|disk)\.h'
	done
	for file in $disk_exec; do
		never "back/disk/$file" '#include.*"back/disk/(admission|disk)\.h'
	done
fi

# The vhost-user server drives the core alone: it has no PCI function.
for file in "$src"/serve/vhost_user*.c; do
	[ ! -e "$file" ] || never "serve/${file##*/}" '\<(pci_[a-z_]+|vi_pci_[a-z_]+) *\('
done

# No line of a device model tells which transport serves it.
never dev 'vfio|vhost|vhuser|vfuser'
exit $status
