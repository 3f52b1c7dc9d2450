/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's network behind backend=user, as its options describe it. */
#ifndef BACK_NET_USER_NET_H
#define BACK_NET_USER_NET_H

#include <netinet/in.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/opts.h"

#define USER_NET_SEARCH 16 /* most domains of search= */

struct user_net {
	bool ipv4, ipv6;
	bool restricted; /* the guest reaches the gateway's services alone */
	struct in_addr net, mask, gateway, dns, dhcp;
	struct in6_addr net6, gateway6, dns6;    /* net6 is a /64 */
	const char *bootfile;                    /* of the options; or NULL */
	char *names;                             /* what search points into */
	const char *search[USER_NET_SEARCH + 1]; /* ends with NULL */
};

/* 0, then user_net_fini() is due; or -errno with the reason. */
int user_net_init(struct user_net *net, const struct opts *opts,
		  struct err *err);
void user_net_fini(struct user_net *net);

#endif
