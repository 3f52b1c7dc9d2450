/* SPDX-License-Identifier: BSD-2-Clause */
/* Serves the RAM disk of bhyve_ramdisk.c: bhyve_serve SOCKET MODE */
#include <stdio.h>
#include <string.h>

#include <viodev/loop.h>
#include <viodev/server.h>

#include "bhyve_ramdisk.h"

#define DISK_BYTES (32u << 20)

static virtio_mode_t mode_of(const char *name)
{
	if (strcmp(name, "legacy") == 0)
		return VIRTIO_MODE_LEGACY;
	if (strcmp(name, "modern") == 0)
		return VIRTIO_MODE_MODERN;
	return VIRTIO_MODE_TRANSITIONAL;
}

int main(int argc, char *argv[])
{
	struct vio_server *srv;
	struct vio_loop *loop;

	if (argc != 3)
		return 2;
	if (vio_loop_create(&loop) < 0 ||
	    vio_server_create(loop, VIO_VFIO_USER, "vtrd", &srv) < 0 ||
	    pci_vtrd_init(vio_server_pci(srv), mode_of(argv[2]), DISK_BYTES) ||
	    vio_server_listen_path(srv, argv[1]) < 0)
		return 1;
	printf("ready\n");
	fflush(stdout);
	return vio_loop_run(loop) < 0;
}
