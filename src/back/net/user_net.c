/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/user_net.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_NET  "10.0.2.0/24+fec0::/64"
#define BOOTFILE_MAX 127 /* DHCP's field, with a final zero */
#define NAME_MAX_LEN 253
#define LABEL_MAX    63

/* The last bytes of addresses, the same as QEMU's. */
enum { GATEWAY = 2, NAME_SERVER = 3, FIRST_GUEST = 15 };

typedef bool part_fn(struct user_net *net, char *part);

/* Call @fn, which may fail, with each part of a value. */
static int each_part(struct user_net *net, const char *value, part_fn *fn)
{
	char *copy = strdup(value), *rest = copy, *part;
	int ret = copy ? 0 : -ENOMEM;

	while (ret == 0 && (part = strsep(&rest, "+")))
		ret = fn(net, part) ? 0 : -EINVAL;
	free(copy);
	return ret;
}

static struct in_addr host_of(const struct user_net *net, uint32_t nr)
{
	return (struct in_addr){ net->net.s_addr | htonl(nr) };
}

static struct in6_addr host6_of(const struct user_net *net, uint8_t nr)
{
	struct in6_addr addr = net->net6;

	addr.s6_addr[15] = nr;
	return addr;
}

/* libslirp leases 16 addresses, .15 to .30: a smaller network lacks some. */
static bool set_net4(struct user_net *net, const char *addr, unsigned len)
{
	uint32_t first;

	if (len < 8 || len > 27 || inet_pton(AF_INET, addr, &net->net) != 1)
		return false;
	net->mask.s_addr = htonl(~UINT32_C(0) << (32 - len));
	net->net.s_addr &= net->mask.s_addr;
	first = ntohl(net->net.s_addr) >> 24;
	return first > 0 && first != 127 && first < 224;
}

/* The guest derives its address from the prefix (SLAAC): it must be 64. */
static bool set_net6(struct user_net *net, const char *addr, unsigned len)
{
	if (len != 64 || inet_pton(AF_INET6, addr, &net->net6) != 1 ||
	    IN6_IS_ADDR_MULTICAST(&net->net6) ||
	    IN6_IS_ADDR_LINKLOCAL(&net->net6))
		return false;
	memset(net->net6.s6_addr + 8, 0, 8);
	return !IN6_IS_ADDR_UNSPECIFIED(&net->net6);
}

/* ADDR/LEN of either family. */
static bool set_net(struct user_net *net, char *part)
{
	char *len = strchr(part, '/'), *end;
	unsigned long nr;

	if (!len || !isdigit((unsigned char)len[1]))
		return false;
	*len++ = '\0';
	nr = strtoul(len, &end, 10);
	if (*end || nr > 128)
		return false;
	return strchr(part, ':') ? set_net6(net, part, (unsigned)nr) :
				   set_net4(net, part, (unsigned)nr);
}

static void set_addresses(struct user_net *net)
{
	net->gateway = host_of(net, GATEWAY);
	net->dns = host_of(net, NAME_SERVER);
	net->dhcp = host_of(net, FIRST_GUEST);
	net->gateway6 = host6_of(net, GATEWAY);
	net->dns6 = host6_of(net, NAME_SERVER);
}

static bool set_dns(struct user_net *net, char *part)
{
	return inet_pton(AF_INET, part, &net->dns) == 1 ||
	       inet_pton(AF_INET6, part, &net->dns6) == 1;
}

static bool is_label(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)text[i]) && text[i] != '-' &&
		    text[i] != '_')
			return false;
	}
	return len > 0 && len <= LABEL_MAX;
}

static bool is_domain(const char *name)
{
	if (strlen(name) > NAME_MAX_LEN)
		return false;
	for (;; name++) {
		size_t len = strcspn(name, ".");

		if (!is_label(name, len))
			return false;
		name += len;
		if (!*name)
			return true;
	}
}

static int set_search(struct user_net *net, const char *value)
{
	char *rest = net->names = strdup(value), *name;
	unsigned nr = 0;

	if (!rest)
		return -ENOMEM;
	while ((name = strsep(&rest, "+"))) {
		if (nr == USER_NET_SEARCH || !is_domain(name))
			return -EINVAL;
		net->search[nr++] = name;
	}
	return 0;
}

static int refuse(const struct opts *opts, const char *key, int ret,
		  const char *why, struct err *err)
{
	const char *value = opt_string(opts, key);

	return err_set(err, ret, "net: %s=%s: %s", key, value ? value : "",
		       ret == -ENOMEM ? strerror(ENOMEM) : why);
}

static int set_all(struct user_net *net, const struct opts *opts,
		   struct err *err)
{
	const char *value = opt_string(opts, "net");
	int ret = each_part(net, DEFAULT_NET, set_net);

	if (ret == 0 && value)
		ret = each_part(net, value, set_net);
	if (ret < 0)
		return refuse(opts, "net", ret,
			      "must be ADDR/LEN with a LEN of 8 to 27, or 64 "
			      "for IPv6; both joined by +",
			      err);
	set_addresses(net);
	value = opt_string(opts, "dns");
	ret = value ? each_part(net, value, set_dns) : 0;
	if (ret < 0)
		return refuse(opts, "dns", ret,
			      "must be an IPv4 or IPv6 address; both joined "
			      "by +",
			      err);
	value = opt_string(opts, "search");
	ret = value ? set_search(net, value) : 0;
	if (ret < 0)
		return refuse(opts, "search", ret,
			      "must be up to 16 domains, joined by +", err);
	if (net->bootfile && strlen(net->bootfile) > BOOTFILE_MAX)
		return refuse(opts, "bootfile", -EINVAL,
			      "longer than the 127 bytes of DHCP", err);
	return 0;
}

int user_net_init(struct user_net *net, const struct opts *opts,
		  struct err *err)
{
	int ret;

	*net = (struct user_net){
		.ipv4 = opt_bool(opts, "ipv4"),
		.ipv6 = opt_bool(opts, "ipv6"),
		.restricted = opt_bool(opts, "restrict"),
		.bootfile = opt_string(opts, "bootfile"),
	};
	if (!net->ipv4 && !net->ipv6)
		return err_set(err, -EINVAL,
			       "net: ipv4=off,ipv6=off: leave one of them on");
	ret = set_all(net, opts, err);
	if (ret < 0)
		user_net_fini(net);
	return ret;
}

void user_net_fini(struct user_net *net)
{
	free(net->names);
	net->names = NULL;
}
