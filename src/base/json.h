/* SPDX-License-Identifier: BSD-2-Clause */
/* Members of JSON objects, and elements of arrays, in one call each. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

static inline void json_add_uint(struct json_object *to, const char *key,
				 uint64_t val)
{
	json_object_object_add(to, key, json_object_new_uint64(val));
}

static inline void json_add_bool(struct json_object *to, const char *key,
				 bool val)
{
	json_object_object_add(to, key, json_object_new_boolean(val));
}

/* Does nothing if @val is NULL. */
static inline void json_add_string(struct json_object *to, const char *key,
				   const char *val)
{
	if (val)
		json_object_object_add(to, key, json_object_new_string(val));
}

static inline void json_push_string(struct json_object *list, const char *val)
{
	json_object_array_add(list, json_object_new_string(val));
}

#endif
