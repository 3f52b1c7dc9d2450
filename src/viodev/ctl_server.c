/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/ctl_server.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "base/json.h"
#include "base/scm.h"
#include "dev/vdev.h"

#define MAX_CLIENTS 8 /* others wait in the backlog */
#define MAX_REQUEST 4096
#define MAX_WORDS   256 /* events of an input device */
#define MAX_DEPTH   3   /* of a request's JSON: {"command": ["word"]} */
#define RELISTEN_NS 100000000ull /* after accept() failed */
#define MAX_FDS     4            /* of a client, until a request takes them */

struct client {
	struct ctl_server *server; /* NULL: a free slot */
	int fd;
	struct vio_source *source;
	bool ended;  /* sends no more: close after the last reply */
	char *reply; /* unsent from reply_off on; or NULL */
	size_t reply_len, reply_off;
	size_t len;
	char *request; /* MAX_REQUEST bytes, len of them filled */
	int fds[MAX_FDS];
	unsigned nr_fds;
};

struct ctl_server {
	struct vio_loop *loop;
	int fd;
	struct vio_source *source, *timer;
	ctl_fn *fn;
	void *arg;
	struct client clients[MAX_CLIENTS];
};

static void client_close(struct client *c)
{
	struct ctl_server *server = c->server;

	if (!server)
		return;
	vio_source_remove(c->source);
	close(c->fd);
	while (c->nr_fds > 0)
		close(c->fds[--c->nr_fds]);
	free(c->reply);
	free(c->request);
	*c = (struct client){ 0 };
	vio_fd_set(server->source, EPOLLIN); /* a slot is free */
}

/*
 * --- Requests ---
 */

/* The words of a request, borrowed from @request. Their number, or -errno. */
static int get_words(struct json_object *request, char *words[MAX_WORDS + 1])
{
	struct json_object *list = request;
	size_t nr;

	if (json_object_is_type(request, json_type_object) &&
	    !json_object_object_get_ex(request, "command", &list))
		return -EINVAL;
	if (!json_object_is_type(list, json_type_array))
		return -EINVAL;
	nr = json_object_array_length(list);
	if (nr < 1 || nr > MAX_WORDS)
		return -EINVAL;
	for (size_t i = 0; i < nr; i++) {
		struct json_object *word = json_object_array_get_idx(list, i);

		if (!json_object_is_type(word, json_type_string))
			return -EINVAL;
		words[i] = (char *)json_object_get_string(word);
	}
	words[nr] = NULL;
	return (int)nr;
}

/* The first of the client's descriptors becomes @name. */
static int take_file(struct client *c, const char *name,
		     struct opened_files *files)
{
	int ret = -EINVAL;

	if (name && c->nr_fds > 0)
		ret = opened_files_add(files, name, c->fds[0]);
	if (ret < 0)
		return ret;
	c->nr_fds--;
	memmove(c->fds, c->fds + 1, c->nr_fds * sizeof(c->fds[0]));
	return 0;
}

static int get_files(struct client *c, struct json_object *request,
		     struct opened_files *files)
{
	struct json_object *names;
	int ret = 0;

	if (!json_object_is_type(request, json_type_object) ||
	    !json_object_object_get_ex(request, "files", &names))
		return 0;
	if (!json_object_is_type(names, json_type_array))
		return -EINVAL;
	for (size_t i = 0; ret == 0 && i < json_object_array_length(names); i++)
		ret = take_file(c,
				json_object_get_string(
					json_object_array_get_idx(names, i)),
				files);
	return ret;
}

static struct json_object *parse(const char *text, size_t len)
{
	struct json_tokener *tok = json_tokener_new_ex(MAX_DEPTH);
	struct json_object *request;

	if (!tok)
		return NULL;
	request = json_tokener_parse_ex(tok, text, (int)len);
	if (json_tokener_get_error(tok) != json_tokener_success ||
	    json_tokener_get_parse_end(tok) != len) {
		json_object_put(request);
		request = NULL;
	}
	json_tokener_free(tok);
	return request;
}

/* Execute the request; the result goes into @answer. */
static void execute(struct client *c, const char *line, size_t len,
		    struct json_object *answer)
{
	struct ctl_server *server = c->server;
	struct json_object *request = parse(line, len);
	struct json_object *reply = json_object_new_object();
	struct opened_files files = { 0 };
	char *words[MAX_WORDS + 1];
	struct err err = { "" };
	int ret = get_words(request, words);

	if (ret < 0)
		err_set(&err, ret,
			"malformed request: must be [\"word\", ...], at most "
			"%d words",
			MAX_WORDS);
	else if (get_files(c, request, &files) < 0)
		ret = err_set(&err, -EINVAL,
			      "files: one descriptor needed per name");
	else
		ret = server->fn(server->arg, ret, words, &files, reply, &err);

	opened_files_close(&files);
	json_add_bool(answer, "ok", ret >= 0);
	if (ret >= 0) {
		json_object_object_add(answer, "reply", reply);
	} else {
		json_add_string(answer, "error", err.text);
		json_object_put(reply);
	}
	json_object_put(request);
}

static void set_reply(struct client *c, struct json_object *answer)
{
	const char *text =
		json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN);

	c->reply_len = strlen(text) + 1;
	c->reply_off = 0;
	c->reply = malloc(c->reply_len);
	if (!c->reply)
		return;
	memcpy(c->reply, text, c->reply_len);
	c->reply[c->reply_len - 1] = '\n';
}

/* False: no complete request yet. */
static bool next_request(struct client *c)
{
	char *end = memchr(c->request, '\n', c->len);
	struct json_object *answer;
	size_t line_len;

	if (!end)
		return false;
	line_len = (size_t)(end - c->request);
	answer = json_object_new_object();
	execute(c, c->request, line_len, answer);
	set_reply(c, answer);
	json_object_put(answer);
	c->len -= line_len + 1;
	memmove(c->request, end + 1, c->len);
	return true;
}

/*
 * --- Clients ---
 */

/* 1: all sent; 0: the client must read first; or -errno. */
static int send_reply(struct client *c)
{
	while (c->reply && c->reply_off < c->reply_len) {
		ssize_t n = send(c->fd, c->reply + c->reply_off,
				 c->reply_len - c->reply_off,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		c->reply_off += (size_t)n;
	}
	free(c->reply);
	c->reply = NULL;
	return 1;
}

/* Process received requests. False: close the connection. */
static bool work(struct client *c)
{
	int ret;

	do {
		ret = send_reply(c);
	} while (ret == 1 && next_request(c));
	if (ret < 0 || (ret == 1 && (c->ended || c->len == MAX_REQUEST)))
		return false;
	return vio_fd_set(c->source, ret == 1 ? EPOLLIN : EPOLLOUT) == 0;
}

static bool receive(struct client *c)
{
	union scm_room room;
	struct iovec iov = { c->request + c->len, MAX_REQUEST - c->len };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf),
	};
	ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	c->ended = n == 0;
	c->len += (size_t)n;
	/* Too many descriptors, or none left here: disconnect the client. */
	return scm_take(&msg, c->fds, &c->nr_fds, MAX_FDS) &&
	       !(msg.msg_flags & MSG_CTRUNC);
}

static void on_client(void *arg, uint32_t events)
{
	struct client *c = arg;

	/* While a reply is pending, we wait for EPOLLOUT alone. */
	if (!c->reply && !receive(c)) {
		client_close(c);
		return;
	}
	if (!work(c))
		client_close(c);
}

static struct client *free_slot(struct ctl_server *server)
{
	for (int i = 0; i < MAX_CLIENTS; i++) {
		if (!server->clients[i].server)
			return &server->clients[i];
	}
	return NULL;
}

/* No descriptors left: epoll would report the client again at once. */
static void accept_later(struct ctl_server *server)
{
	vio_fd_set(server->source, 0);
	vio_timer_set(server->timer, RELISTEN_NS);
}

static void on_timer(void *arg)
{
	struct ctl_server *server = arg;

	vio_fd_set(server->source, EPOLLIN);
}

static void on_listen(void *arg, uint32_t events)
{
	struct ctl_server *server = arg;
	struct client *c = free_slot(server);
	int fd;

	if (!c) {
		vio_fd_set(server->source, 0); /* until a client disconnects */
		return;
	}
	fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno != EAGAIN && errno != ECONNABORTED)
			accept_later(server);
		return;
	}
	*c = (struct client){ .fd = fd, .request = malloc(MAX_REQUEST) };
	if (!c->request || vio_fd_add(server->loop, fd, EPOLLIN, on_client, c,
				      &c->source) < 0) {
		free(c->request);
		close(fd);
		return;
	}
	c->server = server;
}

int ctl_server_create(struct vio_loop *loop, int take_fd, ctl_fn *fn, void *arg,
		      struct ctl_server **ret_server)
{
	struct ctl_server *server = calloc(1, sizeof(*server));
	int ret;

	if (!server)
		return -ENOMEM;
	server->loop = loop;
	server->fd = take_fd;
	server->fn = fn;
	server->arg = arg;
	ret = vio_timer_add(loop, on_timer, server, &server->timer);
	if (ret == 0)
		ret = vio_fd_add(loop, take_fd, EPOLLIN, on_listen, server,
				 &server->source);
	if (ret < 0) {
		vio_source_remove(server->timer);
		free(server);
		return ret;
	}
	*ret_server = server;
	return 0;
}

void ctl_server_destroy(struct ctl_server *server)
{
	if (!server)
		return;
	for (int i = 0; i < MAX_CLIENTS; i++)
		client_close(&server->clients[i]);
	vio_source_remove(server->source);
	vio_source_remove(server->timer);
	close(server->fd);
	free(server);
}

const int ctl_server_syscalls[] = {
	SYS_accept4,
	SYS_recvmsg,
	SYS_sendto,
	-1,
};
