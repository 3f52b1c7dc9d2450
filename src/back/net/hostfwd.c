/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/hostfwd.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool parse_port(const char *text, in_port_t *ret_port)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (!isdigit((unsigned char)*text) || *end || n == 0 || n > 65535)
		return false;
	*ret_port = htons((uint16_t)n);
	return true;
}

/* [ADDR]:PORT of IPv6, with literal brackets. */
static bool parse_end6(char *text, union inet_addr *ret_end)
{
	char *close = strchr(text, ']');

	if (!close || close[1] != ':')
		return false;
	*close = '\0';
	ret_end->in6.sin6_family = AF_INET6;
	return inet_pton(AF_INET6, text + 1, &ret_end->in6.sin6_addr) == 1 &&
	       parse_port(close + 2, &ret_end->in6.sin6_port);
}

/* ADDR:PORT of IPv4; without ADDR the family is not known yet. */
static bool parse_end4(char *text, union inet_addr *ret_end)
{
	char *port = strchr(text, ':');

	if (!port)
		return false;
	*port++ = '\0';
	ret_end->sa.sa_family = *text ? AF_INET : AF_UNSPEC;
	if (*text && inet_pton(AF_INET, text, &ret_end->in.sin_addr) != 1)
		return false;
	return parse_port(port, &ret_end->in.sin_port);
}

static bool parse_end(char *text, union inet_addr *ret_end)
{
	*ret_end = (union inet_addr){ 0 };
	if (!text)
		return false;
	return *text == '[' ? parse_end6(text, ret_end) :
			      parse_end4(text, ret_end);
}

/* Both kinds of address have port and family at the same place. */
static void set_family(union inet_addr *end, sa_family_t family)
{
	if (end->sa.sa_family == AF_UNSPEC)
		end->sa.sa_family = family;
}

static bool parse_proto(char **rule, struct hostfwd *f)
{
	const char *proto = strsep(rule, ":");

	f->udp = strcmp(proto, "udp") == 0;
	return f->udp || strcmp(proto, "tcp") == 0;
}

int hostfwd_parse(char *rule, struct hostfwd *ret_fwd)
{
	struct hostfwd f;
	char *host;

	if (!parse_proto(&rule, &f))
		return -EINVAL;
	host = strsep(&rule, "-");
	if (!parse_end(host, &f.host) || !parse_end(rule, &f.guest))
		return -EINVAL;
	set_family(&f.host, f.guest.sa.sa_family);
	set_family(&f.host, AF_INET);
	set_family(&f.guest, f.host.sa.sa_family);
	if (f.host.sa.sa_family != f.guest.sa.sa_family)
		return -EINVAL;
	*ret_fwd = f;
	return 0;
}

int hostfwd_parse_host(char *rule, struct hostfwd *ret_fwd)
{
	struct hostfwd f = { 0 };

	if (strchr(rule, '-'))
		return hostfwd_parse(rule, ret_fwd);
	if (!parse_proto(&rule, &f) || !parse_end(rule, &f.host))
		return -EINVAL;
	set_family(&f.host, AF_INET);
	*ret_fwd = f;
	return 0;
}

bool hostfwd_same_host(const struct hostfwd *a, const struct hostfwd *b)
{
	return a->udp == b->udp && !memcmp(&a->host, &b->host, sizeof(a->host));
}
