/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/macvtap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TUN_MAJOR 10 /* of /dev/net/tun, a miscellaneous device */
#define FLAGS     (O_RDWR | O_NONBLOCK | O_CLOEXEC)

/* The driver has one name for macvlan and macvtap. */
bool macvtap_is(const char *name)
{
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };
	struct ifreq ifr = { .ifr_data = (char *)&info };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool is;

	if (fd < 0)
		return false;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	is = ioctl(fd, SIOCETHTOOL, &ifr) == 0 &&
	     strcmp(info.driver, "macvlan") == 0;
	close(fd);
	return is;
}

/* sysfs shows the interfaces of the network namespace that mounted it. */
static int device_number(const char *name, unsigned index, dev_t *ret_dev)
{
	unsigned major, minor;
	char path[96];
	FILE *file;
	int nr;

	snprintf(path, sizeof(path), "/sys/class/net/%s/macvtap/tap%u/dev",
		 name, index);
	file = fopen(path, "re");
	if (!file)
		return -ENOENT;
	nr = fscanf(file, "%u:%u", &major, &minor);
	fclose(file);
	if (nr != 2)
		return -ENOENT;
	*ret_dev = makedev(major, minor);
	return 0;
}

/* Not in /tmp, which may be mounted nodev. */
static int open_own_node(dev_t dev)
{
	char dir[] = "/dev/viodev-XXXXXX", path[sizeof(dir) + 4];
	int fd = -1;

	if (!mkdtemp(dir))
		return -errno;
	snprintf(path, sizeof(path), "%s/tap", dir);
	if (mknod(path, S_IFCHR | 0600, dev) == 0)
		fd = open(path, FLAGS);
	if (fd < 0)
		fd = -errno;
	unlink(path);
	rmdir(dir);
	return fd;
}

static int open_node(const char *name, unsigned index)
{
	char path[32];
	dev_t dev;
	int fd;

	snprintf(path, sizeof(path), "/dev/tap%u", index);
	fd = open(path, FLAGS);
	if (fd >= 0 || errno != ENOENT)
		return fd < 0 ? -errno : fd;
	fd = device_number(name, index, &dev);
	return fd < 0 ? fd : open_own_node(dev);
}

/* The node may belong to a former link, or to another namespace's. */
static int check_name(int fd, const char *name)
{
	struct ifreq ifr = { 0 };

	if (ioctl(fd, TUNGETIFF, &ifr) < 0)
		return -errno;
	return strncmp(ifr.ifr_name, name, IFNAMSIZ) == 0 ? 0 : -ENODEV;
}

int macvtap_open(const char *name)
{
	unsigned index = if_nametoindex(name);
	int fd = index ? open_node(name, index) : -errno;
	int ret = fd < 0 ? fd : check_name(fd, name);

	if (fd >= 0 && ret < 0)
		close(fd);
	return ret < 0 ? ret : fd;
}

void macvtap_set_mac(int fd, const uint8_t mac[6])
{
	struct ifreq ifr = { .ifr_hwaddr.sa_family = ARPHRD_ETHER };

	memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
	ioctl(fd, SIOCSIFHWADDR, &ifr);
}

bool macvtap_mac(int fd, uint8_t mac[6])
{
	struct ifreq ifr = { 0 };
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) ||
	    major(st.st_rdev) == TUN_MAJOR ||
	    ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
		return false;
	memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
	return true;
}
