/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/user_fwd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "back/net/hostfwd.h"
#include "back/net/user_net.h"
#include "base/json.h"

static socklen_t len_of(const union inet_addr *addr)
{
	return addr->sa.sa_family == AF_INET ? sizeof(addr->in) :
					       sizeof(addr->in6);
}

/* An IPv6 rule leaves the IPv4 port free. */
static int flags_of(const struct hostfwd *f)
{
	int flags = f->udp ? SLIRP_HOSTFWD_UDP : 0;

	return f->host.sa.sa_family == AF_INET ? flags :
						 flags | SLIRP_HOSTFWD_V6ONLY;
}

static bool has_family(const struct user_fwd *f, const struct hostfwd *fwd)
{
	return fwd->host.sa.sa_family == AF_INET ? f->net->ipv4 : f->net->ipv6;
}

static int parse(const char *rule, int (*fn)(char *, struct hostfwd *),
		 struct hostfwd *ret_fwd)
{
	char *copy = strdup(rule);
	int ret = copy ? fn(copy, ret_fwd) : -ENOMEM;

	free(copy);
	return ret;
}

static int listen_for(struct user_fwd *f, const struct hostfwd *fwd)
{
	errno = 0;
	if (slirp_add_hostxfwd(f->slirp, &fwd->host.sa, len_of(&fwd->host),
			       &fwd->guest.sa, len_of(&fwd->guest),
			       flags_of(fwd)) < 0)
		return errno ? -errno : -EADDRINUSE;
	return 0;
}

static int try_add(struct user_fwd *f, const char *rule)
{
	struct hostfwd fwd;
	int ret = parse(rule, hostfwd_parse, &fwd);

	if (ret < 0)
		return ret;
	if (!has_family(f, &fwd))
		return -EPROTONOSUPPORT;
	if (f->nr == USER_FWD_MAX)
		return -ENOSPC;
	f->rules[f->nr] = strdup(rule);
	if (!f->rules[f->nr])
		return -ENOMEM;
	ret = listen_for(f, &fwd);
	if (ret < 0)
		free(f->rules[f->nr]);
	else
		f->nr++;
	return ret;
}

static const char *why_not(int error)
{
	switch (error) {
	case EINVAL:
		return "must be tcp|udp:[ADDR]:PORT-[GUEST]:PORT, an IPv6 "
		       "address in brackets";
	case EACCES: /* devices have no capabilities, even under root */
		return "privileged port: use a higher one, or lower "
		       "net.ipv4.ip_unprivileged_port_start";
	case EPROTONOSUPPORT:
		return "the guest's network is without it: ipv4=off or "
		       "ipv6=off";
	case ENOSPC:
		return "there are 256 rules already";
	case ENOENT:
		return "no such rule: hostfwd list shows them";
	default:
		return strerror(error);
	}
}

static int add(struct user_fwd *f, const char *rule, struct err *err)
{
	int ret = try_add(f, rule);

	if (ret < 0)
		err_set(err, ret, "net: hostfwd=%s: %s", rule, why_not(-ret));
	return ret;
}

int user_fwd_add_all(struct user_fwd *f, const char *list, struct err *err)
{
	char *copy = strdup(list), *rest = copy, *rule;
	int ret = copy ? 0 : -ENOMEM;

	while (ret == 0 && (rule = strsep(&rest, "+")))
		ret = add(f, rule, err);
	free(copy);
	return ret;
}

static int find(const struct user_fwd *f, const struct hostfwd *fwd)
{
	for (unsigned i = 0; i < f->nr; i++) {
		struct hostfwd other;

		if (parse(f->rules[i], hostfwd_parse, &other) == 0 &&
		    hostfwd_same_host(fwd, &other))
			return (int)i;
	}
	return -ENOENT;
}

/* Existing connections remain. */
static int try_remove(struct user_fwd *f, const char *rule)
{
	struct hostfwd fwd;
	int ret = parse(rule, hostfwd_parse_host, &fwd), i;

	if (ret < 0)
		return ret;
	i = find(f, &fwd);
	if (i < 0)
		return i;
	slirp_remove_hostxfwd(f->slirp, &fwd.host.sa, len_of(&fwd.host),
			      flags_of(&fwd));
	free(f->rules[i]);
	f->nr--;
	memmove(&f->rules[i], &f->rules[i + 1],
		(f->nr - (unsigned)i) * sizeof(f->rules[0]));
	return 0;
}

static int remove_rule(struct user_fwd *f, const char *rule, struct err *err)
{
	int ret = try_remove(f, rule);

	if (ret < 0)
		err_set(err, ret, "net: hostfwd remove %s: %s", rule,
			why_not(-ret));
	return ret;
}

int user_fwd_ctl(struct user_fwd *f, int argc, char *const argv[],
		 struct json_object *reply, struct err *err)
{
	struct json_object *list;
	int ret = 0;

	if (argc == 3 && !strcmp(argv[1], "add"))
		ret = add(f, argv[2], err);
	else if (argc == 3 && !strcmp(argv[1], "remove"))
		ret = remove_rule(f, argv[2], err);
	else if (argc != 2 || strcmp(argv[1], "list") != 0)
		ret = err_set(err, -EINVAL,
			      "hostfwd: must be add RULE, remove RULE or list");
	if (ret < 0)
		return ret;
	list = json_object_new_array();
	for (unsigned i = 0; i < f->nr; i++)
		json_push_string(list, f->rules[i]);
	json_object_object_add(reply, "hostfwd", list);
	return 0;
}

void user_fwd_fini(struct user_fwd *f)
{
	while (f->nr > 0)
		free(f->rules[--f->nr]);
}
