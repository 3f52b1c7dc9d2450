/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/hostfwd.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One end, [ADDR]:PORT; @text is cut up. */
static bool parse_end(char *text, const char *default_addr,
		      struct in_addr *ret_addr, int *ret_port)
{
	char *port = text ? strchr(text, ':') : NULL, *end;
	unsigned long n;

	if (!port)
		return false;
	*port++ = '\0';
	n = strtoul(port, &end, 10);
	if (!isdigit((unsigned char)*port) || *end || n == 0 || n > 65535)
		return false;
	*ret_port = (int)n;
	return inet_pton(AF_INET, *text ? text : default_addr, ret_addr) == 1;
}

int hostfwd_parse(char *rule, struct hostfwd *ret_fwd)
{
	char *proto = strsep(&rule, ":"), *host = strsep(&rule, "-");
	struct hostfwd f = { .udp = strcmp(proto, "udp") == 0 };

	if (!f.udp && strcmp(proto, "tcp") != 0)
		return -EINVAL;
	if (!parse_end(host, "0.0.0.0", &f.host_addr, &f.host_port) ||
	    !parse_end(rule, "10.0.2.15", &f.guest_addr, &f.guest_port))
		return -EINVAL;
	*ret_fwd = f;
	return 0;
}
