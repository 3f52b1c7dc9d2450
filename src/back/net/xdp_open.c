/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What AF_XDP sockets need privileges for. The program is attached by a
 * bpf_link, which the kernel removes with its last descriptor, however the
 * processes end. So a program of six instructions needs no loader: libxdp
 * attaches one that stays on the interface after a crash.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "back/net/link_monitor.h"
#include "back/net/xdp.h"
#include "base/util.h"

#define LOOK_MS    1000 /* for an interface that was deleted */
#define BIND_TRIES 100

/* All that the opener needs. */
struct request {
	char ifname[IFNAMSIZ];
	unsigned first, nr; /* queues of the interface */
	unsigned mtu;       /* of the guest; 0: none */
	bool native, skb;   /* modes that may be tried, in this order */
	bool force_copy;
};

/* What is open so far; -1: not yet. */
struct opened {
	int map_fd;
	int link_fd;
	int memory_fd;
	int queue_fds[NET_MAX_CHANNELS];
	uint8_t *memory;
	bool copy;
};

/*
 * --- The program ---
 */

static int bpf(int cmd, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

/* The socket of a queue by the queue's number. */
static int create_map(unsigned nr)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_XSKMAP,
		.key_size = sizeof(uint32_t),
		.value_size = sizeof(uint32_t),
		.max_entries = nr,
	};

	return bpf(BPF_MAP_CREATE, &attr);
}

static int set_map(int map_fd, uint32_t queue, int fd)
{
	union bpf_attr attr = {
		.map_fd = (uint32_t)map_fd,
		.key = (uintptr_t)&queue,
		.value = (uintptr_t)&fd,
	};

	return bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

/* return bpf_redirect_map(map, ctx->rx_queue_index, XDP_PASS); */
static int load_program(int map_fd)
{
	const struct bpf_insn insns[] = {
		{ .code = BPF_LDX | BPF_MEM | BPF_W,
		  .dst_reg = BPF_REG_2,
		  .src_reg = BPF_REG_1,
		  .off = offsetof(struct xdp_md, rx_queue_index) },
		{ .code = BPF_LD | BPF_DW | BPF_IMM,
		  .dst_reg = BPF_REG_1,
		  .src_reg = BPF_PSEUDO_MAP_FD,
		  .imm = map_fd },
		{ 0 }, /* the upper half of the instruction before */
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K,
		  .dst_reg = BPF_REG_3,
		  .imm = XDP_PASS },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_XDP,
		.expected_attach_type = BPF_XDP,
		.insns = (uintptr_t)insns,
		.insn_cnt = ARRAY_LEN(insns),
		.license = (uintptr_t)"BSD",
		.prog_name = "viodev",
	};

	return bpf(BPF_PROG_LOAD, &attr);
}

static int create_link(int prog_fd, unsigned ifindex, uint32_t flags)
{
	union bpf_attr attr = {
		.link_create = {
			.prog_fd = (uint32_t)prog_fd,
			.target_ifindex = ifindex,
			.attach_type = BPF_XDP,
			.flags = flags,
		},
	};

	return bpf(BPF_LINK_CREATE, &attr);
}

/* With EBUSY the interface has another program, in whichever mode. */
static int attach(const struct request *req, struct opened *o, int prog_fd,
		  unsigned ifindex)
{
	o->copy = req->force_copy;
	if (req->native)
		o->link_fd = create_link(prog_fd, ifindex, XDP_FLAGS_DRV_MODE);
	if (o->link_fd < 0 && req->skb && !(req->native && errno == EBUSY)) {
		o->copy = true;
		o->link_fd = create_link(prog_fd, ifindex, XDP_FLAGS_SKB_MODE);
	}
	return o->link_fd < 0 ? -errno : 0;
}

static int cannot_attach(const struct request *req, int ret, struct err *err)
{
	const char *hint = "";

	if (ret == -EPERM || ret == -EACCES)
		hint = " (it needs root, or CAP_NET_ADMIN, CAP_NET_RAW and "
		       "CAP_BPF)";
	else if (ret == -EBUSY || ret == -EEXIST)
		hint = " (it has another XDP program: ip link set dev IFNAME "
		       "xdp off)";
	else if (!req->skb)
		hint = " (its driver may lack XDP: try xdp-mode=skb)";
	return err_set(err, ret,
		       "net: ifname=%s: attaching an XDP program: %s%s",
		       req->ifname, strerror(-ret), hint);
}

static int open_program(const struct request *req, struct opened *o,
			unsigned ifindex, struct err *err)
{
	int ret, prog_fd = -1;

	o->map_fd = create_map(req->first + req->nr);
	if (o->map_fd >= 0)
		prog_fd = load_program(o->map_fd);
	ret = prog_fd < 0 ? -errno : attach(req, o, prog_fd, ifindex);
	if (prog_fd >= 0)
		close(prog_fd);
	return ret < 0 ? cannot_attach(req, ret, err) : 0;
}

/*
 * --- Memory and sockets ---
 */

static int open_memory(const struct request *req, struct opened *o,
		       struct err *err)
{
	size_t bytes = (size_t)req->nr * XDP_QUEUE_BYTES;
	void *memory = MAP_FAILED;

	o->memory_fd = memfd_create("viodev-xdp", MFD_CLOEXEC);
	if (o->memory_fd >= 0 && ftruncate(o->memory_fd, (off_t)bytes) == 0)
		memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			      o->memory_fd, 0);
	if (memory == MAP_FAILED)
		return err_set(err, -errno,
			       "net: ifname=%s: %zu bytes of "
			       "memory for frames: %s",
			       req->ifname, bytes, strerror(errno));
	o->memory = memory;
	return 0;
}

static int set_number(int fd, int name, unsigned value)
{
	return setsockopt(fd, SOL_XDP, name, &value, sizeof(value)) < 0 ?
		       -errno :
		       0;
}

static int set_up_rings(int fd, uint8_t *frames)
{
	const struct xdp_umem_reg reg = {
		.addr = (uintptr_t)frames,
		.len = XDP_QUEUE_BYTES,
		.chunk_size = XDP_FRAME_BYTES,
	};
	int ret = 0;

	if (setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg)) < 0)
		ret = -errno;
	for (int ring = XDP_RX_RING; ret == 0 && ring <= XDP_TX_RING; ring++)
		ret = set_number(fd, ring, XDP_NR_FRAMES);
	if (ret == 0)
		ret = set_number(fd, XDP_UMEM_FILL_RING, XDP_NR_FRAMES);
	if (ret == 0)
		ret = set_number(fd, XDP_UMEM_COMPLETION_RING, XDP_NR_FRAMES);
	return ret;
}

/* After bind, as the device maps them; Linux before 6.4 refuses that. */
static int fill_rings(int fd)
{
	struct xdp_mmap_offsets offsets;
	struct xdp_queue q;
	int ret = xdp_offsets(fd, &offsets);

	if (ret == 0)
		ret = xdp_queue_map(&q, fd, &offsets);
	if (ret < 0)
		return ret == -EBUSY ? -EOPNOTSUPP : ret;
	xdp_queue_first(&q);
	xdp_queue_unmap(&q);
	return 0;
}

static int bind_queue(int fd, unsigned ifindex, unsigned queue, bool copy)
{
	const struct sockaddr_xdp addr = {
		.sxdp_family = AF_XDP,
		.sxdp_flags =
			(uint16_t)(XDP_USE_NEED_WAKEUP | (copy ? XDP_COPY : 0)),
		.sxdp_ifindex = ifindex,
		.sxdp_queue_id = queue,
	};

	return bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ?
		       -errno :
		       0;
}

/* The kernel releases the queue of a closed socket a moment later. */
static int bind_patiently(int fd, unsigned ifindex, unsigned queue, bool copy)
{
	int ret = bind_queue(fd, ifindex, queue, copy);

	for (int i = 0; ret == -EBUSY && i < BIND_TRIES; i++) {
		usleep(10000);
		ret = bind_queue(fd, ifindex, queue, copy);
	}
	return ret;
}

static int open_socket(struct opened *o, unsigned ifindex, unsigned queue,
		       unsigned i)
{
	int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	int ret = fd < 0 ? -errno : 0;

	o->queue_fds[i] = fd;
	if (ret == 0)
		ret = set_up_rings(fd, o->memory + (size_t)i * XDP_QUEUE_BYTES);
	if (ret == 0)
		ret = bind_patiently(fd, ifindex, queue, o->copy);
	if (ret == 0)
		ret = fill_rings(fd);
	if (ret == 0 && set_map(o->map_fd, queue, fd) < 0)
		ret = -errno;
	return ret;
}

static int cannot_open(const struct request *req, unsigned queue, int ret,
		       struct err *err)
{
	const char *hint = "";

	if (ret == -EINVAL)
		hint = " (does it have this queue? ethtool -l)";
	else if (ret == -EBUSY)
		hint = " (another AF_XDP socket uses it)";
	else if (ret == -ENOBUFS)
		hint = " (raise RLIMIT_MEMLOCK: 16 MiB for a queue)";
	else if (ret == -EOPNOTSUPP)
		hint = " (it needs Linux 6.4)";
	else if (ret == -EAFNOSUPPORT)
		hint = " (the kernel lacks CONFIG_XDP_SOCKETS)";
	return err_set(err, ret,
		       "net: ifname=%s: AF_XDP socket of queue %u: "
		       "%s%s",
		       req->ifname, queue, strerror(-ret), hint);
}

static int open_sockets(const struct request *req, struct opened *o,
			unsigned ifindex, struct err *err)
{
	for (unsigned i = 0; i < req->nr; i++) {
		unsigned queue = req->first + i;
		int ret = open_socket(o, ifindex, queue, i);

		if (ret < 0)
			return cannot_open(req, queue, ret, err);
	}
	return 0;
}

/*
 * --- All of it ---
 */

static int check_mtu(const struct request *req, struct err *err)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { 0 };
	int ret = 0;

	strcpy(ifr.ifr_name, req->ifname);
	if (fd < 0 || ioctl(fd, SIOCGIFMTU, &ifr) < 0)
		ret = err_set(err, -errno, "net: ifname=%s: %s", req->ifname,
			      strerror(errno));
	else if (ifr.ifr_mtu > (int)XDP_MAX_MTU)
		ret = err_set(err, -EMSGSIZE,
			      "net: ifname=%s: its MTU is %d, that of AF_XDP "
			      "at most %u: ip link set %s mtu %u",
			      req->ifname, ifr.ifr_mtu, XDP_MAX_MTU,
			      req->ifname, XDP_MAX_MTU);
	else if (req->mtu > (unsigned)ifr.ifr_mtu)
		ret = err_set(err, -EMSGSIZE,
			      "net: mtu=%u: ifname=%s has an MTU of %d",
			      req->mtu, req->ifname, ifr.ifr_mtu);
	if (fd >= 0)
		close(fd);
	return ret;
}

static void close_opened(struct opened *o, unsigned nr)
{
	if (o->map_fd >= 0)
		close(o->map_fd);
	if (o->link_fd >= 0)
		close(o->link_fd);
	if (o->memory_fd >= 0)
		close(o->memory_fd);
	for (unsigned i = 0; i < nr; i++) {
		if (o->queue_fds[i] >= 0)
			close(o->queue_fds[i]);
	}
}

/* The kernel keeps the pages; the program keeps the map. */
static int hand_over(struct opened *o, unsigned nr, int *fds)
{
	memcpy(fds, o->queue_fds, nr * sizeof(fds[0]));
	fds[nr + XDP_MEMORY] = o->memory_fd;
	fds[nr + XDP_PROGRAM] = o->link_fd;
	close(o->map_fd);
	return (int)nr + XDP_NR_OTHERS;
}

/* As opener_fn. */
static int open_all(const struct request *req, int *fds, struct err *err)
{
	struct opened o = { .map_fd = -1, .link_fd = -1, .memory_fd = -1 };
	unsigned ifindex = if_nametoindex(req->ifname);
	int ret;

	for (unsigned i = 0; i < req->nr; i++)
		o.queue_fds[i] = -1;
	ret = check_mtu(req, err);
	if (ret == 0)
		ret = open_program(req, &o, ifindex, err);
	if (ret == 0)
		ret = open_memory(req, &o, err);
	if (ret == 0)
		ret = open_sockets(req, &o, ifindex, err);
	if (o.memory)
		munmap(o.memory, (size_t)req->nr * XDP_QUEUE_BYTES);
	if (ret == 0)
		return hand_over(&o, req->nr, fds);
	close_opened(&o, req->nr);
	return ret;
}

static int open_again(void *arg, int *fds)
{
	struct err err;

	return open_all(arg, fds, &err);
}

static int start_opener(const struct request *req, struct opened_files *files)
{
	struct request *copy = malloc(sizeof(*copy));
	int ret;

	if (!copy)
		return -ENOMEM;
	*copy = *req;
	ret = opener_start(files, XDP_OPENER, open_again, LOOK_MS, copy);
	if (ret < 0)
		free(copy);
	return ret;
}

static int parse(const struct opts *opts, struct request *req, struct err *err)
{
	const char *name = opt_string(opts, "ifname");
	const char *mode = opt_string(opts, "xdp-mode");

	if (!name)
		return err_set(err, -EINVAL,
			       "net: backend=af-xdp needs ifname=");
	if (strlen(name) >= sizeof(req->ifname))
		return err_set(err, -EINVAL, "net: ifname=%s: too long", name);
	strcpy(req->ifname, name);
	req->first = (unsigned)opt_number(opts, "start-queue");
	req->nr = (unsigned)opt_number(opts, "queues");
	req->mtu = (unsigned)opt_number(opts, "mtu");
	req->native = !mode || strcmp(mode, "native") == 0;
	req->skb = !mode || strcmp(mode, "skb") == 0;
	req->force_copy = opt_bool(opts, "force-copy");
	return 0;
}

int xdp_open(const struct opts *opts, struct opened_files *files,
	     struct err *err)
{
	struct request req;
	int fds[XDP_MAX_FDS];
	int ret = parse(opts, &req, err);

	if (ret == 0)
		ret = open_all(&req, fds, err);
	if (ret < 0)
		return ret;
	ret = net_add_queues(files, fds, req.nr + XDP_NR_OTHERS);
	if (ret == 0)
		ret = link_monitor_open(files);
	if (ret == 0)
		ret = start_opener(&req, files);
	return ret < 0 ? err_set(err, ret, "net: ifname=%s: %s", req.ifname,
				 strerror(-ret)) :
			 0;
}

bool xdp_is_gone(const struct opened_files *files)
{
	int fd = opened_files_find(files, "queue0");

	return sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && errno == ENXIO;
}
