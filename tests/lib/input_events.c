/* SPDX-License-Identifier: BSD-2-Clause */
#include "input_events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include "base/le.h"

#include <cmocka.h>

bool input_next_event(struct vdrv *d, uint64_t area, unsigned *ret_type,
		      unsigned *ret_code, int *ret_value)
{
	struct {
		le16 type, code;
		le32 value;
	} wire;
	struct vdrv_used used;

	if (!vdrv_used(d, 0, &used))
		return false;
	assert_int_equal(used.len, sizeof(wire));
	memcpy(&wire, vdrv_ptr(d, area + used.id * INPUT_SLOT_BYTES, 8), 8);
	*ret_type = le16_to_cpu(wire.type);
	*ret_code = le16_to_cpu(wire.code);
	*ret_value = (int)le32_to_cpu(wire.value);
	return true;
}

void input_expect(struct vdrv *d, uint64_t area, unsigned type, unsigned code,
		  int value)
{
	unsigned got_type, got_code;
	int got_value;

	if (!input_next_event(d, area, &got_type, &got_code, &got_value))
		fail_msg("no event, wanted %u %u", type, code);
	assert_int_equal(got_type, type);
	assert_int_equal(got_code, code);
	assert_int_equal(got_value, value);
}

void input_expect_none(struct vdrv *d, uint64_t area)
{
	unsigned type, code;
	int value;

	if (input_next_event(d, area, &type, &code, &value))
		fail_msg("event %u %u %d", type, code, value);
}
