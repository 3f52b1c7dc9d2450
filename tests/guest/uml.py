# SPDX-License-Identifier: BSD-2-Clause
"""User Mode Linux: a guest that is a process, and a front-end of vhost-user itself."""

import os
import tempfile

from vm import PATIENCE, Guest, Skip


class Uml(Guest):
    """
    A running kernel with the kit's command service, as Guest; devices are pairs of a socket's path and a virtio ID.
    There is no QMP.
    """

    def __init__(self, *devices, kit, tools=False, memory="256M", timeout=PATIENCE):
        folder = os.path.join(kit, "uml")
        if not os.path.isdir(folder):
            raise Skip("the kit has no User Mode Linux")
        self._prepare(kit, timeout)
        try:
            console, console_fd = self._socketpair()
            self._control, control_fd = self._socketpair()
            initrd = self._join("initrd.cpio", "uml.cpio", *(["tools.cpio"] if tools else []))
            self.command = [
                "./linux", f"mem={memory}", f"initrd={initrd}", f"uml_dir={self._dir}", "umid=uml", "con=null",
                f"con0=fd:{console_fd},fd:{console_fd}", f"con1=fd:{control_fd},fd:{control_fd}", "quiet",
                "viodev.tty=tty1", *(f"virtio_uml.device={path}:{id}" for path, id in devices)]
            # Its memory is an unlinked file there.
            env = {**os.environ, "LD_LIBRARY_PATH": folder, "TMPDIR": tempfile.gettempdir()}
            self._start((console_fd, control_fd), cwd=folder, env=env)
            self._follow(console)
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
