#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Layers know those below them, never those above: in particular no line of a
# device model tells which transport serves it. layers.sh SRC
src=$1
status=0

# Prints lines of a layer's files that match, and remembers that some did.
never() {
	if grep -rnE --include='*.[ch]' --exclude='*_test.c' --exclude='*_fuzz.c' \
		"$2" "$src/$1"; then
		echo "^ not in $1"
		status=1
	fi
}

never dev '#include.*("serve/|"viodev/|"pci/|<viodev/(pci|server)\.h>)'
never dev 'vfio|vhost|vhuser|vfuser'
never back '#include.*("(dev|serve|viodev|pci|core)/|<viodev/(virtio|pci|device|server)\.h>)'
for file in call.h engine.h engine.c syscalls.c uring.c threads.c image.h image.c; do
	never back/disk/$file '#include.*"back/disk/(request|exec|admission|disk)\.h'
done
for file in exec.h exec.c rw.c zero.c flush.c; do
	never back/disk/$file '#include.*"back/disk/(admission|disk)\.h'
done
never core '#include.*"(pci|dev|back|serve|viodev)/'
never pci '#include.*"(dev|back|serve|viodev)/'
never serve '#include.*"(dev|viodev)/'
exit $status
