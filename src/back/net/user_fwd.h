/* SPDX-License-Identifier: BSD-2-Clause */
/* The ports that backend=user forwards: hostfwd=, and `ctl SOCKET hostfwd`. */
#ifndef BACK_NET_USER_FWD_H
#define BACK_NET_USER_FWD_H

#include <slirp/libslirp.h>

#include "base/err.h"

#define USER_FWD_MAX 256u

struct json_object;
struct user_net;

struct user_fwd {
	Slirp *slirp;
	const struct user_net *net;
	unsigned nr;
	char *rules[USER_FWD_MAX]; /* as the user wrote them */
};

/* Rules joined by +. 0 or -errno with the reason. */
int user_fwd_add_all(struct user_fwd *f, const char *list, struct err *err);
void user_fwd_fini(struct user_fwd *f);

/* hostfwd add|remove RULE, hostfwd list; the answer has all rules in force. */
int user_fwd_ctl(struct user_fwd *f, int argc, char *const argv[],
		 struct json_object *reply, struct err *err);

#endif
