# SPDX-License-Identifier: BSD-2-Clause
"""libblkio's front-end for vhost-user: blkio.c, built with the kit's library, and a back-end of QEMU's beside ours."""

import contextlib
import os
import pathlib
import subprocess
import time

from vm import PATIENCE, Skip, die_with_parent

SOURCE = pathlib.Path(__file__).resolve().parent / "blkio.c"
VHOST_USER = "virtio-blk-vhost-user"


def build(kit, directory):
    """The program's path."""
    root = pathlib.Path(kit, "root", "usr")
    if not (root / "include" / "blkio.h").exists():
        raise Skip("the kit has no libblkio")
    library = root / "lib" / "x86_64-linux-gnu"
    program = os.path.join(directory, "blkio")
    subprocess.run(["cc", "-std=gnu17", "-O2", f"-I{root}/include", str(SOURCE), "-o", program,
                    str(library / "libblkio.so.1"), f"-Wl,-rpath,{private(library, directory)}"], check=True)
    return program


def private(library, directory):
    """A folder with libblkio alone, for it is found beside a C library."""
    path = os.path.join(directory, "libblkio")
    os.makedirs(path, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.symlink(library / "libblkio.so.1", os.path.join(path, "libblkio.so.1"))
    return path


@contextlib.contextmanager
def storage_daemon(kit, image, path):
    """QEMU's back-end for the image, on the socket; its process."""
    command = [os.path.join(kit, "bin", "qemu-storage-daemon"),
               "--blockdev", f"driver=file,node-name=file,filename={image},aio=io_uring,locking=off,discard=unmap",
               "--export", f"type=vhost-user-blk,id=disk,addr.type=unix,addr.path={path},node-name=file,writable=on"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not os.path.exists(path):
                assert time.monotonic() < deadline and process.poll() is None, "qemu-storage-daemon does not serve"
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def cpu_seconds(pid):
    """What the process has used so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
