/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory that the vfio-user server's client did not share.
 *
 * A region without a file is accessed by messages, DMA_READ and DMA_WRITE, to
 * a client that may itself be waiting for our answer: QEMU serves them only
 * while no guest processor waits for a register. So:
 *
 * - A read waits for its answer, and meanwhile handles messages that do not
 *   change the device's state. On any other message the read is abandoned:
 *   -EAGAIN unwinds to the loop, the message is handled, and pci_kick() has
 *   the queues served again. The late answer is recognised by its number, and
 *   dropped. While a message is handled, a read returns -EAGAIN at once.
 * - A write is sent and forgotten. It never returns -EAGAIN: what came before
 *   it could not be undone.
 * - An interrupt must not overtake the writes that it announces. It is held
 *   until the client has answered a command sent after them, often the read of
 *   the driver's event index, otherwise an empty write.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "serve/vfio_user_impl.h"

uint64_t vfuser_answer_ns = 2000000000;

static uint64_t answer_ns(void)
{
	return __atomic_load_n(&vfuser_answer_ns, __ATOMIC_RELAXED);
}

/* QEMU loses the end of replies that its socket does not accept at once. */
#define MAX_CHUNK (64u << 10)

/* A device's own threads access only shared memory, not the connection. */
static bool on_loop(const struct vfuser *srv)
{
	return pthread_equal(srv->thread, pthread_self());
}

void vfuser_dma_reset(struct vfuser *srv)
{
	srv->dma = (struct vfuser_dma){ .oldest = 1 };
}

/*
 * --- Commands to the client ---
 */

static struct vfconn *dma_conn(struct vfuser *srv)
{
	return srv->twin.fd >= 0 ? &srv->twin : &srv->conn;
}

/* Append a command to the output. */
static void send_command(struct vfuser *srv, uint16_t id, enum vfmsg_cmd cmd,
			 uint32_t flags, gpa_t a, uint64_t count,
			 const void *data)
{
	size_t data_len = data ? count : 0;
	struct vfmsg_hdr hdr = {
		.id = id,
		.cmd = cmd,
		.size = (uint32_t)(VFMSG_HDR_BYTES + VFMSG_ACCESS_BYTES +
				   data_len),
		.flags = flags,
	};
	uint8_t payload[VFMSG_ACCESS_BYTES];

	vfmsg_encode_dma(payload, a, count);
	if (!vfconn_queue(dma_conn(srv), &hdr, payload, data, data_len))
		vfuser_fail(srv, LOG_WARNING, "peer is not reading its socket");
	vfuser_wake(srv);
}

/* Answered commands: a bit for each that may still be unanswered. */
static uint64_t *answer_word(struct vfuser_dma *dma, uint64_t command)
{
	return &dma->answered[command % VFUSER_MAX_UNANSWERED / 64];
}

static bool is_answered(struct vfuser_dma *dma, uint64_t command)
{
	return command < dma->oldest ||
	       (*answer_word(dma, command) & 1ull << command % 64);
}

static void set_answered(struct vfuser_dma *dma, uint64_t command)
{
	*answer_word(dma, command) |= 1ull << command % 64;
	if (command > dma->acked)
		dma->acked = command;
	while (dma->oldest <= dma->asked && is_answered(dma, dma->oldest)) {
		*answer_word(dma, dma->oldest) &= ~(1ull << dma->oldest % 64);
		dma->oldest++;
	}
}

/* Send a command that requires an answer. */
static uint64_t ask(struct vfuser *srv, enum vfmsg_cmd cmd, gpa_t a,
		    uint64_t count)
{
	struct vfuser_dma *dma = &srv->dma;

	if (dma->asked + 1 - dma->oldest >= VFUSER_MAX_UNANSWERED) {
		vfuser_fail(srv, LOG_WARNING, "no answer from the peer");
		return dma->asked;
	}
	dma->asked++;
	if (dma->unfenced) {
		dma->unfenced = false;
		dma->fence = dma->asked;
	}
	send_command(srv, (uint16_t)dma->asked, cmd, 0, a, count, NULL);
	return dma->asked;
}

/* The unanswered command with @id, or 0. */
static uint64_t command_of(struct vfuser_dma *dma, uint16_t id)
{
	uint64_t command = dma->oldest + (uint16_t)(id - dma->oldest);

	return command <= dma->asked && !is_answered(dma, command) ? command :
								     0;
}

static int take_data(struct vfuser_dma *dma, const struct vfconn_msg *msg)
{
	struct vfmsg_dma_data data;

	if ((msg->hdr.flags & VFMSG_ERROR) || msg->hdr.cmd != VFMSG_DMA_READ ||
	    vfmsg_decode_dma_data(msg->payload, msg->len, &data) < 0 ||
	    data.count != dma->read_len)
		return -EFAULT;
	memcpy(dma->read_buf, data.data, data.count);
	return 0;
}

void vfuser_dma_reply(struct vfuser *srv, const struct vfconn_msg *msg)
{
	struct vfuser_dma *dma = &srv->dma;
	uint64_t command = command_of(dma, msg->hdr.id);

	if (command == 0)
		return; /* it answers no command */
	if (command == dma->reading) {
		dma->read_result = take_data(dma, msg);
		dma->reading = 0;
	}
	set_answered(dma, command);
	/* A waiting read was called by the device, and holds its lock. */
	if (!srv->waiting)
		pci_lock(&srv->base.pi);
	vfuser_irq_release(srv, dma->acked);
	if (!srv->waiting)
		pci_unlock(&srv->base.pi);
}

/* Some command is unanswered: check again when the answer is due. */
static void watch(struct vfuser *srv)
{
	struct vfuser_dma *dma = &srv->dma;

	if (dma->watched || dma->oldest > dma->asked)
		return;
	dma->watched = dma->asked;
	vio_timer_set(srv->timer, answer_ns());
}

uint64_t vfuser_dma_fence(struct vfuser *srv)
{
	struct vfuser_dma *dma = &srv->dma;

	if (!on_loop(srv))
		return 0;
	if (dma->unfenced)
		ask(srv, VFMSG_DMA_WRITE, dma->last_write, 0);
	watch(srv);
	return dma->acked < dma->fence ? dma->fence : 0;
}

void vfuser_dma_timeout(struct vfuser *srv)
{
	struct vfuser_dma *dma = &srv->dma;
	uint64_t due = dma->watched;

	dma->watched = 0;
	if (dma->oldest <= due)
		vfuser_fail(srv, LOG_WARNING, "no answer from the peer");
	else
		watch(srv);
}

/*
 * --- Waiting ---
 */

static void prepare_poll(const struct vfconn *conn, struct pollfd *pfd)
{
	pfd->fd = conn->fd; /* -1 is ignored */
	pfd->events = (short)((conn->full ? 0 : POLLIN) |
			      (vfconn_unsent(conn) ? POLLOUT : 0));
}

static void transfer(struct vfuser *srv, struct vfconn *conn)
{
	int ret = vfconn_flush(conn);

	if (ret == 0)
		ret = vfconn_fill(conn);
	if (ret < 0 && ret != -ENOBUFS)
		vfuser_fail(srv, LOG_INFO, strerror(-ret));
}

/* Wait until something was sent or received, but not past @deadline. */
static void wait_for_client(struct vfuser *srv, uint64_t deadline)
{
	struct pollfd pfd[2];
	uint64_t now = vio_now_ns();
	int nr = 0;

	prepare_poll(&srv->conn, &pfd[0]);
	prepare_poll(&srv->twin, &pfd[1]);
	if (now < deadline)
		nr = poll(pfd, 2, (int)((deadline - now) / 1000000) + 1);
	if (nr == 0)
		vfuser_fail(srv, LOG_WARNING, "no answer from the peer");
	if (nr <= 0)
		return;
	if (pfd[0].revents)
		transfer(srv, &srv->conn);
	if (pfd[1].revents)
		transfer(srv, &srv->twin);
}

static int try_again(struct vfuser *srv)
{
	srv->want_kick = true;
	vfuser_wake(srv);
	return -EAGAIN;
}

/* Handle what may be handled meanwhile. True: another message is next. */
static bool serve_waiting(struct vfuser *srv)
{
	bool preempted;

	srv->waiting = true;
	preempted = vfuser_serve(srv);
	srv->waiting = false;
	return preempted;
}

static int read_chunk(struct vfuser *srv, gpa_t a, void *buf, uint32_t len,
		      uint64_t deadline)
{
	struct vfuser_dma *dma = &srv->dma;
	bool preempted = serve_waiting(srv);

	if (preempted || !vfuser_connected(srv))
		return try_again(srv);

	dma->read_buf = buf;
	dma->read_len = len;
	dma->read_result = -EAGAIN;
	dma->reading = ask(srv, VFMSG_DMA_READ, a, len);
	if (vfconn_flush(dma_conn(srv)) < 0)
		vfuser_fail(srv, LOG_INFO, "disconnected");
	while (dma->reading && !preempted && vfuser_connected(srv)) {
		wait_for_client(srv, deadline);
		preempted = serve_waiting(srv);
	}
	if (dma->reading) {
		dma->reading = 0; /* its answer is too late */
		watch(srv);
		return try_again(srv);
	}
	return dma->read_result;
}

static int dma_read(void *arg, gpa_t a, void *buf, size_t len)
{
	struct vfuser *srv = arg;
	uint64_t deadline = vio_now_ns() + answer_ns();
	size_t chunk;

	if (!on_loop(srv))
		return -EFAULT;
	if (srv->in_handler || srv->dma.reading)
		return try_again(srv);
	for (size_t done = 0; done < len; done += chunk) {
		int ret;

		chunk = len - done < srv->dma.max_xfer ? len - done :
							 srv->dma.max_xfer;
		ret = read_chunk(srv, (gpa_t){ a.v + done }, (char *)buf + done,
				 (uint32_t)chunk, deadline);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* Data for a client that is disconnecting is lost without an error. */
static int dma_write(void *arg, gpa_t a, const void *buf, size_t len)
{
	struct vfuser *srv = arg;
	struct vfuser_dma *dma = &srv->dma;
	uint64_t deadline = vio_now_ns() + answer_ns();
	size_t chunk;

	if (!on_loop(srv))
		return -EFAULT;
	for (size_t done = 0; done < len; done += chunk) {
		while (vfuser_connected(srv) &&
		       vfconn_unsent(dma_conn(srv)) > VFCONN_HIGH_BYTES)
			wait_for_client(srv, deadline);
		if (!vfuser_connected(srv))
			return 0;
		chunk = len - done < dma->max_xfer ? len - done : dma->max_xfer;
		dma->last_write = (gpa_t){ a.v + done };
		send_command(srv, 0, VFMSG_DMA_WRITE, VFMSG_NO_REPLY,
			     dma->last_write, chunk, (const char *)buf + done);
		dma->unfenced = true;
	}
	return 0;
}

void vfuser_dma_set_max_xfer(struct vfuser *srv, uint64_t bytes)
{
	srv->dma.max_xfer = bytes < MAX_CHUNK ? (uint32_t)bytes : MAX_CHUNK;
}

const struct gmem_ops vfuser_gmem_ops = {
	.read = dma_read,
	.write = dma_write,
};
