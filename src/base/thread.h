/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

/*
 * Start a thread that nobody waits for, with all signals blocked: they are for
 * the thread that runs the loop. 0 or -errno.
 */
int thread_start_detached(void *(*fn)(void *arg), void *arg);

#endif
