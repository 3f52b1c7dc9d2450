/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a driver that sends any 9P messages to the device, about a real
 * tree in memory, and puts anything into the rings meanwhile. Files beside the
 * export must not change, and a reset leaves nothing behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "base/util.h"
#include "dev/p9/pdu.h"
#include "dev/vdev.h"
#include "fuzz_dev.h"

#define NR_KINDS       6u
#define NR_SLOTS       8u /* requests at once: two descriptors each */
#define SLOT_BYTES     4096u
#define MAX_BODY       512u
#define MAX_REQUESTS   32u
#define MAX_ITERATIONS 10000u
#define PATIENCE       3u /* iterations of at most a millisecond */
#define QUEUE_SIZE     32u

static struct fuzz_dev kinds[NR_KINDS];
static char base[32], root[48], secret[48];

/*
 * --- The tree ---
 */

static const char *const names[] = { "", "f", "d", "d/g", "l" };
#define NR_NAMES ARRAY_LEN(names)
static struct statx made[NR_NAMES];

static const char *path_of(const char *name)
{
	static char path[96];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	return path;
}

static void make_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	fuzz_must(fd >= 0);
	fuzz_must(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static int remove_entry(const char *name, const struct stat *st, int flag,
			struct FTW *ftw)
{
	return ftw->level > 0 ? remove(name) : 0;
}

static void look(const char *name, struct statx *stx)
{
	memset(stx, 0, sizeof(*stx));
	statx(AT_FDCWD, path_of(name), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS,
	      stx);
}

static bool is_changed(unsigned i)
{
	struct statx now;

	look(names[i], &now);
	return now.stx_ino != made[i].stx_ino ||
	       now.stx_ctime.tv_sec != made[i].stx_ctime.tv_sec ||
	       now.stx_ctime.tv_nsec != made[i].stx_ctime.tv_nsec;
}

/* Restore the tree: recreate it if the last input has changed it. */
static void make_tree(void)
{
	bool changed = false;

	for (unsigned i = 0; i < NR_NAMES; i++)
		changed |= is_changed(i);
	if (!changed)
		return;
	nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	fuzz_must(chmod(root, 0755) == 0);
	make_file(path_of("f"), "some text");
	fuzz_must(mkdir(path_of("d"), 0755) == 0);
	make_file(path_of("d/g"), "more");
	fuzz_must(symlink("../secret", path_of("l")) == 0);
	for (unsigned i = 0; i < NR_NAMES; i++)
		look(names[i], &made[i]);
}

static void check_secret(void)
{
	struct stat st;

	fuzz_must(stat(secret, &st) == 0 && st.st_size == 3 &&
		  st.st_nlink == 1 && st.st_mode == (S_IFREG | 0644));
}

static void clean_up(void)
{
	nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(base);
}

static void setup(void)
{
	static const char *const options[] = {
		"",
		",security=mapped-xattr",
		",ro=on",
		",uidmap=0:0:10",
	};
	struct statfs st;
	bool shm = statfs("/dev/shm", &st) == 0 && st.f_type == TMPFS_MAGIC;
	char text[160];

	snprintf(base, sizeof(base), "%s/9p-fuzz-XXXXXX",
		 shm ? "/dev/shm" : "/tmp");
	fuzz_must(mkdtemp(base));
	atexit(clean_up);
	snprintf(root, sizeof(root), "%s/export", base);
	snprintf(secret, sizeof(secret), "%s/secret", base);
	make_file(secret, "abc");
	fuzz_must(chmod(secret, 0644) == 0 && mkdir(root, 0755) == 0);
	for (unsigned i = 0; i < NR_KINDS; i++) {
		snprintf(text, sizeof(text), "9p,path=%s,queue-size=%u%s", root,
			 QUEUE_SIZE, options[i % 4]);
		fuzz_dev_make(&kinds[i], i < 4 ? VDRV_MODERN : VDRV_LEGACY,
			      text);
	}
}

/*
 * --- Requests ---
 */

static bool is_broken(struct fuzz_dev *v)
{
	return vdrv_status(&v->d) & VIRTIO_CONFIG_STATUS_NEEDS_RESET;
}

/*
 * Most requests are answered before the next one comes. A legacy driver cannot
 * see that the device is broken, and some chains are never read.
 */
static void wait_for_all(struct fuzz_dev *v)
{
	for (unsigned i = 0; i < PATIENCE; i++) {
		if (fuzz_dev_inflight(v, 0) == 0)
			return;
		vio_loop_iterate(fuzz_loop(), 1);
		vdrv_wake(&v->d);
	}
}

/* A message in place @slot, with @room bytes for the reply. */
static void send_message(struct fuzz_dev *v, unsigned slot, uint8_t type,
			 const uint8_t *body, size_t len, uint32_t room)
{
	size_t off = slot * SLOT_BYTES;
	struct out out = { .buf = fuzz_dev_ptr(v, off, SLOT_BYTES / 2),
			   .size = SLOT_BYTES / 2 };
	uint16_t head = (uint16_t)(2 * slot);

	p9_encode32(&out, (uint32_t)(P9_HEADER + len));
	p9_encode8(&out, type);
	p9_encode16(&out, (uint16_t)slot);
	out_write(&out, body, len);
	vdrv_desc(&v->d, 0, head, v->area + off, (uint32_t)out.len,
		  room ? VRING_DESC_F_NEXT : 0, (uint16_t)(head + 1));
	vdrv_desc(&v->d, 0, (uint16_t)(head + 1),
		  v->area + off + SLOT_BYTES / 2, room, VRING_DESC_F_WRITE, 0);
	vdrv_avail(&v->d, 0, head);
}

static void mount(struct fuzz_dev *v)
{
	static const uint8_t version[] = { 0,   32,  0,   0,   8,   0,   '9',
					   'P', '2', '0', '0', '0', '.', 'L' };
	static const uint8_t attach[] = { 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
					  0, 0, 0, 0, 0,    0,    0,    0 };

	send_message(v, 0, P9_TVERSION, version, sizeof(version), 64);
	send_message(v, 1, P9_TATTACH, attach, sizeof(attach), 64);
	fuzz_dev_kick(v, 0);
	wait_for_all(v);
}

static uint32_t room_of(struct fuzz_in *in)
{
	return fuzz_one_in(in, 8) ? fuzz_choice(in, 64) : SLOT_BYTES / 2;
}

/* Fids are mostly small numbers; types mostly existing requests. */
static void request(struct fuzz_dev *v, struct fuzz_in *in)
{
	uint8_t type = (uint8_t)(2 * fuzz_choice(in, 64));
	unsigned slot = fuzz_choice(in, NR_SLOTS);
	uint32_t room = room_of(in);
	bool waits = !fuzz_one_in(in, 4);
	uint8_t body[MAX_BODY];
	size_t len, max = fuzz_int(in, 1);
	const uint8_t *p = fuzz_take(in, max, &len);

	memcpy(body, p, len);
	if (len >= 4 && !(body[0] & 0x80)) {
		body[0] &= 7;
		memset(body + 1, 0, 3);
	}
	send_message(v, slot, type, body, len, room);
	if (waits) {
		fuzz_dev_kick(v, 0);
		wait_for_all(v);
	}
}

/*
 * Requests of the right shape: f fid, n name, F flags of an open, s some
 * number of 4 bytes, q of 8, z the same but short, t a text.
 */
static const struct {
	uint8_t type;
	const char *shape;
} shapes[] = {
	{ P9_TWALK, "ff1n" },     { P9_TWALK, "ff2nn" },
	{ P9_TWALK, "ff0" },      { P9_TLOPEN, "fF" },
	{ P9_TLCREATE, "fnFss" }, { P9_TREAD, "fzs" },
	{ P9_TWRITE, "fzt" },     { P9_TREADDIR, "fzs" },
	{ P9_TCLUNK, "f" },       { P9_TREMOVE, "f" },
	{ P9_TGETATTR, "fq" },    { P9_TSETATTR, "fssssqqqqq" },
	{ P9_TXATTRWALK, "ffx" }, { P9_TXATTRCREATE, "fxzs" },
	{ P9_TMKDIR, "fnss" },    { P9_TSYMLINK, "fnns" },
	{ P9_TMKNOD, "fnssss" },  { P9_TLINK, "ffn" },
	{ P9_TRENAME, "ffn" },    { P9_TRENAMEAT, "fnfn" },
	{ P9_TUNLINKAT, "fnF" },  { P9_TFSYNC, "fs" },
	{ P9_TLOCK, "flszzsx" },  { P9_TGETLOCK, "flzzsx" },
	{ P9_TSTATFS, "f" },      { P9_TREADLINK, "f" },
	{ P9_TFLUSH, "1" },       { P9_TATTACH, "fNnnn" },
};
#define NR_SHAPES ARRAY_LEN(shapes)

static void write_field(struct out *out, char shape, struct fuzz_in *in)
{
	static const char *const entries[] = { "f", "d",  "g", "l",
					       "x", "..", "y", "" };
	static const char *const attrs[] = { "", "user.a", "user.b",
					     "system.posix_acl_access" };
	uint8_t text[32];
	uint32_t len;

	switch (shape) {
	case 'f':
		p9_encode32(out, fuzz_choice(in, 6));
		break;
	case 'n':
		p9_encode_string(out, entries[fuzz_choice(in, 8)]);
		break;
	case 'x':
		p9_encode_string(out, attrs[fuzz_choice(in, 4)]);
		break;
	case 'F':
		p9_encode32(out, (uint32_t)fuzz_int(in, 2));
		break;
	case 'l':
		p9_encode8(out, (uint8_t)fuzz_choice(in, 4));
		break;
	case 's':
		p9_encode32(out, (uint32_t)fuzz_int(in, 2));
		break;
	case 'q':
		p9_encode64(out, fuzz_int(in, 2));
		break;
	case 'z':
		p9_encode64(out, fuzz_choice(in, 16));
		break;
	case 't':
		len = fuzz_choice(in, sizeof(text));
		fuzz_bytes(in, text, len);
		p9_encode32(out, len);
		out_write(out, text, len);
		break;
	case 'N':
		p9_encode32(out, P9_NOFID);
		break;
	default:
		p9_encode16(out, (uint16_t)(shape - '0'));
		break;
	}
}

static void shaped(struct fuzz_dev *v, struct fuzz_in *in)
{
	unsigned i = fuzz_choice(in, NR_SHAPES);
	unsigned slot = fuzz_choice(in, NR_SLOTS);
	uint8_t body[MAX_BODY];
	struct out out = { .buf = body, .size = sizeof(body) };

	for (const char *p = shapes[i].shape; *p; p++)
		write_field(&out, *p, in);
	send_message(v, slot, shapes[i].type, body, out.len, SLOT_BYTES / 2);
	if (!fuzz_one_in(in, 8)) {
		fuzz_dev_kick(v, 0);
		wait_for_all(v);
	}
}

static void step(struct fuzz_dev *v, struct fuzz_in *in)
{
	switch (fuzz_dev_next(v, 16, in)) {
	case 0:
		fuzz_dev_desc(v, 0, in);
		break;
	case 1:
		fuzz_dev_avail(v, 0, in);
		break;
	case 2:
		fuzz_dev_bytes(v, in);
		break;
	case 3:
		fuzz_dev_iterate();
		break;
	case 4:
		fuzz_dev_kick(v, 0);
		break;
	case 5:
		if (fuzz_one_in(in, 16)) {
			fuzz_dev_restart(v, ~0ull);
			mount(v);
		}
		break;
	case 6:
	case 7:
		request(v, in);
		break;
	case 16: /* a step of disorder */
		break;
	default:
		shaped(v, in);
		break;
	}
}

/*
 * --- One input ---
 */

static int64_t figure(struct json_object *status, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(status, key, &v) ?
		       json_object_get_int64(v) :
		       -1;
}

static bool is_clean(struct fuzz_dev *v)
{
	struct json_object *status = json_object_new_object();
	bool clean;

	vdev_status(v->dev, status);
	clean = figure(status, "fids") == 0 &&
		figure(status, "open-files") == 0 &&
		figure(status, "nodes") == 1 &&
		figure(status, "descriptors") == 1;
	json_object_put(status);
	return clean;
}

static void run(struct fuzz_in *in)
{
	struct fuzz_dev *v = &kinds[fuzz_choice(in, NR_KINDS)];

	make_tree();
	fuzz_dev_start(v, ~0ull, 1);
	mount(v);
	for (unsigned i = 0; i < MAX_REQUESTS && fuzz_more(in); i++) {
		step(v, in);
		if (is_broken(v))
			break;
	}
	fuzz_dev_end(v);
	for (unsigned i = 0; !is_clean(v); i++) {
		fuzz_must(i < MAX_ITERATIONS);
		vio_loop_iterate(fuzz_loop(), 1);
	}
	check_secret();
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };
