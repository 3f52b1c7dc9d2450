/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The name servers of this host, for device processes that may ask them and
 * see none of the host's files: a directory that becomes their root, with
 * /etc/resolv.conf in it and nothing else. It follows the host's file, which
 * may be replaced, or come later.
 */
#ifndef VIODEV_RESOLVER_H
#define VIODEV_RESOLVER_H

struct vio_loop;
struct resolver;

/* 0 or -errno. */
int resolver_create(struct vio_loop *loop, struct resolver **ret_resolver);
void resolver_destroy(struct resolver *resolver); /* NULL is fine */

const char *resolver_root(const struct resolver *resolver);

/* Look at the host's file; else that is done every two seconds. */
void resolver_update(struct resolver *resolver);

#endif
