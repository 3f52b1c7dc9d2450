/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

/*
 * Start a detached thread with all signals blocked: the loop's thread handles
 * them. 0 or -errno.
 */
int thread_start_detached(void *(*fn)(void *arg), void *arg);

#endif
