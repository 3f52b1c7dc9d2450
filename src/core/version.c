/* SPDX-License-Identifier: BSD-2-Clause */
#include <viodev/version.h>

#define TEXT(x)                      #x
#define VERSION(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

const char *vio_version(void)
{
	return VERSION(VIODEV_VERSION_MAJOR, VIODEV_VERSION_MINOR,
		       VIODEV_VERSION_PATCH);
}
