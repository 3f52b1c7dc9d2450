/* SPDX-License-Identifier: BSD-2-Clause */
/* A port of the host that leads to one of the guest, as in hostfwd=. */
#ifndef BACK_NET_HOSTFWD_H
#define BACK_NET_HOSTFWD_H

#include <netinet/in.h>
#include <stdbool.h>

union inet_addr {
	struct sockaddr sa; /* its family says which */
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

struct hostfwd {
	bool udp; /* else TCP */
	union inet_addr host, guest;
};

/*
 * Parse tcp:127.0.0.1:2222-:22 or tcp:[::1]:2222-[fec0::15]:22, of which either
 * address may be left out: any of the host's, the guest's own. Both are of one
 * family. @rule is cut up. 0 or -EINVAL.
 */
int hostfwd_parse(char *rule, struct hostfwd *ret_fwd);

/* Parse its host end alone, tcp:127.0.0.1:2222; or all of it. */
int hostfwd_parse_host(char *rule, struct hostfwd *ret_fwd);

/* Whether both listen on the same port of the same address. */
bool hostfwd_same_host(const struct hostfwd *a, const struct hostfwd *b);

#endif
