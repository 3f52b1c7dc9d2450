/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/identity.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/hash.h"
#include "viodev/cmd.h"
#include "viodev/instance.h"

#define MACHINE_ID "/etc/machine-id"

/* Containers may lack a machine ID, but their host names differ. */
static uint64_t hash_host(uint64_t hash)
{
	int fd = open(MACHINE_ID, O_RDONLY | O_CLOEXEC);
	char id[33] = "";
	struct utsname host;
	ssize_t len = fd < 0 ? 0 : read(fd, id, sizeof(id) - 1);

	if (fd >= 0)
		close(fd);
	if (len == sizeof(id) - 1)
		return hash_text(hash, id);
	return uname(&host) == 0 ? hash_text(hash, host.nodename) : hash;
}

static uint64_t hash_socket(uint64_t hash, const char *path)
{
	char absolute[PATH_MAX];

	return hash_text(hash, realpath(path, absolute) ? absolute : path);
}

static uint64_t hash_devices(uint64_t hash, const struct cmdline *line)
{
	char dir[PATH_MAX];

	hash = hash_text(hash, getcwd(dir, sizeof(dir)) ? dir : "");
	for (int i = 0; i < line->nr_words; i++)
		hash = hash_text(hash, line->words[i]);
	return hash;
}

uint64_t identity_of(const struct instance *inst, const struct cmdline *line)
{
	uint64_t hash = hash_host(HASH_START);

	if (line->vmm && !line->dir)
		hash = hash_devices(hash, line);
	else
		hash = hash_socket(hash, inst->front.path);
	return hash_text(hash, inst->id);
}
