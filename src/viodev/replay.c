/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/json.h"
#include "viodev/replay.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <viodev/loop.h>

#define NS_PER_SEC UINT64_C(1000000000)

struct event {
	uint64_t us;
	unsigned type, code;
	int value;
};

static bool parse_event(const char *line, struct event *ev)
{
	unsigned long sec, us;

	if (sscanf(line, "E: %lu.%6lu %x %x %d", &sec, &us, &ev->type,
		   &ev->code, &ev->value) != 5)
		return false;
	ev->us = sec * 1000000 + us;
	return true;
}

/* The name of an event type; NULL if no virtual device has it. */
static const char *type_word(unsigned type)
{
	switch (type) {
	case EV_KEY:
		return "key";
	case EV_REL:
		return "rel";
	case EV_ABS:
		return "abs";
	default:
		return NULL;
	}
}

static void add_event(struct replay *r, const struct event *ev)
{
	const char *word = type_word(ev->type);
	char number[16];

	if (!word)
		return;
	if (!r->update) {
		r->update = json_object_new_array();
		json_push_string(r->update, "inject");
	}
	json_push_string(r->update, word);
	snprintf(number, sizeof(number), "%u", ev->code);
	json_push_string(r->update, number);
	snprintf(number, sizeof(number), "%d", ev->value);
	json_push_string(r->update, number);
}

static void wait_for(struct replay *r, uint64_t us)
{
	struct timespec until;
	uint64_t due_ns;

	if (!r->begun) {
		r->begun = true;
		r->first_us = us;
		r->start_ns = vio_now_ns();
	}
	if (us < r->first_us)
		return;
	due_ns = r->start_ns + (us - r->first_us) * 1000;
	until.tv_sec = (time_t)(due_ns / NS_PER_SEC);
	until.tv_nsec = (long)(due_ns % NS_PER_SEC);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) ==
	       EINTR)
		;
}

/* The request that the line completes, or NULL. */
static struct json_object *take_line(struct replay *r, const char *line)
{
	struct json_object *request;
	struct event ev;

	if (line[0] == '[' || line[0] == '{')
		return json_tokener_parse(line);
	if (!parse_event(line, &ev))
		return NULL;
	if (ev.type != EV_SYN || ev.code != SYN_REPORT) {
		add_event(r, &ev);
		return NULL;
	}
	request = r->update;
	r->update = NULL;
	if (request)
		wait_for(r, ev.us);
	return request;
}

int replay_next(struct replay *r, struct json_object **ret_request,
		struct err *err)
{
	struct json_object *request = NULL;
	char *line = NULL;
	size_t size = 0;
	int ret = 1;

	while (!request && ret == 1) {
		if (getline(&line, &size, r->in) < 0) {
			ret = 0;
			break;
		}
		r->line++;
		request = take_line(r, line);
		if (!request && (line[0] == '[' || line[0] == '{'))
			ret = err_set(err, -EINVAL, "line %u: not JSON",
				      r->line);
	}
	free(line);
	if (ret == 1)
		*ret_request = request;
	return ret;
}

void replay_fini(struct replay *r)
{
	json_object_put(r->update);
	r->update = NULL;
}
