/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Character devices: the source and sink of the bytes of a console or port.
 *
 *	stdio			this program's standard input and output
 *	pty[:LINK]		a pseudo terminal; LINK is a symlink to it
 *	unix:PATH		a listening socket: one peer at a time
 *	unix-connect:PATH	a socket, connected at the start and again
 *	file:PATH		output, appended to a file
 *	fd:N			an inherited descriptor
 *
 * A chardev is up while it has a peer: always for stdio, file and fd, between
 * open and close for a pty, while connected for a socket. Bytes written to a
 * chardev that is down are lost, as on a cable without a plug.
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
#ifndef BACK_CHARDEV_CHARDEV_H
#define BACK_CHARDEV_CHARDEV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <viodev/loop.h>

#include "base/err.h"
#include "base/files.h"

struct chardev;
struct chardev_io;

/*
 * Callbacks to the owner. Only chardev_read() may call them from inside, and
 * chardev_write() the last one.
 */
struct chardev_client {
	void (*readable)(void *arg);
	void (*writable)(void *arg);
	void (*up)(void *arg, bool up); /* a peer connected or disconnected */
	void (*resized)(void *arg); /* chardev_size() changed; may be NULL */
	/* A write failed, -errno; once until one succeeds. May be NULL. */
	void (*failed)(void *arg, int error);
};

/*
 * Open what @text names. The descriptors go to @files, under names that begin
 * with @id, which is short. chardev_close() undoes what open did to the file
 * system or the terminal; both in the same process, before @files are closed.
 */
int chardev_open(const char *text, const char *id, struct opened_files *files,
		 struct err *err);
void chardev_close(const char *text, const char *id,
		   const struct opened_files *files);

/*
 * The path of what was opened as @id, where only opening tells it: that of a
 * pseudo terminal. 0 or -ENOENT.
 */
#define CHARDEV_MAX_PATH 32
int chardev_opened_path(const char *id, const struct opened_files *files,
			char path[CHARDEV_MAX_PATH]);

/* The maximum number of those descriptors. */
#define CHARDEV_MAX_FILES 2

/*
 * Threads for up to @nr_chardevs chardevs. Call it once: a sandbox forbids it.
 * At the end, writes in progress get half a second.
 */
int chardev_io_create(struct vio_loop *loop, unsigned nr_chardevs,
		      struct chardev_io **ret_io);
void chardev_io_destroy(struct chardev_io *io); /* after them; may be NULL */

int chardev_create(const char *text, const char *id, struct opened_files *files,
		   struct vio_loop *loop, struct chardev_io *io,
		   const struct chardev_client *client, void *arg,
		   struct chardev **ret_chardev, struct err *err);
void chardev_destroy(struct chardev *c); /* may be NULL */

bool chardev_up(const struct chardev *c);

/* Up, and not only because of bytes that a disconnected peer has left. */
bool chardev_has_peer(const struct chardev *c);

/*
 * Read some bytes. Returns their number; -EAGAIN when none are available, now
 * or ever again; client->readable then follows, while it is wanted.
 */
ssize_t chardev_read(struct chardev *c, const struct iovec *iov, int niov);

/*
 * Write some bytes. Returns their number; -EAGAIN when the peer must read
 * first, and client->writable follows; -EPIPE without a peer: the bytes are
 * lost. Other errors are counted in nr_errors and reported as -EPIPE.
 */
ssize_t chardev_write(struct chardev *c, const struct iovec *iov, int niov);

/*
 * Whether -EAGAIN of a write means that a file is slow: unlike a peer it never
 * stops reading for good.
 */
bool chardev_writes_file(const struct chardev *c);

/* Start or stop calling client->readable while bytes are available. */
void chardev_want(struct chardev *c, bool on);

/* For people: its kind, and its location ("/dev/pts/3") or NULL. */
const char *chardev_text(const struct chardev *c);
const char *chardev_path(const struct chardev *c);

/*
 * Size of the peer's terminal. False: unknown. It is followed where SIGWINCH
 * arrives (stdio), or else when the peer opens, closes or writes.
 */
bool chardev_size(const struct chardev *c, uint16_t *ret_cols,
		  uint16_t *ret_rows);

/* Host failures, other than a disconnected peer. */
uint64_t chardev_nr_errors(const struct chardev *c);

/*
 * The keys of stdio's terminal. With signals, Ctrl-C and others act on this
 * program as usual. Without, the guest gets all keys except those after the
 * escape key, Ctrl-A, for which @cb is called. Call both functions before
 * chardev_open(). If nobody serves the escape key, the keys send signals.
 */
enum chardev_escape {
	CHARDEV_ESCAPE_NONE,
	CHARDEV_ESCAPE_END,  /* x */
	CHARDEV_ESCAPE_STOP, /* z: as Ctrl-Z elsewhere */
	CHARDEV_ESCAPE_HELP, /* h */
};
#define CHARDEV_ESCAPE_HELP_TEXT                                               \
	"Ctrl-A x terminates, Ctrl-A z stops ('fg' continues), Ctrl-A Ctrl-A " \
	"sends Ctrl-A"

typedef void chardev_escape_cb(void *arg, enum chardev_escape escape);
void chardev_stdio_serve_escape(struct vio_loop *loop, chardev_escape_cb *cb,
				void *arg);
void chardev_stdio_set_signals(bool on);
bool chardev_stdio_has_escape(void); /* it is open, and all keys are taken */

/*
 * For whoever serves the escape key: make the terminal raw, once the loop is
 * about to run. Before that, the keys that end a program still do, even while
 * opening something else takes long.
 */
void chardev_stdio_start(void);

/*
 * Job control, in the process that opened stdio: give the terminal back before
 * a stop, and make it raw again once in the foreground.
 */
void chardev_stdio_restore(void);
void chardev_stdio_resume(void);

/* The system calls of all chardevs; -1 ends. And the ioctls; 0 ends. */
extern const int chardev_syscalls[];
extern const unsigned long chardev_ioctls[];

#endif
