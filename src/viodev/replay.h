/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests for `viodev ctl` that come from a file or a pipe, a line each:
 *
 *	["inject", "key", "KEY_A", "1"]		a request, as ctl_server.h has it
 *	E: 1.024000 0001 001e 1			an event, as evemu records them
 *
 * Events are put together to an inject request for each update, which is due
 * as long after the first as it was when it was recorded. Whatever else evemu
 * writes is passed over.
 */
#ifndef VIODEV_REPLAY_H
#define VIODEV_REPLAY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

struct json_object;

struct replay {
	FILE *in;
	unsigned line; /* of the request, from 1 */
	/* Private. */
	struct json_object *update; /* what has come of it; or NULL */
	bool begun;
	uint64_t first_us, start_ns;
};

/*
 * The next request, once it is due: 1; 0 at the end; -errno with the reason.
 * The caller puts *ret_request.
 */
int replay_next(struct replay *r, struct json_object **ret_request,
		struct err *err);
void replay_fini(struct replay *r);

#endif
