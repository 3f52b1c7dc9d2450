/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extended attributes. A value is read, and written, through its own fid as if
 * it were a file; what was written is set when that fid is clunked.
 *
 * The guest can access user attributes and POSIX ACLs, and those of security
 * and trusted if this process may set them. security=mapped-xattr keeps its own
 * in user.virtfs.*, which is hidden from the guest, and all but the guest's
 * user attributes beneath them, as QEMU does with ACLs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include <viodev/virtio_bits.h>

#include "dev/p9/fs.h"

static const char virtfs[] = "user.virtfs.";

static bool begins(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

static bool is_acl(const char *name)
{
	return !strcmp(name, "system.posix_acl_access") ||
	       !strcmp(name, "system.posix_acl_default");
}

static bool is_security(const char *name)
{
	return begins(name, "security.");
}

static bool is_trusted(const char *name)
{
	return begins(name, "trusted.");
}

/* Only privileged processes set these; mapped, they need no privilege. */
static bool is_privileged(const char *name)
{
	return is_acl(name) || is_security(name) || is_trusted(name);
}

static bool is_allowed(const struct p9_fs *fs, const char *name)
{
	if (is_security(name))
		return fs->caps & VI_BIT(CAP_SETFCAP);
	if (is_trusted(name))
		return fs->caps & VI_BIT(CAP_SYS_ADMIN);
	return is_acl(name) || begins(name, "user.");
}

/*
 * --- By descriptor ---
 */

ssize_t p9_fgetxattr(int fd, const char *name, void *buf, size_t len)
{
	ssize_t n = -1;

	if (!p9_thread_ready())
		return -EOPNOTSUPP;
	n = getxattr(p9_fd_name(fd).s, name, buf, len);
	return n < 0 ? -errno : n;
}

int p9_fsetxattr(int fd, const char *name, const void *buf, size_t len,
		 int flags)
{
	if (!p9_thread_ready())
		return -EOPNOTSUPP;
	return setxattr(p9_fd_name(fd).s, name, buf, len, flags) < 0 ? -errno :
								       0;
}

static int remove_by_fd(int fd, const char *name)
{
	if (!p9_thread_ready())
		return -EOPNOTSUPP;
	return removexattr(p9_fd_name(fd).s, name) < 0 ? -errno : 0;
}

static ssize_t list_by_fd(int fd, char *buf, size_t len)
{
	ssize_t n;

	if (!p9_thread_ready())
		return -EOPNOTSUPP;
	n = listxattr(p9_fd_name(fd).s, buf, len);
	return n < 0 ? -errno : n;
}

/*
 * --- Names ---
 */

/* The host's name for an attribute of the guest's; host has XATTR_NAME_MAX. */
static int host_name(const struct p9_fs *fs, const char *name, char *host)
{
	bool mapped = fs->params.security == P9_MAPPED;

	if (mapped && begins(name, virtfs))
		return -EACCES;
	if (mapped ? !is_privileged(name) && !begins(name, "user.") :
		     !is_allowed(fs, name))
		return -EOPNOTSUPP;
	host[0] = '\0';
	if (mapped && is_privileged(name))
		strcpy(host, virtfs);
	strcat(host, name);
	return 0;
}

/* The guest's name for one of the host's, or NULL. */
static const char *guest_name(const struct p9_fs *fs, const char *name)
{
	size_t len = strlen(virtfs);

	if (fs->params.security != P9_MAPPED)
		return is_allowed(fs, name) ? name : NULL;
	if (begins(name, virtfs))
		return is_privileged(name + len) ? name + len : NULL;
	return begins(name, "user.") ? name : NULL;
}

/* Leave only the guest's names in a list. Returns its length. */
static ssize_t filter_list(const struct p9_fs *fs, char *list, size_t len)
{
	size_t done = 0, at = 0;

	while (at < len) {
		const char *name = list + at;
		size_t name_len = strnlen(name, len - at);
		const char *guest;

		if (at + name_len == len) /* no NUL: not a list */
			break;
		at += name_len + 1;
		guest = guest_name(fs, name);
		if (!guest)
			continue;
		name_len = strlen(guest) + 1;
		memmove(list + done, guest, name_len);
		done += name_len;
	}
	return (ssize_t)done;
}

/*
 * --- Values ---
 */

/* Reserve room for a value, within the limit for all of them. */
static int value_create(struct p9_fs *fs, struct p9_file *file, uint32_t len)
{
	bool fits;

	pthread_mutex_lock(&fs->lock);
	fits = len <= P9_MAX_XATTRS - fs->xattr_bytes;
	if (fits)
		fs->xattr_bytes += len;
	pthread_mutex_unlock(&fs->lock);
	if (!fits)
		return -ENOSPC;
	file->value_len = len;
	file->value = calloc(1, len ? len : 1);
	return file->value ? 0 : -ENOMEM;
}

/* Read a value by its host name, or with "" the list. */
static ssize_t read_raw(const struct p9_fs *fs, int fd, const char *name,
			char *buf, size_t len)
{
	ssize_t n;

	if (name[0])
		return p9_fgetxattr(fd, name, buf, len);
	n = list_by_fd(fd, buf, len);
	return n > 0 ? filter_list(fs, buf, (size_t)n) : n;
}

static int load(const struct p9_req *r, struct p9_file *file, int fd,
		const char *name)
{
	char *buf = malloc(XATTR_SIZE_MAX);
	ssize_t n;
	int ret;

	if (!buf)
		return -ENOMEM;
	n = read_raw(r->fs, fd, name, buf, XATTR_SIZE_MAX);
	ret = n < 0 ? (int)n : value_create(r->fs, file, (uint32_t)n);
	if (ret == 0)
		memcpy(file->value, buf, (size_t)n);
	free(buf);
	return ret;
}

int p9_xattrwalk(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	uint32_t newnum = p9_decode32(&r->in);
	char name[XATTR_NAME_MAX + 1], host[sizeof(name) + sizeof(virtfs)] = "";
	P9_REF ref = P9_NO_REF;
	struct p9_ref value;
	int ret;

	p9_decode_string(&r->in, name, sizeof(name));
	if (r->in.err)
		return r->in.err;
	ret = p9_fid_get(r->fs, num, &ref);
	if (ret == 0 && name[0])
		ret = host_name(r->fs, name, host);
	if (ret < 0)
		return ret;
	if (r->nowait)
		return -EAGAIN;
	ret = p9_ref_open(r, &ref);
	if (ret < 0)
		return ret;

	value = ref;
	value.file = p9_file_create(r->fs, P9_XATTR_READ, -1);
	if (!value.file)
		return -ENOMEM;
	ret = load(r, value.file, ref.fd, host);
	if (ret == 0)
		ret = p9_fid_add(r->fs, newnum, &value);
	if (ret == 0)
		p9_encode64(&r->out, value.file->value_len);
	p9_file_put(r->fs, value.file);
	return ret;
}

int p9_xattrcreate(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in), flags;
	char name[XATTR_NAME_MAX + 1], host[sizeof(name) + sizeof(virtfs)];
	struct p9_file *file;
	P9_REF ref = P9_NO_REF;
	uint64_t size;
	int ret;

	p9_decode_string(&r->in, name, sizeof(name));
	size = p9_decode64(&r->in);
	flags = p9_decode32(&r->in);
	if (r->in.err)
		return r->in.err;
	if (!name[0] || (flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE)))
		return -EINVAL;
	if (size > XATTR_SIZE_MAX)
		return -E2BIG;
	ret = p9_fid_get(r->fs, num, &ref);
	if (ret == 0)
		ret = host_name(r->fs, name, host);
	if (ret < 0)
		return ret;
	file = p9_file_create(r->fs, P9_XATTR_WRITE, -1);
	if (!file)
		return -ENOMEM;
	file->value_flags = (int)flags;
	file->name = strdup(host);
	ret = file->name ? value_create(r->fs, file, (uint32_t)size) : -ENOMEM;
	if (ret == 0)
		ret = p9_fid_change(r->fs, num, &ref, ref.node, file);
	p9_file_put(r->fs, file);
	return ret;
}

int p9_xattr_read(struct p9_req *r, struct p9_file *file, uint64_t off,
		  uint32_t count)
{
	uint32_t left =
		off < file->value_len ? file->value_len - (uint32_t)off : 0;

	r->data_len = count < left ? count : left;
	if (r->data_len > 0)
		vio_iov_write(&r->back, file->value + off, r->data_len);
	p9_encode32(&r->out, r->data_len);
	return 0;
}

int p9_xattr_write(struct p9_req *r, struct p9_file *file, uint64_t off,
		   uint32_t count)
{
	int ret = 0;

	pthread_mutex_lock(&file->lock);
	/* In order, and no more than was announced. */
	if (off != file->value_done || count > file->value_len - off)
		ret = -ENOSPC;
	else
		file->value_done += (uint32_t)vio_iov_take(
			&r->data, file->value + off, count);
	pthread_mutex_unlock(&file->lock);
	if (ret == 0)
		p9_encode32(&r->out, count);
	return ret;
}

int p9_xattr_commit(const struct p9_req *r, const struct p9_ref *was)
{
	struct p9_file *file = was->file;
	P9_REF ref = P9_NO_REF;
	int ret;

	if (file->value_done != file->value_len)
		return -EINVAL;
	ref.fs = r->fs;
	ref.node = was->node;
	pthread_mutex_lock(&r->fs->lock);
	p9_node_ref(ref.node);
	pthread_mutex_unlock(&r->fs->lock);
	ret = p9_ref_open(r, &ref);
	if (ret < 0)
		return ret;
	if (file->value_len == 0)
		return remove_by_fd(ref.fd, file->name);
	return p9_fsetxattr(ref.fd, file->name, file->value, file->value_len,
			    file->value_flags);
}
