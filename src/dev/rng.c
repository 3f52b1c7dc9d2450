/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The entropy device (virtio 5.4): fills the driver's buffers with random
 * bytes, from the kernel or from a file, optionally at a limited rate.
 *
 * A buffer is taken from the queue only when there is something to put into it;
 * while the source is dry or the rate exhausted it stays in the queue, so that
 * there is nothing to return at a reset.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "base/ratelimit.h"
#include "base/json.h"
#include "base/util.h"
#include "dev/devices.h"
#include "dev/rng_file.h"

#define RNG_MAX_IOV     256
#define RNG_MAX_BYTES   RNG_FILE_BYTES /* for one buffer, however long it is */
#define RNG_LEAST_BURST 64             /* what Linux requests at once */

#define NS_PER_MS      UINT64_C(1000000)
#define BACKOFF_MIN_NS (100 * NS_PER_MS) /* of a source that fails */
#define BACKOFF_MAX_NS (5000 * NS_PER_MS)

struct rng_softc {
	struct virtio_softc sc_vs; /* first: callbacks get it as a void * */
	struct vqueue_info sc_vq;
	struct vdev sc_dev;
	int sc_fd;                /* source=, or -1: getrandom */
	struct rng_file *sc_file; /* reads it, where that may block */
	struct vio_loop *sc_loop;
	struct vio_source *sc_ready; /* watches a source that is dry */
	struct vio_source *sc_timer; /* runs when the rate allows more */
	struct vio_source
		*sc_retry;      /* runs when a failed source is read again */
	uint64_t sc_backoff_ns; /* while it fails; 0: it works */
	bool sc_backing_off;    /* sc_retry is armed */
	bool sc_failure_logged; /* once until it delivers again */
	struct vio_task sc_continue; /* continues after an iteration */
	struct ratelimit sc_rate;
	uint64_t sc_bytes;
};

static void rng_on_ready(void *arg, uint32_t events);

static struct rng_softc *rng_of(struct vdev *dev)
{
	return container_of(dev, struct rng_softc, sc_dev);
}

/* Bytes put at @p: 1 .. @len, or -errno; 0 when the source has ended. */
static ssize_t rng_read(struct rng_softc *sc, void *p, size_t len)
{
	ssize_t n;

	if (sc->sc_file)
		return rng_file_take(sc->sc_file, p, len);
	do {
		n = sc->sc_fd < 0 ? getrandom(p, len, 0) :
				    read(sc->sc_fd, p, len);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* Fill at most @max bytes of the buffers: how many, or -errno if none. */
static ssize_t rng_fill(struct rng_softc *sc, const struct iovec *iov, int niov,
			size_t max)
{
	size_t done = 0;

	for (int i = 0; i < niov; i++) {
		size_t off = 0;

		while (off < iov[i].iov_len && done < max) {
			size_t len = iov[i].iov_len - off;
			ssize_t n;

			if (len > max - done)
				len = max - done;
			n = rng_read(sc, (char *)iov[i].iov_base + off, len);
			if (n <= 0)
				return done ? (ssize_t)done : n;
			off += (size_t)n;
			done += (size_t)n;
		}
	}
	return (ssize_t)done;
}

/*
 * The source failed or ended. A pipe may get another writer, a file more bytes,
 * a hardware generator its bus back: read again after a while.
 */
static void rng_back_off(struct rng_softc *sc, int error)
{
	if (!sc->sc_failure_logged)
		vs_log(&sc->sc_vs, LOG_WARNING,
		       "entropy source failed: %s, retrying",
		       error ? strerror(-error) : "end of file");
	sc->sc_failure_logged = true;
	if (sc->sc_backoff_ns == 0)
		sc->sc_backoff_ns = BACKOFF_MIN_NS;
	else if (sc->sc_backoff_ns < BACKOFF_MAX_NS)
		sc->sc_backoff_ns *= 2;
	sc->sc_backing_off = true;
	vio_timer_set(sc->sc_retry, sc->sc_backoff_ns);
}

static void rng_delivered(struct rng_softc *sc)
{
	if (sc->sc_failure_logged)
		vs_log(&sc->sc_vs, LOG_NOTICE, "entropy source delivers again");
	sc->sc_failure_logged = false;
	sc->sc_backoff_ns = 0;
}

/* Nothing to read now: wait until the source is readable, or for a while. */
static void rng_wait_source(struct rng_softc *sc, ssize_t n)
{
	int ret = n == -EAGAIN ? 0 : (int)n;

	if (n == -EAGAIN && !sc->sc_ready)
		ret = vio_fd_add(sc->sc_loop, sc->sc_fd, EPOLLIN, rng_on_ready,
				 sc, &sc->sc_ready);
	if (n != -EAGAIN || ret < 0)
		rng_back_off(sc, ret);
}

/*
 * How much of a buffer is filled. The device waits until the rate allows that,
 * instead of filling pieces: Linux's driver stalls after a buffer that was
 * filled in part.
 */
static size_t rng_want(const struct rng_softc *sc, const struct iovec *iov,
		       int niov)
{
	uint64_t want = ratelimit_burst(&sc->sc_rate), len = 0;

	for (int i = 0; i < niov; i++)
		len += iov[i].iov_len;
	if (want > RNG_MAX_BYTES)
		want = RNG_MAX_BYTES;
	return want < len ? want : len;
}

/* A buffer that must wait is taken again when the timer or the source fires. */
static enum vq_served rng_serve(void *arg, struct vqueue_info *vq)
{
	struct rng_softc *sc = arg;
	struct iovec iov[RNG_MAX_IOV];
	struct vi_req req;
	ssize_t n = 0;

	if (sc->sc_backing_off)
		return VQ_WAIT;
	if (vq_getchain(vq, iov, RNG_MAX_IOV, &req) <= 0)
		return VQ_IDLE;

	if (req.writable) {
		size_t want = rng_want(sc, iov + req.readable, req.writable);

		if (ratelimit_level(&sc->sc_rate) < want) {
			vq_retchains(vq, 1);
			vio_timer_set(sc->sc_timer,
				      ratelimit_wait_ns(&sc->sc_rate, want));
			return VQ_WAIT;
		}
		if (sc->sc_file && rng_file_fill(sc->sc_file, want) < 0) {
			vq_retchains(vq, 1);
			return VQ_WAIT;
		}
		n = rng_fill(sc, iov + req.readable, req.writable, want);
		if (n <= 0) {
			vq_retchains(vq, 1);
			rng_wait_source(sc, n);
			return VQ_WAIT;
		}
		rng_delivered(sc);
	}
	ratelimit_consume(&sc->sc_rate, (uint64_t)n);
	sc->sc_bytes += (uint64_t)n;
	vq_relchain(vq, (uint16_t)req.idx, (uint32_t)n);
	return VQ_MORE;
}

static void rng_qnotify(void *arg, struct vqueue_info *vq)
{
	struct rng_softc *sc = arg;
	enum vq_served served = vq_serve(vq, vq->vq_qsize, rng_serve, sc);

	vq_endchains(vq, served == VQ_IDLE);
	if (served == VQ_MORE)
		vio_task_defer(sc->sc_loop, &sc->sc_continue);
}

static void rng_run(void *arg)
{
	struct rng_softc *sc = arg;

	rng_qnotify(sc, &sc->sc_vq);
}

static void rng_on_retry(void *arg)
{
	struct rng_softc *sc = arg;

	sc->sc_backing_off = false;
	rng_run(sc);
}

static void rng_on_ready(void *arg, uint32_t events)
{
	struct rng_softc *sc = arg;

	vio_source_remove(sc->sc_ready);
	sc->sc_ready = NULL;
	rng_run(sc);
}

/* No request is held: cancel only what would look for the next one. */
static void rng_reset(void *arg)
{
	struct rng_softc *sc = arg;

	vio_timer_set(sc->sc_timer, 0);
	vio_timer_set(sc->sc_retry, 0);
	sc->sc_backing_off = false;
	sc->sc_backoff_ns = 0;
	vio_source_remove(sc->sc_ready);
	sc->sc_ready = NULL;
	vio_task_cancel(sc->sc_loop, &sc->sc_continue);
}

static void rng_status(struct vdev *dev, struct json_object *status)
{
	struct rng_softc *sc = rng_of(dev);

	json_add_uint(status, "bytes", sc->sc_bytes);
}

static int rng_open(const struct opts *opts, struct opened_files *files,
		    struct err *err)
{
	const char *path = opt_string(opts, "source");
	int fd;

	if (!path)
		return 0;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "rng: source=%s: %s", path,
			       strerror(errno));
	return opened_files_add(files, "source", fd);
}

static struct virtio_consts rng_consts = {
	.vc_name = "rng",
	.vc_nvq = 1,
	.vc_reset = rng_reset,
	.vc_qnotify = rng_qnotify,
	.vc_hv_caps_legacy = VI_RING_CAPS_LEGACY,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
};

static bool rng_fini(struct vdev *dev)
{
	struct rng_softc *sc = rng_of(dev);

	vio_task_cancel(sc->sc_loop, &sc->sc_continue);
	vio_source_remove(sc->sc_timer);
	vio_source_remove(sc->sc_retry);
	vio_source_remove(sc->sc_ready);
	rng_file_destroy(sc->sc_file);
	if (sc->sc_fd >= 0)
		close(sc->sc_fd);
	return true;
}

static int rng_init(struct vdev *dev, const struct vdev_env *env,
		    struct err *err)
{
	struct rng_softc *sc = rng_of(dev);
	int ret;

	sc->sc_loop = env->loop;
	sc->sc_continue = (struct vio_task){ .fn = rng_run, .arg = sc };
	sc->sc_fd = opened_files_take(env->files, "source");
	ratelimit_init(&sc->sc_rate, opt_number(env->opts, "rate"),
		       RNG_LEAST_BURST);
	ret = vio_timer_add(env->loop, rng_run, sc, &sc->sc_timer);
	if (ret == 0)
		ret = vio_timer_add(env->loop, rng_on_retry, sc, &sc->sc_retry);
	if (ret == 0 && sc->sc_fd >= 0 && rng_file_needed(sc->sc_fd))
		ret = rng_file_create(env->loop, sc->sc_fd, rng_run, sc,
				      &sc->sc_file);
	if (ret < 0)
		return err_set(err, ret, "rng: %s", strerror(-ret));
	return vdev_attach(dev, env, &sc->sc_vs, &rng_consts, &sc->sc_vq, err);
}

static const struct opt_def rng_opts[] = {
	{ "source", OPT_STRING,
	  .help = "entropy source file; default: the kernel" },
	{ "rate", OPT_SIZE, .min = 1,
	  .help = "limit, bytes per second; default: none" },
	{ NULL },
};

static const int rng_syscalls[] = {
	SYS_getrandom,
	SYS_read,
	SYS_timerfd_settime,
	SYS_epoll_ctl,
	/* the thread of a source: waiting for jobs, and its end */
	SYS_futex,
	SYS_write,
	SYS_poll,
	SYS_munmap,
	SYS_madvise,
	SYS_exit,
	SYS_rt_sigprocmask,
	-1,
};

const struct vdev_type vdev_rng = {
	.vt_name = "rng",
	.vt_alias = "virtio-rnd",
	.vt_summary = "entropy source",
	.vt_legacy_id = VIRTIO_DEV_RANDOM,
	.vt_device_id = VIRTIO_ID_RNG,
	.vt_pci_class = PCIC_OTHER,
	.vt_queue_size = 64,
	.vt_opts = rng_opts,
	.vt_syscalls = rng_syscalls,
	.vt_open = rng_open,
	VDEV_IN(struct rng_softc, sc_dev),
	.vt_init = rng_init,
	.vt_fini = rng_fini,
	.vt_status = rng_status,
};
