/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stddef.h>

/* The struct of @type in which @ptr points at @member. */
#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define ARRAY_LEN(array) (sizeof(array) / sizeof((array)[0]))

#endif
