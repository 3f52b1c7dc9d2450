/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bytes of a port (virtio 5.3.6), between its queues and its channel.
 *
 * One system call serves several chains, and chains that could not be moved are
 * made available again at once. So a reset has nothing to undo, and both
 * directions stop by themselves: a full channel leaves chains to the driver, an
 * empty queue leaves bytes to the host.
 */
#include <errno.h>
#include <string.h>

#include "dev/console/console.h"

#define MAX_ROUNDS 16 /* per iteration of the loop */

/* Chains taken together; their buffers are in sc_iov. */
struct batch {
	unsigned nr;
	int niov;
	size_t bytes;
	struct {
		uint16_t idx;
		uint32_t bytes;
	} chain[CONSOLE_BATCH];
};

static struct vqueue_info *rx_queue(struct console_port *p)
{
	return &p->sc->sc_vqs[p->id ? 2 * p->id + 2 : 0];
}

static struct vqueue_info *tx_queue(struct console_port *p)
{
	return &p->sc->sc_vqs[p->id ? 2 * p->id + 3 : 1];
}

/*
 * --- Batches ---
 */

static void batch_add(struct batch *b, const struct iovec *iov, int niov,
		      uint16_t idx)
{
	struct vio_iov_cursor c = { (struct iovec *)iov, niov };
	size_t bytes = vio_iov_len(&c);

	b->chain[b->nr].idx = idx;
	b->chain[b->nr].bytes = (uint32_t)bytes;
	b->nr++;
	b->niov += niov;
	b->bytes += bytes;
}

/*
 * Take at most @max chains that are all device-writable, or all
 * device-readable. A chain of the wrong kind is returned unused (alone: later
 * chains could not be made available again). True: serve the batch.
 */
static bool batch_take(struct batch *b, struct vqueue_info *vq,
		       struct iovec *iov, unsigned max, bool writable,
		       enum vq_served *ret_served)
{
	struct vi_req req;
	int n = 0;

	*b = (struct batch){ 0 };
	*ret_served = VQ_IDLE;
	while (b->nr < max && b->niov + CONSOLE_CHAIN_IOV <= CONSOLE_MAX_IOV) {
		n = vq_getchain(vq, iov + b->niov, CONSOLE_CHAIN_IOV, &req);
		if (n <= 0)
			break;
		if (writable ? req.readable : req.writable) {
			if (b->nr > 0) {
				vq_retchains(vq, 1);
				break;
			}
			vq_relchain(vq, (uint16_t)req.idx, 0);
			*ret_served = VQ_MORE;
			return false;
		}
		batch_add(b, iov + b->niov, n, (uint16_t)req.idx);
	}
	if (n < 0) { /* the device is broken: touch nothing */
		vq_retchains(vq, (uint16_t)b->nr);
		return false;
	}
	return b->nr > 0;
}

/*
 * @bytes of the batch were moved. Return the chains that are complete, and with
 * @partial the one that is in part; put the others back. Returns the bytes
 * moved of the first of these.
 */
static size_t batch_end(struct batch *b, struct vqueue_info *vq, size_t bytes,
			bool partial, bool writable)
{
	unsigned nr = 0;
	size_t rest = bytes;

	while (nr < b->nr && rest >= b->chain[nr].bytes)
		rest -= b->chain[nr++].bytes;
	if (partial && rest > 0) {
		b->chain[nr++].bytes = (uint32_t)rest;
		rest = 0;
	}
	vq_retchains(vq, (uint16_t)(b->nr - nr));
	for (unsigned i = 0; i < nr; i++)
		vq_relchain_prepare(vq, b->chain[i].idx,
				    writable ? b->chain[i].bytes : 0);
	vq_relchain_publish(vq);
	b->nr = nr;
	return rest;
}

/*
 * --- To the guest ---
 */

/* Whether the guest reads: Linux drops input of a port that is not open. */
static bool rx_allowed(const struct console_port *p)
{
	if (!p->chardev || !p->plugged)
		return false;
	return console_multiport(p->sc) ? p->guest_open : p->id == 0;
}

/* A channel without input calls on_readable() later. */
static enum vq_served rx_some(void *arg, struct vqueue_info *vq)
{
	struct console_port *p = arg;
	struct iovec *iov = p->sc->sc_iov;
	enum vq_served served;
	struct batch b;
	ssize_t n;

	if (!batch_take(&b, vq, iov, p->rx_batch, true, &served))
		return served;
	n = chardev_read(p->chardev, iov, b.niov);
	if (n <= 0) {
		vq_retchains(vq, (uint16_t)b.nr);
		return VQ_WAIT;
	}
	p->rx_bytes += (uint64_t)n;
	batch_end(&b, vq, (size_t)n, true, true);

	/* Typing needs one chain, a stream many. */
	p->rx_batch = b.nr;
	if ((size_t)n == b.bytes && 2 * b.nr <= CONSOLE_BATCH)
		p->rx_batch = 2 * b.nr;
	return VQ_MORE;
}

void console_rx_run(struct console_port *p)
{
	struct vqueue_info *vq = rx_queue(p);
	enum vq_served served;

	if (!rx_allowed(p)) {
		if (p->chardev)
			chardev_want(p->chardev, false);
		return;
	}
	served = vq_serve(vq, MAX_ROUNDS, rx_some, p);
	vq_endchains(vq, served == VQ_IDLE);
	chardev_want(p->chardev, served != VQ_IDLE);
}

/*
 * --- From the guest ---
 */

static void backlog_put(struct console_port *p, const uint8_t *bytes,
			size_t len)
{
	struct console_backlog *b = &p->backlog;

	for (size_t i = 0; i < len && b->size > 0; i++) {
		b->buf[(b->start + b->len) % b->size] = bytes[i];
		if (b->len < b->size)
			b->len++;
		else
			b->start = (b->start + 1) % b->size;
	}
}

/* Keep the newest output for the next peer. */
static void backlog_add(struct console_port *p, const struct iovec *iov,
			int niov, size_t bytes)
{
	size_t room = p->backlog.size - p->backlog.len;

	if (bytes > room)
		p->tx_lost += bytes - room;
	for (int i = 0; i < niov; i++)
		backlog_put(p, iov[i].iov_base, iov[i].iov_len);
}

/* Send it to the new peer. False: some is left. */
static bool backlog_send(struct console_port *p)
{
	struct console_backlog *b = &p->backlog;
	ssize_t n = 0;

	while (b->len > 0 && n >= 0) {
		size_t first = b->size - b->start;
		const struct iovec iov[2] = {
			{ b->buf + b->start, first < b->len ? first : b->len },
			{ b->buf, first < b->len ? b->len - first : 0 },
		};

		n = chardev_write(p->chardev, iov, 2);
		if (n < 0)
			break;
		p->tx_bytes += (uint64_t)n;
		b->start = (b->start + (size_t)n) % b->size;
		b->len -= (size_t)n;
	}
	return n != -EAGAIN;
}

void console_emergency(struct console_port *p, uint8_t byte)
{
	const struct iovec iov = { &byte, 1 };

	if (!p->chardev)
		return;
	console_log_byte(p, byte);
	if (!chardev_has_peer(p->chardev) || p->backlog.len > 0)
		backlog_add(p, &iov, 1, 1);
	else
		chardev_write(p->chardev, &iov, 1);
}

/* Returns the bytes of the batch that are done with; -EAGAIN: none yet. */
static ssize_t tx_write(struct console_port *p, const struct batch *b)
{
	struct vio_iov_cursor c = { p->sc->sc_iov, b->niov };
	size_t sent = p->tx_sent, len;
	ssize_t n = -EPIPE;

	if (sent > b->chain[0].bytes)
		sent = b->chain[0].bytes;
	vio_iov_skip(&c, sent);
	if (c.niov == 0)
		return (ssize_t)sent;
	if (!console_log_begin(p, &c))
		return -EAGAIN;
	len = vio_iov_len(&c);
	if (p->chardev && p->plugged)
		n = p->backlog.len > 0 ?
			    -EPIPE :
			    chardev_write(p->chardev, c.iov, c.niov);
	if (n == -EAGAIN &&
	    (!p->sc->sc_drop || chardev_writes_file(p->chardev)))
		return n;
	if (n == -EPIPE && p->chardev && p->plugged)
		backlog_add(p, c.iov, c.niov, len);
	else if (n < 0)
		p->tx_lost += len;
	else
		p->tx_bytes += (uint64_t)n;
	if (n < 0)
		n = (ssize_t)len;
	console_log_written(p, (size_t)n);
	return (ssize_t)sent + n;
}

/* A full channel loses nothing: it calls on_writable() once it has room. */
static enum vq_served tx_some(void *arg, struct vqueue_info *vq)
{
	struct console_port *p = arg;
	enum vq_served served;
	struct batch b;
	ssize_t n;

	if (!batch_take(&b, vq, p->sc->sc_iov, CONSOLE_BATCH, false, &served)) {
		if (served == VQ_MORE) /* a chain of the wrong kind */
			p->tx_sent = 0;
		return served;
	}
	n = tx_write(p, &b);
	if (n < 0) {
		vq_retchains(vq, (uint16_t)b.nr);
		return VQ_WAIT;
	}
	p->tx_sent = batch_end(&b, vq, (size_t)n, false, false);
	return VQ_MORE;
}

void console_tx_run(struct console_port *p)
{
	struct vqueue_info *vq = tx_queue(p);
	enum vq_served served;

	if (p->backlog.len > 0 && !backlog_send(p) && !p->sc->sc_drop)
		return; /* on_writable() continues */
	served = vq_serve(vq, MAX_ROUNDS, tx_some, p);
	vq_endchains(vq, served == VQ_IDLE);
	if (served == VQ_MORE)
		vio_task_defer(p->sc->sc_loop, &p->tx_continue);
}

void console_tx_continue(void *arg)
{
	console_tx_run(arg);
}

/*
 * --- The channel ---
 */

static void on_readable(void *arg)
{
	console_rx_run(arg);
}

static void on_writable(void *arg)
{
	console_tx_run(arg);
}

static void on_up(void *arg, bool up)
{
	struct console_port *p = arg;

	if (!up)
		p->closed = true;
	console_control_run(p->sc);
	/* Output that waited for the old peer is not for the next one. */
	console_tx_run(p);
}

static void on_resized(void *arg)
{
	struct console_port *p = arg;
	uint16_t cols, rows;

	if (p->id == 0 && chardev_size(p->chardev, &cols, &rows))
		console_resize(p->sc, cols, rows);
}

static void on_failed(void *arg, int error)
{
	struct console_port *p = arg;

	console_tell_failure(p, &p->told_ns, "channel", strerror(-error));
}

const struct chardev_client console_chardev_client = {
	.readable = on_readable,
	.writable = on_writable,
	.up = on_up,
	.resized = on_resized,
	.failed = on_failed,
};

void console_tx_forget(struct console_port *p)
{
	p->tx_sent = 0;
	console_log_reset(p);
}

void console_port_reset(struct console_port *p)
{
	console_tx_forget(p);
	p->rx_batch = 1;
	vio_task_cancel(p->sc->sc_loop, &p->tx_continue);
	if (p->chardev)
		chardev_want(p->chardev, false);
}
