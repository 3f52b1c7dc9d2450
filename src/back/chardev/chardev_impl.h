/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Internals of chardevs: chardev.c moves bytes, the other files know how an
 * end is opened and how its peer connects and disconnects.
 *
 *	down  --(connect)-->  up  --(read to the end, disconnected)-->  down
 *
 * A disconnected peer leaves bytes behind, and they are read first. Until they
 * are wanted nothing is watched: a descriptor whose peer has disconnected is
 * always ready. The next peer does not wait for that: the old one's input is
 * then kept beside it, read before its own, and discarded only if another one
 * is kept there already.
 */
#ifndef BACK_CHARDEV_CHARDEV_IMPL_H
#define BACK_CHARDEV_CHARDEV_IMPL_H

#include "back/chardev/chardev.h"

/* A descriptor and what it is watched for. Of a pair, each has its own. */
struct chardev_end {
	int fd;      /* -1: none */
	bool socket; /* else a file, a pipe or a terminal */
	bool ended;  /* end of input */
	bool always; /* cannot be waited for, and need not */
	struct chardev_worker
		*worker; /* reads or writes it, and owns fd; or NULL */
	uint32_t events; /* watched for; 0: not watched */
	struct vio_source *source;
};

struct chardev_kind {
	const char *name;
	const char *arg; /* what follows the ':', for people; NULL: nothing */
	bool arg_optional;

	/* As chardev_open() and chardev_close(), with what follows ':' or NULL */
	int (*open)(const char *arg, const char *id, struct opened_files *files,
		    struct err *err);
	void (*close)(const char *arg, const char *id,
		      const struct opened_files *files);

	/* Take descriptors from @files. 0 or -errno. */
	int (*create)(struct chardev *c, const char *id,
		      struct opened_files *files);

	/* The peer has hung up: accept another one. NULL: not needed. */
	void (*hung_up)(struct chardev *c);

	/* The peer is gone, with its bytes. NULL: nothing to do. */
	void (*next)(struct chardev *c);
};

extern const struct chardev_kind chardev_kind_stdio, chardev_kind_pty,
	chardev_kind_unix, chardev_kind_unix_connect, chardev_kind_file,
	chardev_kind_fd;

/* The kind of KIND[:ARG], and its ARG or NULL; NULL if unknown. */
const struct chardev_kind *chardev_parse(const char *text,
					 const char **ret_arg);

struct chardev {
	const struct chardev_kind *kind;
	const struct chardev_client *client;
	void *arg;
	struct vio_loop *loop;
	struct chardev_io *io;
	char *text;
	char path[108];
	bool up;
	bool wanted;  /* chardev_want() */
	bool duplex;  /* both ends are one thing, which can be hung up */
	bool hung_up; /* it is: bytes to read may be left */
	bool blocked; /* a write waits */
	struct chardev_end in, out;
	struct chardev_end left; /* input of a peer that was replaced */
	struct vio_task ready;   /* for an input that cannot be waited for */
	uint16_t cols, rows;     /* of the terminal, as far as reported */
	/*
	 * Of one that waits for its peer: listening socket, or inotify. Of a
	 * terminal, signalfd.
	 */
	int wait_fd;
	struct vio_source *wait_source;
	struct vio_source *wait_timer; /* after accept() failed */
	struct reopener *reopener;     /* connects again; or NULL */
	uint64_t nr_errors;
	int write_error; /* of the last write to a file; 0: it succeeded */
};

/*
 * The peer is there, on @take_in and @take_out; either may be -1. A duplex
 * one has one descriptor: it is duplicated.
 */
int chardev_set_ends(struct chardev *c, int take_in, int take_out);
int chardev_set_duplex(struct chardev *c, int take_fd);

/*
 * worker.c: an end that may block, and is read or written by a thread. As
 * read() and write(), but -EAGAIN until chardev_worker_done() is called. A
 * write that has begun continues when its chardev is destroyed.
 */
struct chardev_worker;
bool chardev_may_block(int fd, bool write);
struct chardev_worker *chardev_worker_create(struct chardev *c, int take_fd,
					     bool write);
void chardev_worker_destroy(struct chardev_worker *s); /* may be NULL */
bool chardev_worker_busy(const struct chardev_worker *s);
ssize_t chardev_worker_read(struct chardev_worker *s, const struct iovec *iov,
			    int niov);
ssize_t chardev_worker_write(struct chardev_worker *s, const struct iovec *iov,
			     int niov);
void chardev_worker_done(struct chardev *c, bool write, int error);

/* Tell the client. */
void chardev_connected(struct chardev *c);

/* Another peer connects instead of one that has hung up. */
void chardev_replace(struct chardev *c);

/* Report the size of the terminal if it has changed. */
void chardev_check_size(struct chardev *c);

/* Watch the descriptors for what is wanted now. */
void chardev_watch(struct chardev *c);

/* Add a descriptor to @files as "ID.NAME"; it is closed when that fails. */
int chardev_add_file(struct opened_files *files, const char *id,
		     const char *name, int take_fd);
int chardev_find_file(const struct opened_files *files, const char *id,
		      const char *name);
int chardev_take_file(struct opened_files *files, const char *id,
		      const char *name);

/* See opened_files_made(). */
void chardev_made(struct opened_files *files, const char *id, const char *name,
		  const char *path);
void chardev_remove(const struct opened_files *files, const char *id,
		    const char *name, const char *path);

#endif
