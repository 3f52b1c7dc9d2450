/* SPDX-License-Identifier: BSD-2-Clause */
/* The backend "user" of a build without libslirp: says so. See slirp.c. */
#include <errno.h>

#include "back/net/net_be.h"

static int missing(struct err *err)
{
	return err_set(err, -ENOTSUP,
		       "net: backend=user: this viodev was built without "
		       "libslirp");
}

static int user_open(const struct opts *opts, struct opened_files *files,
		     struct err *err)
{
	return missing(err);
}

static int user_create(const struct opts *opts, struct opened_files *files,
		       struct vio_loop *loop, struct net_be **ret_be,
		       struct err *err)
{
	return missing(err);
}

static const char *const user_keys[] = { NET_BE_USER_KEYS, NULL };

const struct net_be_kind net_kind_user = {
	.name = "user",
	.keys = user_keys,
	.open = user_open,
	.create = user_create,
};
