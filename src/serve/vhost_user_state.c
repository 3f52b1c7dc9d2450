/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * State of the device beyond its rings, moved to another back-end, for devices
 * that have vc_save and vc_load. The front-end transfers it while no ring runs,
 * through a pipe that is written or read to its end here, and then asks for the
 * result.
 *
 *	magic device features	the device's own data
 *
 * Incoming state is trusted no more than the front-end.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/le.h"
#include "serve/vhost_user_impl.h"

#define MAGIC "viodev1"
#define NO_FD 0x100u /* of the reply: we have no file for the front-end */

struct header {
	char magic[8];
	char device[8]; /* vc_name */
	le64 features;  /* that the driver accepted */
};
static_assert(sizeof(struct header) == 24, "no padding");

static void make_header(const struct vhuser *srv, uint64_t features,
			struct header *ret_hdr)
{
	*ret_hdr = (struct header){ .magic = MAGIC,
				    .features = cpu_to_le64(features) };
	strncpy(ret_hdr->device, srv->vs->vs_vc->vc_name,
		sizeof(ret_hdr->device) - 1);
}

static void end(struct vhuser_state *st, int result)
{
	vio_source_remove(st->source);
	st->source = NULL;
	if (st->fd >= 0)
		close(st->fd);
	st->fd = -1;
	st->result = result;
}

static int save(struct vhuser *srv)
{
	struct vhuser_state *st = &srv->state;
	struct header hdr;
	ssize_t n;

	make_header(srv, vhuser_driver_features(srv), &hdr);
	memcpy(st->buf, &hdr, sizeof(hdr));
	VS_LOCK(srv->vs);
	n = srv->vs->vs_vc->vc_save(srv->vs, st->buf + sizeof(hdr),
				    sizeof(st->buf) - sizeof(hdr));
	VS_UNLOCK(srv->vs);
	if (n < 0)
		return (int)n;
	st->len = sizeof(hdr) + (size_t)n;
	return 0;
}

static int load(struct vhuser *srv)
{
	const struct vhuser_state *st = &srv->state;
	struct header hdr, ours;
	int ret;

	if (srv->nr_running > 0) /* since the front-end began */
		return -EBUSY;
	if (st->too_long || st->len < sizeof(hdr))
		return -EINVAL;
	memcpy(&hdr, st->buf, sizeof(hdr));
	make_header(srv, le64_to_cpu(hdr.features), &ours);
	if (memcmp(&hdr, &ours, sizeof(hdr)) != 0)
		return -EINVAL;
	ret = vhuser_adopt_features(srv, le64_to_cpu(hdr.features));
	if (ret < 0)
		return ret;
	VS_LOCK(srv->vs);
	ret = srv->vs->vs_vc->vc_load(srv->vs, st->buf + sizeof(hdr),
				      st->len - sizeof(hdr));
	VS_UNLOCK(srv->vs);
	if (ret < 0)
		vhuser_renew(srv);
	return ret;
}

static void send_some(struct vhuser *srv)
{
	struct vhuser_state *st = &srv->state;
	ssize_t n = write(st->fd, st->buf + st->done, st->len - st->done);

	if (n < 0 && errno != EAGAIN)
		end(st, -errno);
	else if (n > 0 && (st->done += (size_t)n) == st->len)
		end(st, 0);
}

/* Whether some was there. Excess data is read as well, so that the front-end
 * can finish. */
static bool receive_some(struct vhuser *srv)
{
	struct vhuser_state *st = &srv->state;
	ssize_t n = read(st->fd, st->buf + st->len, sizeof(st->buf) - st->len);

	if (n > 0) {
		st->len += (size_t)n;
		if (st->len == sizeof(st->buf)) {
			st->too_long = true;
			st->len = 0;
		}
	} else if (n == 0) {
		end(st, load(srv));
	} else if (errno != EAGAIN) {
		end(st, -errno);
	}
	return n > 0;
}

static void on_state_fd(void *arg, uint32_t events)
{
	struct vhuser *srv = arg;

	if (srv->state.saving)
		send_some(srv);
	else
		receive_some(srv);
}

static int begin(struct vhuser *srv, const struct vhconn_msg *msg)
{
	struct vhuser_state *st = &srv->state;
	struct vhmsg_state wanted;
	int ret;

	if (!srv->vs->vs_vc->vc_save)
		return -EOPNOTSUPP;
	if (vhmsg_decode_state(msg->payload, msg->hdr.size, &wanted) < 0 ||
	    msg->nr_fds != 1)
		return -EINVAL;
	if (srv->nr_running > 0)
		return -EBUSY;
	ret = client_eventfd_or_pipe(msg->fds[0]);
	if (ret < 0)
		return ret;
	end(st, -EINPROGRESS);
	st->saving = wanted.direction == VHMSG_STATE_SAVE;
	st->too_long = false;
	st->done = st->len = 0;
	if (st->saving)
		ret = save(srv);
	if (ret < 0)
		return ret;
	st->fd = vhuser_take_fd(msg, 0);
	ret = vio_fd_add(srv->base.loop, st->fd,
			 st->saving ? EPOLLOUT : EPOLLIN, on_state_fd, srv,
			 &st->source);
	if (ret < 0)
		end(st, ret);
	return ret;
}

static ssize_t reply_u64(uint8_t *reply, uint64_t val)
{
	memcpy(reply, &val, sizeof(val));
	return sizeof(val);
}

ssize_t vhuser_set_state_fd(struct vhuser *srv, const struct vhconn_msg *msg,
			    uint8_t *reply)
{
	return reply_u64(reply, NO_FD | (uint64_t)-begin(srv, msg));
}

ssize_t vhuser_check_state(struct vhuser *srv, const struct vhconn_msg *msg,
			   uint8_t *reply)
{
	struct vhuser_state *st = &srv->state;

	/* It has written everything, and may be ahead of the loop. */
	while (st->fd >= 0 && !st->saving && !st->too_long && receive_some(srv))
		;
	if (st->fd >= 0)
		end(st, -EINPROGRESS);
	return reply_u64(reply, (uint64_t)-st->result);
}

void vhuser_state_reset(struct vhuser *srv)
{
	end(&srv->state, -ENODATA);
}
