/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A request from its bytes to its reply's.
 *
 *	p9_req_init()     the loop's thread: header and body are copied in
 *	p9_req_try()      the loop's thread: done if it need not wait
 *	p9_req_run()      a thread that may wait, where try said false
 *	p9_req_reply()    the loop's thread
 *
 * Tversion is run when no other request is; Tflush is the device's own affair
 * and only given its reply here.
 */
#ifndef P9_P9_REQ_H
#define P9_P9_REQ_H

#include "dev/p9/fs.h"

/* The request's buffers are in r->iov. */
void p9_req_init(struct p9_req *r, struct p9_fs *fs, int readable,
		 int writable);
bool p9_req_try(struct p9_req *r);
void p9_req_run(struct p9_req *r);

/*
 * Write the reply. Returns how many bytes it has: none when there is no room
 * even for an error; -EPROTO when moreover the request was none.
 */
int p9_req_reply(struct p9_req *r);

/* Whether it changes something, or waits for what has been changed. */
bool p9_req_changes(const struct p9_req *r);

/* Tflush's parameter; of any other request P9_NOTAG. */
uint16_t p9_req_oldtag(const struct p9_req *r);

#endif
