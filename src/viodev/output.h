/* SPDX-License-Identifier: BSD-2-Clause */
/* Standard output, which scripts read. */
#ifndef VIODEV_OUTPUT_H
#define VIODEV_OUTPUT_H

#include <stdbool.h>

/* Write out what was printed. 0, or -errno after a line to the user. */
int output_flush(void);

/* Whether a line can be printed now, without waiting for the reader. */
bool output_has_room(void);

#endif
