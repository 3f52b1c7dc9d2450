/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Byte channels: the source and sink of the bytes of a console or port.
 *
 *	stdio			this program's standard input and output
 *	pty[:LINK]		a pseudo terminal; LINK is a symlink to it
 *	unix:PATH		a listening socket: one peer at a time
 *	unix-connect:PATH	a socket, connected at the start
 *	file:PATH		output, appended to a file
 *	fd:N			an inherited descriptor
 *
 * A channel is up while it has a peer: always for stdio, file and fd, between
 * open and close for a pty, while connected for a socket. Bytes written to a
 * channel that is down are lost, as on a cable without a plug.
 *
 * Bytes move directly between the caller's buffers and the kernel. Unrequested
 * bytes stay in the kernel, so that the peer notices, and cause no wake-up.
 *
 * A file may block its reader or writer, indefinitely if its server is down.
 * So threads read and write files, one buffer at a time, and bytes written to
 * a file arrive a moment later.
 *
 * Creation has two steps: open needs privileges, create does not and may run in
 * a sandbox. Threads: the loop's.
 */
#ifndef BACK_CHAN_CHAN_H
#define BACK_CHAN_CHAN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <viodev/loop.h>

#include "base/err.h"
#include "base/files.h"

struct chan;
struct chan_io;

/* Callbacks to the owner; only chan_read() may call them from inside. */
struct chan_client {
	void (*readable)(void *arg);
	void (*writable)(void *arg);
	void (*up)(void *arg, bool up); /* a peer connected or disconnected */
};

/*
 * Open what @text names. The descriptors go to @files, under names that begin
 * with @id, which is short. chan_close() undoes what open did to the file
 * system or the terminal; both in the same process, before @files are closed.
 */
int chan_open(const char *text, const char *id, struct opened_files *files,
	      struct err *err);
void chan_close(const char *text, const char *id,
		const struct opened_files *files);

/* The maximum number of those descriptors. */
#define CHAN_MAX_FILES 2

/*
 * Threads for up to @nr_chans channels, created once, which a sandbox forbids.
 * At the end, writes in progress get half a second.
 */
int chan_io_create(struct vio_loop *loop, unsigned nr_chans,
		   struct chan_io **ret_io);
void chan_io_destroy(struct chan_io *io); /* after them; may be NULL */

int chan_create(const char *text, const char *id, struct opened_files *files,
		struct vio_loop *loop, struct chan_io *io,
		const struct chan_client *client, void *arg,
		struct chan **ret_chan, struct err *err);
void chan_destroy(struct chan *c); /* may be NULL */

bool chan_up(const struct chan *c);

/*
 * Read some bytes. Returns their number; -EAGAIN when none are available, now
 * or ever again; client->readable then follows, while it is wanted.
 */
ssize_t chan_read(struct chan *c, const struct iovec *iov, int niov);

/*
 * Write some bytes. Returns their number; -EAGAIN when the peer must read
 * first, and client->writable follows; -EPIPE without a peer: the bytes are
 * lost. Other errors are counted in nr_errors and reported as -EPIPE.
 */
ssize_t chan_write(struct chan *c, const struct iovec *iov, int niov);

/* Start or stop calling client->readable while bytes are available. */
void chan_want(struct chan *c, bool on);

/* For people: its kind, and its location ("/dev/pts/3") or NULL. */
const char *chan_text(const struct chan *c);
const char *chan_path(const struct chan *c);

/* Size of the peer's terminal. False: unknown. */
bool chan_size(const struct chan *c, uint16_t *ret_cols, uint16_t *ret_rows);

/* Host failures, other than a disconnected peer. */
uint64_t chan_nr_errors(const struct chan *c);

/* The system calls of all channels; -1 ends. */
extern const int chan_syscalls[];

#endif
