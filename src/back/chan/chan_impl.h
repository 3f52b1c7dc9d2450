/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Internals of byte channels: chan.c moves bytes, the other files know how an
 * end is opened and how its peer connects and disconnects.
 *
 *	down  --(connect)-->  up  --(read to the end, disconnected)-->  down
 *
 * A disconnected peer leaves bytes behind, and they are read first. Until they
 * are wanted nothing is watched: a descriptor whose peer has disconnected is
 * always ready.
 */
#ifndef BACK_CHAN_CHAN_IMPL_H
#define BACK_CHAN_CHAN_IMPL_H

#include "back/chan/chan.h"

/* A descriptor and what it is watched for. Of a pair, each has its own. */
struct chan_end {
	int fd;                 /* -1: none */
	bool socket;            /* else a file, a pipe or a terminal */
	bool ended;             /* end of input */
	bool always;            /* cannot be waited for, and need not */
	struct chan_slow *slow; /* reads or writes it, and owns fd; or NULL */
	uint32_t events;        /* watched for; 0: not watched */
	struct vio_source *source;
};

struct chan_kind {
	const char *name;
	const char *arg; /* what follows the ':', for people; NULL: nothing */
	bool arg_optional;

	/* As chan_open() and chan_close(), with what follows the ':' or NULL */
	int (*open)(const char *arg, const char *id, struct opened_files *files,
		    struct err *err);
	void (*close)(const char *arg, const char *id,
		      const struct opened_files *files);

	/* Take descriptors from @files. 0 or -errno. */
	int (*create)(struct chan *c, const char *id,
		      struct opened_files *files);

	/* The peer disconnected: prepare for the next. NULL: no next one. */
	void (*next)(struct chan *c);
};

extern const struct chan_kind chan_kind_stdio, chan_kind_pty, chan_kind_unix,
	chan_kind_unix_connect, chan_kind_file, chan_kind_fd;

/* The kind of KIND[:ARG], and its ARG or NULL; NULL if unknown. */
const struct chan_kind *chan_parse(const char *text, const char **ret_arg);

struct chan {
	const struct chan_kind *kind;
	const struct chan_client *client;
	void *arg;
	struct vio_loop *loop;
	struct chan_io *io;
	char *text;
	char path[108];
	bool up;
	bool wanted;  /* chan_want() */
	bool duplex;  /* both ends are one thing, which can be hung up */
	bool hung_up; /* it is: bytes to read may be left */
	bool blocked; /* a write waits */
	struct chan_end in, out;
	struct vio_task ready; /* for an input that cannot be waited for */
	/* Of one that waits for its peer: listening socket, or inotify. */
	int wait_fd;
	struct vio_source *wait_source;
	struct vio_source *wait_timer; /* after accept() failed */
	uint64_t nr_errors;
};

/*
 * The peer is there, on @take_in and @take_out; either may be -1. A duplex
 * one has one descriptor: it is duplicated.
 */
int chan_set_ends(struct chan *c, int take_in, int take_out);
int chan_set_duplex(struct chan *c, int take_fd);

/*
 * chan_slow.c: an end that may block, and is read or written by a thread. As
 * read() and write(), but -EAGAIN until chan_slow_done() is called. A write
 * that has begun continues when its channel is destroyed.
 */
struct chan_slow;
bool chan_may_block(int fd, bool write);
struct chan_slow *chan_slow_create(struct chan *c, int take_fd, bool write);
void chan_slow_destroy(struct chan_slow *s); /* may be NULL */
bool chan_slow_busy(const struct chan_slow *s);
ssize_t chan_slow_read(struct chan_slow *s, const struct iovec *iov, int niov);
ssize_t chan_slow_write(struct chan_slow *s, const struct iovec *iov, int niov);
void chan_slow_done(struct chan *c, bool write, int error);

/* Tell the client. */
void chan_come(struct chan *c);

/* Watch the descriptors for what is wanted now. */
void chan_watch(struct chan *c);

/* Add a descriptor to @files as "ID.NAME"; it is closed when that fails. */
int chan_add_file(struct opened_files *files, const char *id, const char *name,
		  int take_fd);
int chan_take_file(struct opened_files *files, const char *id,
		   const char *name);

/* See opened_files_made(). */
void chan_made(struct opened_files *files, const char *id, const char *name,
	       const char *path);
void chan_remove(const struct opened_files *files, const char *id,
		 const char *name, const char *path);

#endif
