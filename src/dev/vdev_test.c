/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices as an embedder uses them, <viodev/device.h>: create, query, free. */
#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <viodev/device.h>
#include <viodev/loop.h>
#include <viodev/pci.h>

#include "core/core.h"
#include "dev/vdev.h"

struct fixture {
	struct gmem gm;
	struct pci_host host;
	struct pci_devinst pi;
	struct vio_loop *loop;
	struct vdev *dev;
	char image[40];
	char why[200];
	struct json_object *reply;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	strcpy(f->image, "/tmp/vdev_test.XXXXXX");
	fd = mkstemp(f->image);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
	gm_init(&f->gm, NULL, NULL);
	f->host.ph_owns_msix_table = true;
	pci_func_init(&f->pi, &f->host, NULL, &f->gm);
	assert_int_equal(vio_loop_create(&f->loop), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	json_object_put(f->reply);
	vdev_destroy(f->dev);
	vio_loop_destroy(f->loop);
	pci_func_fini(&f->pi);
	gm_fini(&f->gm);
	unlink(f->image);
	free(f);
	return 0;
}

static int make(struct fixture *f, const char *more)
{
	char text[80];

	snprintf(text, sizeof(text), "block,path=%s%s", f->image, more);
	return vdev_new(text, &f->pi, f->loop, &f->dev, f->why, sizeof(f->why));
}

static void make_disk(struct fixture *f)
{
	assert_int_equal(make(f, ""), 0);
}

static int run(struct fixture *f, int argc, const char *const argv[])
{
	char *text = NULL;
	int ret =
		vdev_command(f->dev, argc, argv, &text, f->why, sizeof(f->why));

	json_object_put(f->reply);
	f->reply = text ? json_tokener_parse(text) : NULL;
	free(text);
	return ret;
}

#define RUN(f, ...)                                                      \
	run(f, sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *), \
	    (const char *[]){ __VA_ARGS__, NULL })

static struct json_object *get(struct fixture *f, const char *key)
{
	struct json_object *value;

	assert_true(json_object_object_get_ex(f->reply, key, &value));
	return value;
}

static void test_status(void **state)
{
	struct fixture *f = *state;

	make_disk(f);
	assert_int_equal(RUN(f, "status"), 0);
	assert_string_equal(json_object_get_string(get(f, "type")), "block");
	assert_string_equal(json_object_get_string(get(f, "driver")), "none");
	assert_int_equal(json_object_array_length(get(f, "queues")), 1);
}

static void test_command(void **state)
{
	struct fixture *f = *state;

	make_disk(f);
	assert_int_equal(truncate(f->image, 2 << 20), 0);
	assert_int_equal(RUN(f, "resize", "2M"), 0);
	assert_int_equal(RUN(f, "status"), 0);
	assert_int_equal(json_object_get_int64(get(f, "capacity")), 2 << 20);
}

static void test_errors(void **state)
{
	struct fixture *f = *state;

	make_disk(f);
	assert_int_equal(RUN(f, "resize", "none"), -EINVAL);
	assert_non_null(strstr(f->why, "SIZE, such as"));
	assert_null(f->reply);
	assert_int_equal(RUN(f, "fly"), -EINVAL);
	assert_non_null(strstr(f->why, "fly"));
	assert_int_equal(RUN(f, "status", "now"), -EINVAL);
}

static bool offers_iommu(struct fixture *f, bool modern)
{
	return vi_offer(f->dev->vs, modern) & VI_BIT(VIRTIO_F_ACCESS_PLATFORM);
}

/* Without an IOMMU, iommu=on has no effect. */
static void test_no_iommu(void **state)
{
	struct fixture *f = *state;

	make_disk(f);
	assert_false(offers_iommu(f, true));
}

/* FEAT-11, AP-01, AP-04 */
static void test_iommu(void **state)
{
	struct fixture *f = *state;

	f->host.ph_iommu = true;
	make_disk(f);
	assert_true(offers_iommu(f, true));
	assert_false(offers_iommu(f, false));
}

static void test_iommu_off(void **state)
{
	struct fixture *f = *state;

	f->host.ph_iommu = true;
	assert_int_equal(make(f, ",mode=legacy,iommu=on"), -EINVAL);
	assert_non_null(strstr(f->why, "iommu=on"));
	assert_int_equal(make(f, ",iommu=off"), 0);
	assert_false(offers_iommu(f, true));
}

static bool offers_packed(struct fixture *f, bool modern)
{
	return vi_offer(f->dev->vs, modern) & VI_BIT(VIRTIO_F_RING_PACKED);
}

static void test_packed(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(make(f, ",mode=legacy,packed=on"), -EINVAL);
	assert_non_null(strstr(f->why, "packed=on"));
	assert_int_equal(make(f, ",packed=on"), 0);
	assert_true(offers_packed(f, true));
	assert_false(offers_packed(f, false));
}

static void test_packed_off(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(make(f, ",packed=off"), 0);
	assert_false(offers_packed(f, true));
}

static void test_in_order(void **state)
{
	struct fixture *f = *state;
	const uint64_t bit = VI_BIT(VIRTIO_F_IN_ORDER);

	assert_int_equal(make(f, ",mode=legacy,in-order=on"), -EINVAL);
	assert_non_null(strstr(f->why, "in-order=on"));
	assert_int_equal(make(f, ",in-order=on"), 0);
	assert_true(vi_offer(f->dev->vs, true) & bit);
	assert_false(vi_offer(f->dev->vs, false) & bit);
}

static void test_in_order_off(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(make(f, ""), 0);
	assert_false(vi_offer(f->dev->vs, true) & VI_BIT(VIRTIO_F_IN_ORDER));
}

static bool count_poll(void *arg)
{
	++*(unsigned *)arg;
	return false;
}

static void test_poll_option(void **state)
{
	struct fixture *f = *state;
	unsigned nr_polls = 0;
	struct vio_poller poller = { .poll = count_poll, .arg = &nr_polls };

	assert_int_equal(make(f, ",poll=1000001"), -EINVAL);
	assert_int_equal(make(f, ",poll=20000"), 0);
	vio_poller_add(f->loop, &poller);
	vio_loop_iterate(f->loop, 1);
	assert_true(nr_polls > 10); /* in 20 ms; without the option, 2 */
	vio_poller_remove(f->loop, &poller);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_status),      TEST(test_command),
		TEST(test_errors),      TEST(test_no_iommu),
		TEST(test_iommu),       TEST(test_iommu_off),
		TEST(test_packed),      TEST(test_packed_off),
		TEST(test_in_order),    TEST(test_in_order_off),
		TEST(test_poll_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
