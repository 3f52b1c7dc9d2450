/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A PCI function in software: configuration space, BARs, MSI-X, MSI, INTx.
 *
 * It stands between two parties. The *embedder* owns the bus: it forwards the
 * guest's configuration and BAR accesses to the four entry points below and
 * gives a table of callbacks for interrupts and logging. The *device* (in
 * viodev always a virtio device, <viodev/virtio.h>) fills in identity,
 * capabilities and BARs and answers BAR accesses.
 *
 *     embedder                     function                 device
 *     pci_cfg_read/write  ---->  pi_cfg[256], masks  ---->  pd_cfgread/write
 *     pci_bar_read/write  ---->                      ---->  pd_barread/write
 *     ph_msix/msi/intx    <----  table, PBA, levels  <----  pci_generate_msix..
 *
 * Threads: one function is used by one thread at a time. A device whose own
 * threads give requests back has a lock for that, see pci_lock().
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
#define PCI_MAX_MSIX 2048 /* PCI 7.7.2: what Table Size can say */
#define PI_NAMESZ    40

/* What a device's pd_cfgread and pd_cfgwrite return. */
#define PE_CFGRW_DEFAULT (-1) /* not mine: the function serves it */
#define PE_CFGRW_DROP    0    /* served (a read's value is in *retval) */

struct pci_devinst;

/*
 * The embedder's side. Each callback may be NULL; @arg is pi_host_arg. They
 * are called on the thread that uses the function.
 */
struct pci_host {
	/*
	 * Send MSI-X vector @vector. @addr and @data are what the guest wrote
	 * to the table; they are 0 with ph_owns_msix_table.
	 */
	void (*ph_msix)(void *arg, unsigned vector, uint64_t addr,
			uint32_t data);
	/* Send the one MSI message. */
	void (*ph_msi)(void *arg, uint64_t addr, uint32_t data);
	/* The INTx pin changed its level. */
	void (*ph_intx)(void *arg, bool level);
	/*
	 * Something that was waited for has come about: memory that was
	 * removed is used no more (gm_reap()), the device is idle
	 * (pci_is_idle()), or chains can be taken again (pci_kick()). Look at
	 * these soon, from the thread that uses the function, not from here.
	 * May be called on any thread that gives chains back.
	 */
	void (*ph_wake)(void *arg);
	/* A line for the log, without newline; @level as in <syslog.h>. */
	void (*ph_log)(void *arg, int level, const char *msg);
	/*
	 * The embedder emulates the MSI-X table itself, so that the guest's
	 * writes to it never come here (vfio clients do): every vector counts
	 * as unmasked and is sent by number.
	 */
	bool ph_owns_msix_table;
	/*
	 * How many entries a device's queues should have, as far as it can,
	 * where its user did not say; 0 leaves it to the device.
	 */
	unsigned ph_queue_size;
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
	/* See pci_new_owner(); NULL: all counts as ended. */
	void (*pd_new_owner)(struct pci_devinst *pi);
	/* The lock of pci_lock(), or NULL. */
	pthread_mutex_t *(*pd_mutex)(struct pci_devinst *pi);
	/* Look at every queue once more: a gmem_ops call said -EAGAIN. */
	void (*pd_kick)(struct pci_devinst *pi);
	/*
	 * Whether a write there is a doorbell: it makes the device look at a
	 * queue and does nothing else, so that pd_kick() may stand in for it.
	 */
	bool (*pd_is_doorbell)(struct pci_devinst *pi, int baridx,
			       uint64_t offset, int size);
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

/* Embed or allocate it; pci_func_init() before, pci_func_fini() after use. */
struct pci_devinst {
	void *pi_arg; /* the device: a struct virtio_softc */
	const struct pci_dev *pi_dev;
	const struct pci_host *pi_host;
	void *pi_host_arg;
	struct gmem *pi_gmem; /* what the function may reach by DMA */

	/*
	 * bhyve's names, for the device's log lines and serial numbers. The
	 * embedder sets them after pci_func_init(), where they become 0 and
	 * empty; a server sets pi_name to its own name. The function does not
	 * use them.
	 */
	uint8_t pi_slot;         /* device number on the bus */
	uint8_t pi_func;         /* function number of the device */
	char pi_name[PI_NAMESZ]; /* ends with a 0 byte */

	/* Private to the function from here on. */
	uint8_t pi_cfg[PCI_CFG_SIZE];
	uint8_t pi_wmask[PCI_CFG_SIZE]; /* 1 bits: the guest may write */
	uint8_t pi_cap_last;            /* where the capability list ends */
	uint16_t pi_cap_free;           /* first free byte for another */
	struct pci_bar pi_bars[PCI_NR_BARS];
	struct pci_msix_entry *pi_msix; /* the table, pi_nr_msix entries */
	uint64_t *pi_pba;
	unsigned pi_nr_msix;
	int pi_msix_bar;
	uint8_t pi_msix_cap, pi_msi_cap; /* offsets, 0: none */
	bool pi_master_off;              /* the guest cleared Bus Master */
	bool pi_msi_pending;             /* raised meanwhile */
	bool pi_intx_pending;            /* what the device asserts */
	bool pi_intx_level;              /* what the pin shows */
	bool pi_resetting;               /* pci_is_reset() */
};

/*
 * --- The embedder's calls ---
 */

/*
 * Prepare a function without identity, capabilities or BARs. @host and @gm are
 * borrowed for the life of the function.
 */
void pci_func_init(struct pci_devinst *pi, const struct pci_host *host,
		   void *host_arg, struct gmem *gm);
void pci_func_fini(struct pci_devinst *pi);

/*
 * The guest reads or writes configuration space: 1, 2 or 4 bytes that do not
 * cross a dword. Anything else reads as all ones and is dropped.
 */
uint32_t pci_cfg_read(struct pci_devinst *pi, unsigned off, unsigned size);
void pci_cfg_write(struct pci_devinst *pi, unsigned off, unsigned size,
		   uint32_t val);

/*
 * The guest reads or writes @size bytes (1, 2, 4 or 8) at @off of a BAR. What
 * is outside of the BAR reads as all ones and is dropped. The embedder decides
 * whether decoding is enabled; the function does not ask.
 */
uint64_t pci_bar_read(struct pci_devinst *pi, int bar, uint64_t off, int size);
void pci_bar_write(struct pci_devinst *pi, int bar, uint64_t off, int size,
		   uint64_t val);

/*
 * Function reset: interrupts off, command register and BARs cleared, device
 * reset. Identity, capabilities and the embedder's callbacks stay.
 */
void pci_reset(struct pci_devinst *pi);

/*
 * Bring the device to a stop until it is reset: it takes no request any more.
 * Those in flight end in their own time; ph_wake() is called when all have,
 * and pci_is_idle() says so.
 */
void pci_quiesce(struct pci_devinst *pi);
bool pci_is_idle(struct pci_devinst *pi);

/*
 * Have the device give back the requests that only wait for something outside,
 * and with them the memory that they use. It takes them again when it is
 * kicked.
 */
void pci_give_back(struct pci_devinst *pi);

/*
 * Keep the device's own threads, where it has some, from using the function and
 * pi_gmem: to be held while pi_gmem is changed, or what ph_msix() and the like
 * use. Not across other calls of this list.
 */
void pci_lock(struct pci_devinst *pi);
void pci_unlock(struct pci_devinst *pi);
bool pci_has_lock(struct pci_devinst *pi);

/*
 * Whether the last reset is complete: nothing that was in flight before it uses
 * guest memory any more. ph_wake() is called when it is. An embedder that can
 * should not let the guest go on before that, for a while: drivers of the
 * legacy interface, and firmware after a reset of the machine, do not ask.
 */
static inline bool pci_is_reset(const struct pci_devinst *pi)
{
	return !__atomic_load_n(&pi->pi_resetting, __ATOMIC_ACQUIRE);
}

/*
 * After a reset: another driver, with other memory, has the function from here
 * on. What is still in flight for the one before does not count for later calls
 * of pci_is_reset().
 */
void pci_new_owner(struct pci_devinst *pi);

/* Have the device look at all its queues, as if each had been kicked. */
void pci_kick(struct pci_devinst *pi);

/* Bytes of a BAR, 0 when there is none, and its kind. */
uint64_t pci_bar_size(const struct pci_devinst *pi, int bar);
enum pci_bar_type pci_bar_type(const struct pci_devinst *pi, int bar);

/* How many MSI-X vectors, whether there is MSI, whether there is an INTx pin. */
unsigned pci_msix_count(const struct pci_devinst *pi);
bool pci_has_msi(const struct pci_devinst *pi);
bool pci_has_intx(const struct pci_devinst *pi);

/*
 * --- The device's calls ---
 */

/* Set who answers for this function. */
void pci_set_device(struct pci_devinst *pi, const struct pci_dev *dev,
		    void *arg);

/* Identity and other registers that the guest only reads (PCI 7.5.1). */
void pci_set_cfg8(struct pci_devinst *pi, unsigned off, uint8_t val);
void pci_set_cfg16(struct pci_devinst *pi, unsigned off, uint16_t val);
void pci_set_cfg32(struct pci_devinst *pi, unsigned off, uint32_t val);
uint8_t pci_get_cfg8(const struct pci_devinst *pi, unsigned off);
uint16_t pci_get_cfg16(const struct pci_devinst *pi, unsigned off);
uint32_t pci_get_cfg32(const struct pci_devinst *pi, unsigned off);

/* Let the guest write @len bytes at @off of configuration space. */
void pci_set_writable(struct pci_devinst *pi, unsigned off, unsigned len);

/*
 * Append a capability of @len bytes, whose first is the capability id; the
 * link in its second byte is filled in here. Returns its offset or -ENOSPC.
 */
int pci_add_cap(struct pci_devinst *pi, const void *cap, unsigned len);

/*
 * Give the function a BAR of at least @size bytes, rounded up to what the kind
 * allows. Returns 0, -EINVAL, or -EBUSY when it is taken.
 */
int pci_add_bar(struct pci_devinst *pi, int bar, enum pci_bar_type type,
		uint64_t size);

/*
 * Add MSI-X with @nr vectors, table and PBA in BAR @bar, which this makes.
 * Returns 0 or -errno. pci_add_msi() adds MSI with one 64-bit message;
 * pci_add_intx() the pin INTA.
 */
int pci_add_msix(struct pci_devinst *pi, unsigned nr, int bar);
int pci_add_msi(struct pci_devinst *pi);
void pci_add_intx(struct pci_devinst *pi);

/* Whether @bar is the one that pci_add_msix() made; access to it. */
bool pci_is_msix_bar(const struct pci_devinst *pi, int bar);
uint64_t pci_msix_read(struct pci_devinst *pi, uint64_t off, int size);
void pci_msix_write(struct pci_devinst *pi, uint64_t off, int size,
		    uint64_t val);

/* Requests of before a reset are still in flight, or none are; pci_is_reset() */
static inline void pci_set_resetting(struct pci_devinst *pi, bool on)
{
	__atomic_store_n(&pi->pi_resetting, on, __ATOMIC_RELEASE);
}

/* Have the embedder look at what changed: ph_wake(). */
void pci_wake(struct pci_devinst *pi);

/*
 * Interrupts. pci_generate_msix() does nothing for a vector outside of the
 * table (0xffff above all) and sets the pending bit for one that is masked or
 * must not be sent now.
 * pci_generate_msi() does nothing while MSI is off. The pin follows
 * assert/deassert while neither MSI-X nor MSI is on and the command register
 * does not disable it.
 */
bool pci_msix_enabled(struct pci_devinst *pi);
void pci_generate_msix(struct pci_devinst *pi, int vector);
void pci_generate_msi(struct pci_devinst *pi, int vector);
void pci_lintr_assert(struct pci_devinst *pi);
void pci_lintr_deassert(struct pci_devinst *pi);

/*
 * Whether the device may access guest memory and send messages. The guest
 * forbids it by clearing Bus Master of the command register (6.2.2): then
 * messages are pending, and when it sets the bit again they are sent and all
 * queues are looked at. A guest that never wrote the register may be one whose
 * embedder has no use for it: that is not a prohibition, nor is a reset.
 */
static inline bool pci_bus_master(const struct pci_devinst *pi)
{
	return !pi->pi_master_off;
}

/* A line for the embedder's log; to standard error when it has none. */
void pci_log(struct pci_devinst *pi, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void pci_vlog(struct pci_devinst *pi, int level, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

#ifdef __cplusplus
}
#endif

#endif
