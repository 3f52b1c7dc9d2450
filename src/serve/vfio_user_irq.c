/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interrupts of the vfio-user server: vectors are event descriptors that the
 * client binds; a write to one fires it.
 *
 * INTx is a level to the guest and an event on the wire. It masks itself when
 * it fires; the client unmasks it after each of the guest's accesses, or
 * through its own event descriptor, and if the pin is still asserted it fires
 * again. Other vectors that are raised while unbound or masked stay pending,
 * because the client unbinds descriptors to swap them.
 *
 * A device's own threads raise vectors under its lock, pci_lock(), which is
 * therefore held here whenever vectors are used from the loop.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "serve/vfio_user_impl.h"

static struct vfuser_vec *vectors(struct vfuser *srv, uint32_t index,
				  uint32_t *ret_nr)
{
	*ret_nr = 1;
	switch (index) {
	case VFMSG_IRQ_INTX:
		*ret_nr = pci_has_intx(&srv->base.pi);
		return &srv->irqs.intx;
	case VFMSG_IRQ_MSI:
		*ret_nr = pci_has_msi(&srv->base.pi);
		return &srv->irqs.msi;
	case VFMSG_IRQ_MSIX:
		*ret_nr = pci_msix_count(&srv->base.pi);
		return srv->irqs.msix;
	case VFMSG_IRQ_ERR:
		return &srv->irqs.err;
	default:
		return &srv->irqs.req;
	}
}

/*
 * --- Firing ---
 */

/* A full counter is already signalled: errors do not matter. */
static void signal_vector(struct vfuser *srv, const struct vfuser_vec *vec)
{
	uint64_t one = 1;

	if (write(vec->fd, &one, sizeof(one)) == sizeof(one))
		srv->base.stats.interrupts++;
}

static bool is_intx(const struct vfuser *srv, const struct vfuser_vec *vec)
{
	return vec == &srv->irqs.intx;
}

static bool is_pending(const struct vfuser *srv, const struct vfuser_vec *vec)
{
	return is_intx(srv, vec) ? srv->irqs.intx_level : vec->pending;
}

/* Fire a pending vector, if possible. */
static void fire(struct vfuser *srv, struct vfuser_vec *vec)
{
	if (!is_pending(srv, vec) || vec->fd < 0 || vec->masked ||
	    vec->deferred)
		return;
	vec->pending = false;
	vec->masked = is_intx(srv, vec);
	signal_vector(srv, vec);
}

/*
 * A vector raised again is held again, but not longer for its first fence: a
 * busy device must not delay its interrupt for ever.
 */
static void hold(struct vfuser *srv, struct vfuser_vec *vec, uint64_t fence)
{
	vec->next_fence = fence;
	if (vec->deferred)
		return;
	vec->deferred = true;
	vec->fence = fence;
	srv->irqs.nr_deferred++;
}

/* The device raises a vector: its writes to guest memory go first. */
static void raise_vector(struct vfuser *srv, struct vfuser_vec *vec)
{
	uint64_t fence = vfuser_dma_fence(srv);

	vec->pending = true;
	if (fence)
		hold(srv, vec, fence);
	fire(srv, vec);
}

static void release(struct vfuser *srv, struct vfuser_vec *vec, unsigned nr,
		    uint64_t acked)
{
	for (unsigned i = 0; i < nr && srv->irqs.nr_deferred > 0; i++, vec++) {
		if (!vec->deferred || vec->fence > acked)
			continue;
		vec->deferred = false;
		srv->irqs.nr_deferred--;
		fire(srv, vec);
		if (vec->next_fence > acked) {
			vec->pending = true;
			hold(srv, vec, vec->next_fence);
		}
	}
}

void vfuser_irq_release(struct vfuser *srv, uint64_t acked)
{
	if (srv->irqs.nr_deferred == 0)
		return;
	release(srv, &srv->irqs.intx, 1, acked);
	release(srv, &srv->irqs.msi, 1, acked);
	release(srv, srv->irqs.msix, PCI_MAX_MSIX, acked);
}

static void clear(struct vfuser_vec *vec)
{
	vec->pending = false;
	vec->deferred = false;
}

void vfuser_irq_clear(struct vfuser *srv)
{
	pci_lock(&srv->base.pi);
	clear(&srv->irqs.intx);
	clear(&srv->irqs.msi);
	for (unsigned i = 0; i < PCI_MAX_MSIX; i++)
		clear(&srv->irqs.msix[i]);
	srv->irqs.nr_deferred = 0;
	pci_unlock(&srv->base.pi);
}

static void host_msix(void *arg, unsigned vector, uint64_t addr, uint32_t data)
{
	struct vfuser *srv = arg;

	if (vector < PCI_MAX_MSIX)
		raise_vector(srv, &srv->irqs.msix[vector]);
}

static void host_msi(void *arg, uint64_t addr, uint32_t data)
{
	struct vfuser *srv = arg;

	raise_vector(srv, &srv->irqs.msi);
}

static void host_intx(void *arg, bool level)
{
	struct vfuser *srv = arg;

	srv->irqs.intx_level = level;
	if (level)
		raise_vector(srv, &srv->irqs.intx);
}

static void host_log(void *arg, int level, const char *msg)
{
	server_log(arg, level, "%s", msg);
}

/* On any thread. */
static void host_wake(void *arg)
{
	struct vfuser *srv = arg;

	client_wake(&srv->base.wake);
}

const struct pci_host vfuser_pci_host = {
	.ph_wake = host_wake,
	.ph_msix = host_msix,
	.ph_msi = host_msi,
	.ph_intx = host_intx,
	.ph_log = host_log,
	.ph_owns_msix_table = true,
	.ph_iommu = true,
	.ph_doorbell_data = true,
};

/*
 * --- Binding ---
 */

static void unbind(struct vfuser_vec *vec)
{
	if (vec->fd >= 0)
		close(vec->fd);
	vec->fd = -1;
}

static void bind_vector(struct vfuser *srv, struct vfuser_vec *vec, int take_fd)
{
	unbind(vec);
	vec->fd = take_fd;
	if (is_intx(srv, vec))
		vec->masked = false;
	fire(srv, vec);
}

static int take_eventfd(const struct vfconn_msg *msg, unsigned i)
{
	int fd = msg->fds[i];

	msg->fds[i] = -1;
	return fd;
}

static int bind_vectors(struct vfuser *srv, struct vfuser_vec *vec,
			uint32_t count, const struct vfconn_msg *msg)
{
	if (msg->nr_fds == 0) {
		for (uint32_t i = 0; i < count; i++)
			unbind(&vec[i]);
		return 0;
	}
	if (msg->nr_fds != count)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++) {
		int ret = client_eventfd(msg->fds[i]);

		if (ret < 0)
			return ret;
	}
	for (uint32_t i = 0; i < count; i++)
		bind_vector(srv, &vec[i], take_eventfd(msg, i));
	return 0;
}

/*
 * --- Masking ---
 */

static void act(struct vfuser *srv, struct vfuser_vec *vec,
		enum vfmsg_irq_action action)
{
	switch (action) {
	case VFMSG_MASK:
		vec->masked = true;
		break;
	case VFMSG_UNMASK:
		vec->masked = false;
		fire(srv, vec);
		break;
	case VFMSG_TRIGGER: /* the client tests its own wiring */
		if (vec->fd >= 0)
			signal_vector(srv, vec);
		else
			vec->pending = true;
		break;
	}
}

static void on_irq_event(void *arg, uint32_t events)
{
	struct vfuser_irq_event *ev = arg;
	uint64_t count;

	if (read(ev->fd, &count, sizeof(count)) != sizeof(count))
		return;
	pci_lock(&ev->srv->base.pi);
	act(ev->srv, &ev->srv->irqs.intx,
	    ev->unmask ? VFMSG_UNMASK : VFMSG_MASK);
	pci_unlock(&ev->srv->base.pi);
}

static void irq_event_fini(struct vfuser_irq_event *ev)
{
	if (ev->fd < 0)
		return;
	vio_source_remove(ev->source);
	close(ev->fd);
	ev->source = NULL;
	ev->fd = -1;
}

static int bind_irq_event(struct vfuser *srv, struct vfuser_irq_event *ev,
			  const struct vfconn_msg *msg)
{
	struct vio_source *source;
	int ret;

	if (msg->nr_fds == 0) {
		irq_event_fini(ev);
		return 0;
	}
	ret = client_eventfd(msg->fds[0]);
	/* Edge-triggered: whatever the client does to it, we do not spin. */
	if (ret == 0)
		ret = vio_fd_add(srv->base.loop, msg->fds[0], EPOLLIN | EPOLLET,
				 on_irq_event, ev, &source);
	if (ret < 0)
		return ret;
	irq_event_fini(ev);
	ev->source = source;
	ev->fd = take_eventfd(msg, 0);
	return 0;
}

static void unbind_all(struct vfuser *srv, struct vfuser_vec *vec, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		unbind(&vec[i]);
	if (is_intx(srv, vec)) {
		irq_event_fini(&srv->irqs.mask);
		irq_event_fini(&srv->irqs.unmask);
	}
}

/*
 * --- Commands ---
 */

ssize_t vfuser_get_irq_info(struct vfuser *srv, const struct vfconn_msg *msg,
			    uint8_t *reply)
{
	struct vfmsg_irq_info info;
	int ret = vfmsg_decode_irq_info(msg->payload, msg->len, &info);

	if (ret < 0)
		return ret;
	vectors(srv, info.index, &info.count);
	if (info.count > 0)
		info.flags = VFMSG_IRQ_EVENTFD;
	if (info.count > 0 && info.index == VFMSG_IRQ_INTX)
		info.flags |= VFMSG_IRQ_MASKABLE | VFMSG_IRQ_AUTOMASKED;
	memcpy(reply, &info, sizeof(info));
	return sizeof(info);
}

static int set_vectors(struct vfuser *srv, const struct vfmsg_set_irqs *set,
		       const struct vfconn_msg *msg)
{
	uint32_t nr;
	struct vfuser_vec *vec = vectors(srv, set->index, &nr);

	if (set->start + set->count > nr)
		return -EINVAL;
	if (set->count == 0) {
		unbind_all(srv, vec, nr);
		return 0;
	}
	vec += set->start;

	if (set->data == VFMSG_DATA_EVENTFD) {
		if (set->action == VFMSG_TRIGGER)
			return bind_vectors(srv, vec, set->count, msg);
		if (!is_intx(srv, vec))
			return -EINVAL;
		return bind_irq_event(srv,
				      set->action == VFMSG_MASK ?
					      &srv->irqs.mask :
					      &srv->irqs.unmask,
				      msg);
	}
	for (uint32_t i = 0; i < set->count; i++) {
		if (!set->bools || set->bools[i])
			act(srv, &vec[i], set->action);
	}
	return 0;
}

ssize_t vfuser_set_irqs(struct vfuser *srv, const struct vfconn_msg *msg,
			uint8_t *reply)
{
	struct vfmsg_set_irqs set;
	int ret = vfmsg_decode_set_irqs(msg->payload, msg->len, &set);

	if (ret < 0)
		return ret;
	pci_lock(&srv->base.pi);
	ret = set_vectors(srv, &set, msg);
	pci_unlock(&srv->base.pi);
	return ret;
}

/*
 * --- Init and reset ---
 */

void vfuser_irq_init(struct vfuser *srv)
{
	struct vfuser_irqs *irqs = &srv->irqs;
	const struct vfuser_vec none = { .fd = -1 };

	irqs->intx = irqs->msi = irqs->err = irqs->req = none;
	for (unsigned i = 0; i < PCI_MAX_MSIX; i++)
		irqs->msix[i] = none;
	irqs->mask = (struct vfuser_irq_event){ .srv = srv, .fd = -1 };
	irqs->unmask = (struct vfuser_irq_event){
		.srv = srv,
		.fd = -1,
		.unmask = true,
	};
	irqs->nr_deferred = 0;
}

void vfuser_irq_reset(struct vfuser *srv)
{
	struct vfuser_irqs *irqs = &srv->irqs;

	pci_lock(&srv->base.pi);
	unbind_all(srv, &irqs->intx, 1);
	unbind_all(srv, &irqs->msi, 1);
	unbind_all(srv, &irqs->err, 1);
	unbind_all(srv, &irqs->req, 1);
	unbind_all(srv, irqs->msix, PCI_MAX_MSIX);
	vfuser_irq_init(srv);
	pci_unlock(&srv->base.pi);
}
