/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A PCI function in software: configuration space, BARs, MSI-X, MSI, INTx.
 *
 * It stands between two parties. The *embedder* owns the bus: it forwards the
 * guest's configuration and BAR accesses to the four entry points below and
 * supplies callbacks for interrupts and logging. The *device* (in
 * viodev always a virtio device, <viodev/virtio.h>) fills in identity,
 * capabilities and BARs and answers BAR accesses.
 *
 *     embedder                     function                 device
 *     pci_cfg_read/write  ---->  pi_cfg[256], masks  ---->  pd_cfgread/write
 *     pci_bar_read/write  ---->                      ---->  pd_barread/write
 *     ph_msix/msi/intx    <----  table, PBA, levels  <----  pci_generate_msix..
 *
 * Threads: one thread at a time uses a function. A device whose own threads
 * complete requests has a lock for that, see pci_lock().
 *
 * Errors: -errno.
 */
#ifndef VIODEV_PCI_H
#define VIODEV_PCI_H

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viodev/gmem.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PCI_CFG_SIZE 256
#define PCI_NR_BARS  6
#define PCI_MAX_MSIX 2048 /* PCIe 7.7.2: the largest Table Size */
#define PI_NAMESZ    40

/* What a device's pd_cfgread and pd_cfgwrite return. */
#define PE_CFGRW_DEFAULT (-1) /* the function handles the access */
#define PE_CFGRW_DROP    0    /* handled; a read's value is in *retval */

struct pci_devinst;

/*
 * The embedder's side. Each callback may be NULL; @arg is pi_host_arg. Except
 * for ph_wake(), they run on the thread that uses the function, or on a thread
 * of the device that holds pci_lock().
 */
struct pci_host {
	/*
	 * Send MSI-X vector @vector. @addr and @data are what the guest wrote
	 * to the table; they are 0 with ph_owns_msix_table.
	 */
	void (*ph_msix)(void *arg, unsigned vector, uint64_t addr,
			uint32_t data);
	/* Send the MSI message. */
	void (*ph_msi)(void *arg, uint64_t addr, uint32_t data);
	/* The INTx pin changed to @level. */
	void (*ph_intx)(void *arg, bool level);
	/*
	 * A condition that the embedder may wait for was met: removed memory
	 * is no longer used (gm_reap()), the device is idle (pci_is_idle()),
	 * the reset is complete (pci_is_reset()), or chains can be taken again
	 * (pci_kick()). Check these soon, on the thread that uses the
	 * function, not inside this callback. It may run on any thread that
	 * gives chains back.
	 */
	void (*ph_wake)(void *arg);
	/* A line for the log, without newline; @level as in <syslog.h>. */
	void (*ph_log)(void *arg, int level, const char *msg);
	/*
	 * The embedder emulates the MSI-X table itself, as vfio clients do:
	 * the guest's writes to the table do not reach the function. Every
	 * vector counts as unmasked and is sent by number.
	 */
	bool ph_owns_msix_table;
	/*
	 * Preferred number of entries of the device's queues, for a device
	 * whose user did not choose; 0: the device's default.
	 */
	unsigned ph_queue_size;
	/*
	 * A driver's addresses may be those of an IOMMU, which the embedder
	 * translates: devices offer ACCESS_PLATFORM to modern drivers.
	 */
	bool ph_iommu;
	/*
	 * Every doorbell is a pci_bar_write() of the driver's own width and
	 * value, not an eventfd: devices offer NOTIFICATION_DATA to modern
	 * drivers.
	 */
	bool ph_doorbell_data;
};

/* The device's side, given to pci_set_device(). */
struct pci_dev {
	int (*pd_cfgread)(struct pci_devinst *pi, int offset, int bytes,
			  uint32_t *retval);
	int (*pd_cfgwrite)(struct pci_devinst *pi, int offset, int bytes,
			   uint32_t val);
	uint64_t (*pd_barread)(struct pci_devinst *pi, int baridx,
			       uint64_t offset, int size);
	void (*pd_barwrite)(struct pci_devinst *pi, int baridx, uint64_t offset,
			    int size, uint64_t value);
	/* Function reset: return to the state after power-on. */
	void (*pd_reset)(struct pci_devinst *pi);
	/* See pci_quiesce(), pci_is_idle(), pci_give_back(). */
	void (*pd_quiesce)(struct pci_devinst *pi);
	bool (*pd_is_idle)(struct pci_devinst *pi);
	void (*pd_give_back)(struct pci_devinst *pi);
	/* See pci_new_owner(); NULL: all requests count as ended. */
	void (*pd_new_owner)(struct pci_devinst *pi);
	/* The lock of pci_lock(), or NULL. */
	pthread_mutex_t *(*pd_mutex)(struct pci_devinst *pi);
	/*
	 * Check every queue again, see pci_kick(). With @missed, the function
	 * is a bus master again: only queues that missed a doorbell meanwhile.
	 */
	void (*pd_kick)(struct pci_devinst *pi, bool missed);
	/*
	 * Whether a write there is a doorbell: it only makes the device check
	 * a queue, so that pd_kick() can replace it.
	 */
	bool (*pd_is_doorbell)(struct pci_devinst *pi, int baridx,
			       uint64_t offset, int size);
	/* See pci_poll() and, with @arm, pci_arm(). */
	bool (*pd_poll)(struct pci_devinst *pi, bool arm);
	/* pci_bus_master() may have changed. Called with pci_lock() held. */
	void (*pd_bus_master)(struct pci_devinst *pi, bool on);
};

enum pci_bar_type {
	PCI_BAR_NONE,
	PCI_BAR_IO,
	PCI_BAR_MEM32,
	PCI_BAR_MEM64, /* takes this BAR and the next */
};

struct pci_bar {
	enum pci_bar_type type;
	uint64_t size; /* bytes, a power of two */
};

struct pci_msix_entry {
	uint64_t addr;
	uint32_t data;
	uint32_t ctrl; /* bit 0: masked */
};

/* The caller allocates it, and calls pci_func_init() and pci_func_fini(). */
struct pci_devinst {
	void *pi_arg; /* the device: a struct virtio_softc */
	const struct pci_dev *pi_dev;
	const struct pci_host *pi_host;
	void *pi_host_arg;
	struct gmem *pi_gmem; /* guest memory that the device may access */

	/*
	 * bhyve's names, for log lines and serial numbers of the device.
	 * pci_func_init() clears them and the embedder sets them; a server
	 * sets pi_name to its own name. The function does not use them.
	 */
	uint8_t pi_slot;         /* device number on the bus */
	uint8_t pi_func;         /* function number of the device */
	char pi_name[PI_NAMESZ]; /* ends with a 0 byte */

	/* Private to the function from here on. */
	uint8_t pi_cfg[PCI_CFG_SIZE];
	uint8_t pi_wmask[PCI_CFG_SIZE]; /* 1 bits: the guest may write */
	uint8_t pi_cap_last;            /* offset of the last capability */
	uint16_t pi_cap_free;           /* offset of the first free byte */
	struct pci_bar pi_bars[PCI_NR_BARS];
	struct pci_msix_entry *pi_msix; /* the table, pi_nr_msix entries */
	uint64_t *pi_pba;
	unsigned pi_nr_msix;
	int pi_msix_bar;
	uint8_t pi_msix_cap, pi_msi_cap; /* offsets, 0: none */
	bool pi_master_off;              /* the guest cleared Bus Master */
	bool pi_msi_pending;             /* generated while it was clear */
	bool pi_intx_pending;            /* the device asserts INTx */
	bool pi_intx_level;              /* level of the pin */
	bool pi_resetting;               /* pci_is_reset() */
};

/*
 * --- The embedder's calls ---
 */

/*
 * Initialise a function without identity, capabilities or BARs. @host and @gm
 * must outlive it. pci_func_fini() frees what the function allocated.
 */
void pci_func_init(struct pci_devinst *pi, const struct pci_host *host,
		   void *host_arg, struct gmem *gm);
void pci_func_fini(struct pci_devinst *pi);

/*
 * The guest accesses configuration space: 1, 2 or 4 bytes that do not cross a
 * dword. Any other read returns all ones, any other write is ignored. After a
 * write that clears Bus Master, requests in flight still use guest memory until
 * pci_is_idle(), when ph_wake() is called: delay the guest until then.
 */
uint32_t pci_cfg_read(struct pci_devinst *pi, unsigned off, unsigned size);
void pci_cfg_write(struct pci_devinst *pi, unsigned off, unsigned size,
		   uint32_t val);

/*
 * The guest accesses @size bytes (1, 2, 4 or 8) at @off of a BAR. A read
 * outside the BAR returns all ones, a write there is ignored. The embedder
 * checks whether decoding is enabled; the function does not.
 */
uint64_t pci_bar_read(struct pci_devinst *pi, int bar, uint64_t off, int size);
void pci_bar_write(struct pci_devinst *pi, int bar, uint64_t off, int size,
		   uint64_t val);

/*
 * Function reset: disable interrupts, clear the command register and the BARs,
 * reset the device. Identity, capabilities and the embedder's callbacks stay.
 */
void pci_reset(struct pci_devinst *pi);

/*
 * Stop the device until it is reset: it takes no further requests. Those in
 * flight end in their own time. When all have ended, pci_is_idle() returns true
 * and ph_wake() is called.
 */
void pci_quiesce(struct pci_devinst *pi);
bool pci_is_idle(struct pci_devinst *pi);

/*
 * Make the device give back requests that only wait for the outside world, and
 * with them the memory that they use. It takes them again after pci_kick().
 */
void pci_give_back(struct pci_devinst *pi);

/*
 * Lock out the device's own threads, if any, from the function and pi_gmem.
 * Hold the lock while you change pi_gmem, or data that ph_msix() and its
 * siblings use, but not across other calls of this section. pci_has_lock()
 * tells whether the device has such a lock; without one, the other two do
 * nothing.
 */
void pci_lock(struct pci_devinst *pi);
void pci_unlock(struct pci_devinst *pi);
bool pci_has_lock(struct pci_devinst *pi);

/*
 * Whether the last reset is complete: no request from before it still uses
 * guest memory. ph_wake() is called when it is. An embedder should delay the
 * guest until then, within limits, because legacy drivers, and firmware after a
 * machine reset, do not check.
 */
static inline bool pci_is_reset(const struct pci_devinst *pi)
{
	return !__atomic_load_n(&pi->pi_resetting, __ATOMIC_ACQUIRE);
}

/*
 * After a reset: another driver, with other memory, owns the function from now
 * on. Requests in flight of the previous owner no longer count for
 * pci_is_reset().
 */
void pci_new_owner(struct pci_devinst *pi);

/* Make the device check all its queues, as if the driver had kicked each. */
void pci_kick(struct pci_devinst *pi);

/*
 * For an embedder that polls the queues from one thread. After pci_poll(), the
 * driver's doorbells stay off for queues that were served. pci_poll() looks at
 * these queues, and serves those with new chains. Before the thread sleeps,
 * pci_arm() turns doorbells on and looks a last time. Both return whether there
 * was anything to serve; if pci_arm() returns true, the thread must not sleep.
 */
bool pci_poll(struct pci_devinst *pi);
bool pci_arm(struct pci_devinst *pi);

/* The size of a BAR in bytes, 0 when there is none, and its type. */
uint64_t pci_bar_size(const struct pci_devinst *pi, int bar);
enum pci_bar_type pci_bar_type(const struct pci_devinst *pi, int bar);

/* The number of MSI-X vectors; whether the function has MSI, an INTx pin. */
unsigned pci_msix_count(const struct pci_devinst *pi);
bool pci_has_msi(const struct pci_devinst *pi);
bool pci_has_intx(const struct pci_devinst *pi);

/*
 * --- The device's calls ---
 */

/* Connect the device: @dev must outlive the function, @arg is pi_arg. */
void pci_set_device(struct pci_devinst *pi, const struct pci_dev *dev,
		    void *arg);

/* Identity and other registers that the guest only reads (PCIe 7.5.1). */
void pci_set_cfg8(struct pci_devinst *pi, unsigned off, uint8_t val);
void pci_set_cfg16(struct pci_devinst *pi, unsigned off, uint16_t val);
void pci_set_cfg32(struct pci_devinst *pi, unsigned off, uint32_t val);
uint8_t pci_get_cfg8(const struct pci_devinst *pi, unsigned off);
uint16_t pci_get_cfg16(const struct pci_devinst *pi, unsigned off);
uint32_t pci_get_cfg32(const struct pci_devinst *pi, unsigned off);

/* Let the guest write @len bytes at @off of configuration space. */
void pci_set_writable(struct pci_devinst *pi, unsigned off, unsigned len);

/*
 * Append a capability of @len bytes. Its first byte is the capability id; the
 * link in the second byte is filled in here. Returns its offset, or -ENOSPC.
 */
int pci_add_cap(struct pci_devinst *pi, const void *cap, unsigned len);

/*
 * Add a BAR of at least @size bytes, rounded up to a size that the type allows.
 * Returns 0, -EINVAL, or -EBUSY when the BAR exists.
 */
int pci_add_bar(struct pci_devinst *pi, int bar, enum pci_bar_type type,
		uint64_t size);

/*
 * Add MSI-X with @nr vectors, and BAR @bar for its table and PBA. Returns 0 or
 * -errno. pci_add_msi() adds MSI with one message and a 64-bit address,
 * pci_add_intx() the pin INTA.
 */
int pci_add_msix(struct pci_devinst *pi, unsigned nr, int bar);
int pci_add_msi(struct pci_devinst *pi);
void pci_add_intx(struct pci_devinst *pi);

/* Whether @bar is the BAR of pci_add_msix(); accesses to it. */
bool pci_is_msix_bar(const struct pci_devinst *pi, int bar);
uint64_t pci_msix_read(struct pci_devinst *pi, uint64_t off, int size);
void pci_msix_write(struct pci_devinst *pi, uint64_t off, int size,
		    uint64_t val);

/* Set what pci_is_reset() returns: @on while requests remain in flight. */
static inline void pci_set_resetting(struct pci_devinst *pi, bool on)
{
	__atomic_store_n(&pi->pi_resetting, on, __ATOMIC_RELEASE);
}

/* Call ph_wake(). */
void pci_wake(struct pci_devinst *pi);

/*
 * Interrupts. pci_generate_msix() ignores vectors outside the table (such as
 * VIRTIO_MSI_NO_VECTOR, 0xffff) and sets the pending bit of a vector that is
 * masked or that Bus Master forbids. pci_generate_msi() does nothing while MSI
 * is disabled. The pin follows assert and deassert while MSI-X and MSI are
 * disabled and the command register does not disable INTx.
 */
bool pci_msix_enabled(struct pci_devinst *pi);
void pci_generate_msix(struct pci_devinst *pi, int vector);
void pci_generate_msi(struct pci_devinst *pi, int vector);
void pci_lintr_assert(struct pci_devinst *pi);
void pci_lintr_deassert(struct pci_devinst *pi);

/*
 * Whether the device may access guest memory and send messages. The guest
 * forbids both by clearing Bus Master in the command register (PCI 3.0, 6.2.2).
 * Messages are then pending; when the guest sets the bit again, they are sent
 * and all queues are checked. The bit counts as set until the guest first
 * clears it, and after a reset, because some embedders do not forward the
 * register.
 */
static inline bool pci_bus_master(const struct pci_devinst *pi)
{
	return !pi->pi_master_off;
}

/* Log a line by ph_log(), or to standard error when that is NULL. */
void pci_log(struct pci_devinst *pi, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void pci_vlog(struct pci_devinst *pi, int level, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

#ifdef __cplusplus
}
#endif

#endif
