/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Byte channels: where the bytes of a console or port go to and come from.
 *
 *	stdio			this program's standard input and output
 *	pty[:LINK]		a pseudo terminal; LINK is a symlink to it
 *	unix:PATH		a socket that listens: one peer at a time
 *	unix-connect:PATH	a socket that is connected at the start
 *	file:PATH		output, appended to a file
 *	fd:N			a descriptor that was inherited
 *
 * A channel is up while somebody is at its other end: always for stdio, file
 * and fd, between open and close for a pty, while connected for a socket. What
 * is written to one that is down goes nowhere, as on a cable without a plug.
 *
 * Bytes are moved right between the caller's buffers and the kernel. What is
 * not asked for stays in the kernel, so that the other end notices; nor is
 * there any wake-up for it.
 *
 * A file may keep its reader or writer waiting, without end if its server is
 * gone. So threads read and write files, a buffer full at a time, and what is
 * written to one is there a moment later.
 *
 * Making one has two steps: open needs rights, create does not and may run in a
 * sandbox. Threads: the loop's.
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

/* What the owner is told; none from inside of its own calls but chan_read(). */
struct chan_client {
	void (*readable)(void *arg);
	void (*writable)(void *arg);
	void (*up)(void *arg, bool up); /* the other end came or went */
};

/*
 * Open what @text names. The descriptors go to @files, under names that begin
 * with @id, which is short. chan_close() takes back what open has made in the
 * file system or did to the terminal; both in the same process, before @files
 * are closed.
 */
int chan_open(const char *text, const char *id, struct opened_files *files,
	      struct err *err);
void chan_close(const char *text, const char *id,
		const struct opened_files *files);

/* How many descriptors that may be. */
#define CHAN_MAX_FILES 2

/*
 * Threads for up to @nr_chans channels, made once, which a sandbox forbids.
 * At the end writes that are under way get half a second.
 */
int chan_io_create(struct vio_loop *loop, unsigned nr_chans,
		   struct chan_io **ret_io);
void chan_io_destroy(struct chan_io *io); /* after them; NULL is fine */

int chan_create(const char *text, const char *id, struct opened_files *files,
		struct vio_loop *loop, struct chan_io *io,
		const struct chan_client *client, void *arg,
		struct chan **ret_chan, struct err *err);
void chan_destroy(struct chan *c); /* NULL is fine */

bool chan_up(const struct chan *c);

/*
 * Read some bytes: how many; -EAGAIN when there are none now (or any more);
 * then client->readable follows, while it is wanted.
 */
ssize_t chan_read(struct chan *c, const struct iovec *iov, int niov);

/*
 * Write some bytes: how many; -EAGAIN when the other end must read first, and
 * client->writable follows; -EPIPE when there is no other end: the bytes are
 * lost. Other errors are told as that, after a note in nr_errors.
 */
ssize_t chan_write(struct chan *c, const struct iovec *iov, int niov);

/* Call client->readable while there is something to read, or stop to. */
void chan_want(struct chan *c, bool on);

/* For people: what it is, and where it is found ("/dev/pts/3"), or NULL. */
const char *chan_text(const struct chan *c);
const char *chan_path(const struct chan *c);

/* Size of the terminal at the other end. False: unknown. */
bool chan_size(const struct chan *c, uint16_t *ret_cols, uint16_t *ret_rows);

/* Failures of the host's, other than that the other end is gone. */
uint64_t chan_nr_errors(const struct chan *c);

/* The system calls of all channels; -1 ends. */
extern const int chan_syscalls[];

#endif
