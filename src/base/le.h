/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Byte order as a type.
 *
 * Numbers in guest memory, on the wire or in a SCSI command have a fixed byte
 * order. These types hold them in that order, and only the functions below
 * convert them, so that a forgotten conversion does not compile. Each type has
 * the alignment of the plain integer; copy a field out first if it may be
 * unaligned.
 */
#ifndef BASE_LE_H
#define BASE_LE_H

#include <endian.h>
#include <stdint.h>

/* clang-format off */
typedef struct { uint16_t raw; } le16;
typedef struct { uint32_t raw; } le32;
typedef struct { uint64_t raw; } le64;
typedef struct { uint16_t raw; } be16;
typedef struct { uint32_t raw; } be32;
typedef struct { uint64_t raw; } be64;

static inline uint16_t le16_to_cpu(le16 v) { return le16toh(v.raw); }
static inline uint32_t le32_to_cpu(le32 v) { return le32toh(v.raw); }
static inline uint64_t le64_to_cpu(le64 v) { return le64toh(v.raw); }
static inline uint16_t be16_to_cpu(be16 v) { return be16toh(v.raw); }
static inline uint32_t be32_to_cpu(be32 v) { return be32toh(v.raw); }
static inline uint64_t be64_to_cpu(be64 v) { return be64toh(v.raw); }

static inline le16 cpu_to_le16(uint16_t v) { return (le16){ htole16(v) }; }
static inline le32 cpu_to_le32(uint32_t v) { return (le32){ htole32(v) }; }
static inline le64 cpu_to_le64(uint64_t v) { return (le64){ htole64(v) }; }
static inline be16 cpu_to_be16(uint16_t v) { return (be16){ htobe16(v) }; }
static inline be32 cpu_to_be32(uint32_t v) { return (be32){ htobe32(v) }; }
static inline be64 cpu_to_be64(uint64_t v) { return (be64){ htobe64(v) }; }
/* clang-format on */

/*
 * Ring indices are shared with a driver that runs at the same time. An acquire
 * load pairs with the driver's barrier before it moved the index; a release
 * store makes all that was written before it visible first (virtio 2.7.13).
 */
static inline uint16_t le16_load_acquire(const le16 *p)
{
	return le16toh(__atomic_load_n(&p->raw, __ATOMIC_ACQUIRE));
}

static inline uint16_t le16_load(const le16 *p)
{
	return le16toh(__atomic_load_n(&p->raw, __ATOMIC_RELAXED));
}

static inline uint32_t le32_load(const le32 *p)
{
	return le32toh(__atomic_load_n(&p->raw, __ATOMIC_RELAXED));
}

static inline void le32_store(le32 *p, uint32_t v)
{
	__atomic_store_n(&p->raw, htole32(v), __ATOMIC_RELAXED);
}

static inline void le16_store_release(le16 *p, uint16_t v)
{
	__atomic_store_n(&p->raw, htole16(v), __ATOMIC_RELEASE);
}

static inline void le16_store(le16 *p, uint16_t v)
{
	__atomic_store_n(&p->raw, htole16(v), __ATOMIC_RELAXED);
}

#endif
