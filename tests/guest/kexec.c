/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starts another kernel without the firmware, and without a driver's goodbye:
 *
 *	kexec KERNEL INITRD COMMAND-LINE
 */
#include <err.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int opened(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "kexec KERNEL INITRD COMMAND-LINE");
	if (syscall(SYS_kexec_file_load, opened(argv[1]), opened(argv[2]),
		    strlen(argv[3]) + 1, argv[3], 0UL) < 0)
		err(1, "kexec_file_load");
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
		LINUX_REBOOT_CMD_KEXEC, NULL);
	err(1, "reboot");
}
