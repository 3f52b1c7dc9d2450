# SPDX-License-Identifier: BSD-2-Clause
"""Guest memory in the shapes that QEMU gives it."""

from checks import MODES, attach, fio, image, rngtest, status


def disks(t, mib=16):
    return {mode: image(t.tmp / f"{mode}.raw", mib) for mode in MODES}


def test_not_shared(t):
    """Plain -m: no memory is shared, and all DMA is by messages; disks of each mode and an entropy source work."""
    with t.serve(*[f"block,id={mode},path={path},mode={mode}" for mode, path in disks(t).items()],
                 "rng,id=rng") as viodev:
        with t.guest(attach(viodev), backend="none", tools=True) as guest:
            t.say(f"commands after {guest.boot_seconds:.1f} s")
            for disk in "vda", "vdb", "vdc":
                fio(guest, disk, f"/dev/{disk}", size="2M", bs="512-256k")
            guest.check("mkfs.ext4 -q /dev/vdc && mount -t ext4 /dev/vdc /mnt && cp /usr/bin/busybox /mnt/x && "
                        "umount /mnt && e2fsck -fn /dev/vdc && mount -t ext4 /dev/vdc /mnt && "
                        "cmp /usr/bin/busybox /mnt/x")
            rngtest(guest, 5)
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0, status(viodev, id)


def test_iommu(t):
    """Behind an IOMMU (intel-iommu, pass-through): guest memory is mapped as without one."""
    with t.serve(*[f"block,id={mode},path={path},mode={mode}" for mode, path in disks(t).items()],
                 "rng,id=rng") as viodev:
        with t.guest("-device", "intel-iommu", attach(viodev), append="intel_iommu=on iommu=pt", tools=True) as guest:
            guest.check("dmesg | grep 'DMAR: IOMMU enabled'")
            for disk in "vda", "vdb", "vdc":
                fio(guest, disk, f"/dev/{disk}", size="2M")
            rngtest(guest, 5)


def test_two_backends(t):
    """More than 4 GiB in two pieces of different files (NUMA nodes), below and above the hole; buffers in both."""
    with t.serve(*[f"block,id={mode},path={path},mode={mode}" for mode, path in disks(t).items()]) as viodev:
        nodes = []
        for node, size in enumerate(("1G", "4G")):
            nodes += ["-object", f"memory-backend-memfd,id=m{node},size={size},share=on",
                      "-numa", f"node,nodeid={node},memdev=m{node}" + (",cpus=0" if node == 0 else ",cpus=1")]
        with t.guest(nodes, attach(viodev), memory="5G", backend="none", cpus=2, tools=True) as guest:
            t.say(f"commands after {guest.boot_seconds:.1f} s")
            assert int(guest.check("awk '/MemTotal/ { print $2 }' /proc/meminfo")) > 4 << 20
            # A program's memory comes from the node that its processor belongs to.
            for processor, disk in (0, "vda"), (1, "vdb"), (1, "vdc"):
                fio(guest, disk, f"/dev/{disk}", size="4M", more=f"--cpus_allowed={processor}")
        for id in viodev.sockets:
            assert status(viodev, id)["server"]["bad-messages"] == 0
