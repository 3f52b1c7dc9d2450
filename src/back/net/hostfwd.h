/* SPDX-License-Identifier: BSD-2-Clause */
/* A port of the host that leads to one of the guest, as in hostfwd=. */
#ifndef BACK_NET_HOSTFWD_H
#define BACK_NET_HOSTFWD_H

#include <netinet/in.h>
#include <stdbool.h>

struct hostfwd {
	bool udp; /* else TCP */
	struct in_addr host_addr, guest_addr;
	int host_port, guest_port;
};

/*
 * Parse tcp:127.0.0.1:2222-:22, of which either address may be left out.
 * @rule is cut up. 0 or -EINVAL.
 */
int hostfwd_parse(char *rule, struct hostfwd *ret_fwd);

#endif
