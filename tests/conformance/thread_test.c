/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Driver and device at the same time, each in a thread of its own. To be run
 * under ThreadSanitizer too: all that both touch are ring memory, by the
 * rules of 2.7.13, and the two doorbells here.
 */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "tdev.h"

#define NR_BUFFERS   100000u
#define NR_RACES     100000u
#define NR_POLLS     10 /* before a sleep */
#define RACE_SECONDS 3  /* at most, on a machine that has other work */
#define PATIENCE_S   20 /* a wake-up that has not come by then is lost */

static struct tdev t;
static struct vdrv *const d = &t.d;

static unsigned bell;    /* driver to device */
static bool driver_done; /* the device thread ends */

static bool sleep_until(const unsigned *p, unsigned seen, const bool *stop)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (__atomic_load_n(p, __ATOMIC_ACQUIRE) == seen) {
		if (stop && __atomic_load_n(stop, __ATOMIC_ACQUIRE))
			return true;
		sched_yield();
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - start.tv_sec > PATIENCE_S)
			return false;
	}
	return true;
}

/*
 * As a server does it: doorbells are off while the device polls, and on before
 * it sleeps.
 */
static void *polling_thread(void *arg)
{
	unsigned seen = 0, now;

	while (!__atomic_load_n(&driver_done, __ATOMIC_ACQUIRE)) {
		bool any = false;

		for (unsigned i = 0; i < NR_POLLS; i++)
			any |= pci_poll(&d->pi);
		if (any || pci_arm(&d->pi))
			continue;
		if (!sleep_until(&bell, seen, &driver_done))
			break;
		now = __atomic_load_n(&bell, __ATOMIC_ACQUIRE);
		pci_poll(&d->pi);
		if (now != seen)
			pci_kick(&d->pi);
		seen = now;
	}
	return NULL;
}

/* The device sleeps until there is a kick: none may be lost. */
static void *device_thread(void *arg)
{
	unsigned seen = 0;

	while (!__atomic_load_n(&driver_done, __ATOMIC_ACQUIRE)) {
		if (!sleep_until(&bell, seen, &driver_done))
			break;
		seen = __atomic_load_n(&bell, __ATOMIC_ACQUIRE);
		tdev_work(&t, 0);
	}
	return NULL;
}

struct stream {
	uint64_t out[64], in[64];  /* buffers, by place */
	uint32_t sent[64];         /* what is in them */
	unsigned place_of[1 << 8]; /* by head */
	unsigned free[64], nr_free;
	uint32_t nr_sent, nr_got;
};

static bool can_send(const struct stream *s)
{
	return s->nr_free && d->q[0].nr_free >= 2 && s->nr_sent < NR_BUFFERS;
}

static void send_some(struct stream *s, unsigned burst)
{
	while (burst-- && can_send(s)) {
		unsigned place = s->free[--s->nr_free];
		struct vdrv_buf bufs[] = {
			{ s->out[place], 4, VDRV_R },
			{ s->in[place], 4, VDRV_W },
		};

		s->sent[place] = s->nr_sent++ * 2654435761u;
		memcpy(vdrv_ptr(d, s->out[place], 4), &s->sent[place], 4);
		s->place_of[vdrv_add(d, 0, bufs, 2)] = place;
	}
}

static bool receive(struct stream *s)
{
	struct vdrv_used used;
	unsigned place;

	if (!vdrv_used(d, 0, &used))
		return false;
	place = s->place_of[used.id];
	assert_int_equal(used.len, 4);
	assert_memory_equal(vdrv_ptr(d, s->in[place], 4), &s->sent[place], 4);
	s->free[s->nr_free++] = place;
	s->nr_got++;
	return true;
}

/* The driver sleeps until there is an interrupt: none may be lost. */
static void stream(struct stream *s, unsigned burst)
{
	while (s->nr_got < NR_BUFFERS) {
		unsigned seen;

		send_some(s, burst);
		if (vdrv_kick_wanted(d, 0))
			__atomic_fetch_add(&bell, 1, __ATOMIC_RELEASE);
		vdrv_want_intr(d, 0, false);
		while (receive(s))
			;
		if (can_send(s))
			continue;
		seen = __atomic_load_n(&d->nr_msix[1], __ATOMIC_ACQUIRE);
		vdrv_want_intr(d, 0, true);
		if (receive(s) || s->nr_got == NR_BUFFERS)
			continue;
		if (!sleep_until(&d->nr_msix[1], seen, NULL))
			fail_msg("no interrupt, or no kick: %u of %u",
				 s->nr_got, s->nr_sent);
	}
}

/* SPLIT-13, SPLIT-20, SPLIT-21, PACKED-03, PACKED-05, PACKED-18, hostile F2, hostile D26, hostile S22. */
static void test_stream(void **state)
{
	static const struct {
		uint64_t features;
		unsigned burst;
		bool kicks_off;
		uint16_t qsize;
		bool polls;
	} rows[] = {
		{ V1, 1, true, 16 },
		{ V1, 8, true, 64 },
		{ V1, 64, false, 64 },
		{ V1 | EVENT_IDX, 1, true, 16 },
		{ V1 | EVENT_IDX, 8, true, 64 },
		{ V1 | EVENT_IDX, 64, true, 2 },
		{ V1 | EVENT_IDX, 8, false, 64 },
		{ V1 | PACKED, 1, true, 16 },
		{ V1 | PACKED, 64, false, 61 },
		{ V1 | PACKED | EVENT_IDX, 1, true, 16 },
		{ V1 | PACKED | EVENT_IDX, 8, true, 61 },
		{ V1 | PACKED | EVENT_IDX, 64, true, 2 },
		{ V1 | PACKED | EVENT_IDX, 8, false, 64 },
		{ V1, 1, true, 16, true },
		{ V1 | EVENT_IDX, 8, true, 64, true },
		{ V1 | EVENT_IDX, 1, true, 16, true },
		{ V1 | PACKED, 8, true, 61, true },
		{ V1 | PACKED | EVENT_IDX, 1, true, 16, true },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct stream s = { 0 };
		pthread_t thread;

		tdev_start(&t, VDRV_MODERN,
			   (struct tdev_opts){ .qsize = rows[i].qsize,
					       .more_modern = PACKED },
			   rows[i].features, 1);
		t.no_kicks_while_busy = rows[i].kicks_off;
		for (unsigned p = 0; p < ARRAY_LEN(s.out); p++) {
			s.out[p] = vdrv_alloc(d, 4, 4);
			s.in[p] = vdrv_alloc(d, 4, 4);
			s.free[s.nr_free++] = p;
		}
		bell = 0;
		driver_done = false;
		pthread_create(&thread, NULL,
			       rows[i].polls ? polling_thread : device_thread,
			       NULL);
		stream(&s, rows[i].burst);
		__atomic_store_n(&driver_done, true, __ATOMIC_RELEASE);
		pthread_join(thread, NULL);
		assert_false(vdrv_status(d) & NEEDS_RESET);
		tdev_fini(&t);
	}
}

/*
 * hostile S23, hostile D41: the guest resets and starts over while a thread of
 * the device works; the device's lock is vs_mtx.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *worker_thread(void *arg)
{
	while (!__atomic_load_n(&driver_done, __ATOMIC_ACQUIRE)) {
		pthread_mutex_lock(&lock);
		tdev_work(&t, 0);
		vq_devcfg_changed(&t.vs);
		pthread_mutex_unlock(&lock);
		sched_yield();
	}
	return NULL;
}

static void test_reset_under_load(void **state)
{
	struct vdrv_buf b;
	pthread_t thread;
	uint64_t mark;

	tdev_init(&t, VDRV_MODERN,
		  (struct tdev_opts){ .qsize = 64, .more_modern = PACKED });
	t.vs.vs_mtx = &lock;
	b = (struct vdrv_buf){ vdrv_alloc(d, 64, 1), 64, VDRV_W };
	mark = d->next_free;
	driver_done = false;
	pthread_create(&thread, NULL, worker_thread, NULL);
	for (int i = 0; i < 1000; i++) {
		/* Once status reads 0 the memory is the driver's again. */
		d->next_free = mark;
		assert_true(vdrv_start(
			d, V1 | (i & 1 ? EVENT_IDX : 0) | (i & 2 ? PACKED : 0),
			1));
		for (int n = 0; n < 32; n++)
			vdrv_add(d, 0, &b, 1);
		vdrv_kick(d, 0);
		if (i % 3 == 0)
			while (vdrv_used(d, 0, NULL))
				;
		vdrv_reset(d);
		memset(vdrv_ptr(d, mark, 8192), 0, 8192);
	}
	__atomic_store_n(&driver_done, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	tdev_fini(&t);
}

/*
 * Each side stores, then looks at what the other one stored: one of both sees
 * the other (2.7.10.1, 2.7.7.1), which takes a full barrier on each. Without
 * it a processor may look before others see its store: not often, so this is
 * done many times, both starting at once. The device's store waits behind
 * others, to memory that the driver's processor has, as buffers do.
 */
static struct race {
	unsigned started, ended; /* rounds */
	bool over;               /* the one that has started is the last */
	void (*device)(void);
	bool device_saw;
} race;

static struct {
	_Alignas(64) volatile unsigned v;
} buffers[56]; /* as many as a processor has stores under way */

static void write_buffers(unsigned v)
{
	for (size_t i = 0; i < ARRAY_LEN(buffers); i++)
		buffers[i].v = v;
}

/* Each on a processor of its own, where there are two: on the @nr-th of ours. */
static void pin(const cpu_set_t *ours, unsigned nr)
{
	cpu_set_t one;

	nr %= (unsigned)CPU_COUNT(ours);
	for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, ours) || nr-- > 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

static void spin_until(const unsigned *p, unsigned value)
{
	for (unsigned i = 0; __atomic_load_n(p, __ATOMIC_ACQUIRE) != value; i++)
		if (i > 10000) /* only one processor is ours */
			sched_yield();
}

/* So that the two meet at all kinds of places. */
static void dawdle(unsigned n)
{
	for (volatile unsigned i = n; i > 0; i--)
		;
}

static void *race_thread(void *arg)
{
	bool over = false;

	pin(arg, 1);
	for (unsigned i = 1; !over; i++) {
		spin_until(&race.started, i);
		over = race.over;
		dawdle(i * 30011 % 64);
		write_buffers(i);
		race.device();
		__atomic_store_n(&race.ended, i, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void run_race(uint64_t features, void (*device)(void),
		     void (*before)(void), bool (*driver)(void),
		     void (*after)(void))
{
	time_t start = time(NULL);
	pthread_t thread;
	cpu_set_t ours;
	bool over = false;

	sched_getaffinity(0, sizeof(ours), &ours);
	tdev_start(&t, VDRV_MODERN, (struct tdev_opts){ .more_modern = PACKED },
		   V1 | features, 1);
	t.hold = true;
	race = (struct race){ .device = device };
	pthread_create(&thread, NULL, race_thread, &ours);
	pin(&ours, 0);
	for (unsigned i = 1; !over; i++) {
		bool driver_saw;

		before();
		write_buffers(0);
		over = i == NR_RACES || time(NULL) - start > RACE_SECONDS;
		race.over = over;
		__atomic_store_n(&race.started, i, __ATOMIC_RELEASE);
		dawdle(i * 40503 % 1024);
		driver_saw = driver();
		spin_until(&race.ended, i);
		if (!driver_saw && !race.device_saw)
			fail_msg("round %u: neither saw the other", i);
		after();
	}
	pthread_join(thread, NULL);
	sched_setaffinity(0, sizeof(ours), &ours);
	tdev_fini(&t);
}

/* The driver adds a chain; the device asks for kicks, and looks. */
static void device_wants_kick(void)
{
	vq_kick_enable(&t.vq[0]);
	race.device_saw = vq_has_descs(&t.vq[0]);
}

static void kicks_off(void)
{
	vq_kick_disable(&t.vq[0]);
}

static bool driver_adds(void)
{
	vdrv_add(d, 0, &(struct vdrv_buf){ VDRV_MEM_BASE, 4, VDRV_W }, 1);
	return vdrv_kick_wanted(d, 0);
}

static void serve_one(void)
{
	assert_int_equal(tdev_take(&t, 0), 1);
	tdev_give(&t, 0, t.req.idx, 4);
	assert_true(vdrv_used(d, 0, NULL));
}

/* The device shows a used chain; the driver asks for interrupts, and looks. */
static unsigned nr_interrupts;

static void device_ends(void)
{
	vq_relchain_publish(&t.vq[0]);
	vq_endchains(&t.vq[0], 1);
	race.device_saw = d->nr_msix[1] != nr_interrupts;
}

static void use_one(void)
{
	nr_interrupts = d->nr_msix[1];
	vdrv_want_intr(d, 0, false);
	vdrv_add(d, 0, &(struct vdrv_buf){ VDRV_MEM_BASE, 4, VDRV_W }, 1);
	assert_int_equal(tdev_take(&t, 0), 1);
	vq_relchain_prepare(&t.vq[0], (uint16_t)t.req.idx, 4);
}

static bool driver_used;

static bool driver_wants_interrupt(void)
{
	vdrv_want_intr(d, 0, true);
	driver_used = vdrv_used(d, 0, NULL);
	return driver_used;
}

static void take_used(void)
{
	if (!driver_used)
		assert_true(vdrv_used(d, 0, NULL));
}

static void test_barriers(void **state)
{
	static const uint64_t features[] = {
		0,
		EVENT_IDX,
		PACKED,
		PACKED | EVENT_IDX,
	};

	for (size_t i = 0; i < ARRAY_LEN(features); i++) {
		run_race(features[i], device_wants_kick, kicks_off, driver_adds,
			 serve_one);
		run_race(features[i], device_ends, use_one,
			 driver_wants_interrupt, take_used);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_reset_under_load),
		cmocka_unit_test(test_barriers),
	};

	return cmocka_run_group_tests_name("thread", tests, NULL, NULL);
}
