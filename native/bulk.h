/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/*
 * Toeplitz of many packets at once, in user space, with what this CPU has for
 * polynomials over GF(2):
 *
 *	struct vnet_config config = { .hash_types = VNET_HASH_ALL, .key = { ... } };
 *	struct vnet_bulk bulk;
 *
 *	vnet_fill_tables(&config);
 *	vnet_bulk_init(&bulk, &config);
 *	vnet_bulk_hash(&bulk, tuples, 12, count, hashes);
 *	vnet_bulk_frames(&bulk, memory, offsets, lengths, count, 0, hashes, reports);
 *
 * All methods give the same hashes; docs/bulk.md has how they work and how
 * fast they are.
 */
#ifndef VNETHASH_BULK_H
#define VNETHASH_BULK_H

#include "vnethash.h"

enum vnet_bulk_method {
	VNET_BULK_TABLES = 0,      /* byte by byte, on any CPU */
	VNET_BULK_PCLMUL = 1,      /* x86: PCLMULQDQ, SSSE3 */
	VNET_BULK_VPCLMUL_256 = 2, /* VPCLMULQDQ, AVX2 */
	VNET_BULK_VPCLMUL_512 = 3, /* VPCLMULQDQ, AVX-512 BW */
	VNET_BULK_GFNI_512 = 4,    /* GFNI, AVX-512 VBMI2 */
	VNET_BULK_PMULL = 5,       /* arm64: PMULL */
	VNET_BULK_METHODS = 6,
};

enum vnet_bulk_size {
	VNET_BULK_ROWS = 16,    /* tuples that a method takes at once */
	VNET_BULK_FRAMES = 128, /* frames that are dissected before they are hashed */
	VNET_BULK_AHEAD = 16,   /* frames between the one being dissected and the one fetched */
};

/* A key, prepared. What it refers to has to stay as it is. */
struct vnet_bulk {
	const struct vnet_config *config;
	__u32 method; /* enum vnet_bulk_method */
	/*
	 * For each 8 bytes of the input the key bits that meet them, as a polynomial
	 * times x: its coefficients 0 to 63, and from 64 on.
	 */
	__u64 low[6], high[6];
	/* What input byte i adds to hash byte j: the bit matrix i + j, rows last to first. */
	__u64 matrix[40];
};

#ifndef VNETHASH_CDEF
#include "key.h"

#if defined(__x86_64__)
#include "bulk_x86.h"
#elif defined(__aarch64__)
#include "bulk_arm64.h"
#else
vnet_inline int vnet_bulk_can(__u32 method)
{
	return method == VNET_BULK_TABLES;
}

vnet_inline int vnet_bulk_run(const struct vnet_bulk *bulk, const __u8 *rows, __u32 width,
			      __u64 count, __u32 *hashes)
{
	(void)bulk, (void)rows, (void)width, (void)count, (void)hashes;
	return 0;
}
#endif

/*
 * vnet_bulk_can(method): whether this CPU has what it takes.
 *
 * vnet_bulk_run(): hash whole blocks of VNET_BULK_ROWS rows; 0 if that is left
 * to the tables.
 */

/* Take `method` from now on. Returns 0, or -1 if this CPU cannot. */
vnet_inline int vnet_bulk_use(struct vnet_bulk *bulk, __u32 method)
{
	if (!vnet_bulk_can(method))
		return -1;
	bulk->method = method;
	return 0;
}

vnet_inline __u64 vnet_reverse_bits(__u64 bits)
{
	__u64 reversed = 0;

	for (int i = 0; i < 64; i++)
		reversed |= (bits >> i & 1) << (63 - i);
	return reversed;
}

/*
 * Prepare to hash by the key and tables of `config`, filled, with the fastest
 * method that this CPU has: the numbers grow with speed.
 */
vnet_inline void vnet_bulk_init(struct vnet_bulk *bulk, const struct vnet_config *config)
{
	const __u8 *key = config->key;

	bulk->config = config;
	for (__u32 i = 0; i < 5; i++) {
		__u64 bits = (__u64)vnet_key_window(key, 64 * i) << 32 |
			     vnet_key_window(key, 64 * i + 32);

		bulk->low[i] = vnet_reverse_bits(bits) << 1;
		bulk->high[i] = vnet_reverse_bits((__u64)vnet_key_window(key, 64 * i + 63) << 32);
	}
	for (__u32 i = 0; i < 40; i++) {
		bulk->matrix[i] = 0;
		for (__u32 row = 0; row < 8; row++)
			bulk->matrix[i] |= (__u64)(vnet_key_window(key, 8 * i + row) >> 24)
					   << 8 * row;
	}
	for (__u32 method = 0; method < VNET_BULK_METHODS; method++)
		vnet_bulk_use(bulk, method);
}

/* Row by row with the tables, which take words faster than bytes. */
vnet_inline void vnet_bulk_tables(const struct vnet_config *config, const __u8 *rows, __u32 width,
				  __u64 count, __u32 *hashes)
{
	for (__u64 row = 0; row < count; row++, rows += width) {
		__u32 hash = 0, i = 0;

		for (; i + 4 <= width; i += 4)
			hash ^= vnet_hash_word(config, i / 4, vnet_u32(rows + i));
		for (; i < width; i++)
			hash ^= config->toeplitz[i][rows[i]];
		hashes[row] = hash;
	}
}

/*
 * The hashes of `count` rows of `width` bytes, at most VNET_INPUT_LEN, without
 * gaps: addresses, then ports, as they lie in a packet (virtio 1.3,
 * 5.1.6.4.3). The widths of RSS are fast: 8, 12, 32, 36.
 */
vnet_inline void vnet_bulk_hash(const struct vnet_bulk *bulk, const __u8 *rows, __u32 width,
				__u64 count, __u32 *hashes)
{
	__u64 whole = count - count % VNET_BULK_ROWS;
	__u64 rest = count - whole;

	if (!vnet_bulk_run(bulk, rows, width, whole, hashes)) {
		switch (width) { /* each with its loop unrolled */
		case 8:
			vnet_bulk_tables(bulk->config, rows, 8, count, hashes);
			break;
		case 12:
			vnet_bulk_tables(bulk->config, rows, 12, count, hashes);
			break;
		case 32:
			vnet_bulk_tables(bulk->config, rows, 32, count, hashes);
			break;
		case 36:
			vnet_bulk_tables(bulk->config, rows, 36, count, hashes);
			break;
		default:
			vnet_bulk_tables(bulk->config, rows, width, count, hashes);
		}
	} else if (rest) {
		__u8 last[VNET_BULK_ROWS * VNET_INPUT_LEN] = {};
		__u32 last_hashes[VNET_BULK_ROWS];

		memcpy(last, rows + whole * width, rest * width);
		vnet_bulk_run(bulk, last, width, VNET_BULK_ROWS, last_hashes);
		memcpy(hashes + whole, last_hashes, rest * sizeof(*hashes));
	}
}

/* Tuples of one width that wait to be hashed, and whose they are. */
struct vnet_bulk_tuples {
	__u32 count;
	__u8 of[VNET_BULK_FRAMES];
	__u8 rows[VNET_BULK_FRAMES * VNET_INPUT_LEN];
};

vnet_inline void vnet_bulk_flush(const struct vnet_bulk *bulk,
				 const struct vnet_bulk_tuples *tuples, __u32 width, __u32 *hashes)
{
	__u32 found[VNET_BULK_FRAMES];

	vnet_bulk_hash(bulk, tuples->rows, width, tuples->count, found);
	for (__u32 i = 0; i < tuples->count; i++)
		hashes[tuples->of[i]] = found[i];
}

/*
 * Hash values and report types (enum vnet_report) of `count` frames that lie
 * at `offsets` of `memory`: a capture, a batch that was received. A frame
 * without a hash has value 0 and VNET_REPORT_NONE. `is_l3`: no Ethernet header.
 */
vnet_inline void vnet_bulk_frames(const struct vnet_bulk *bulk, const __u8 *memory,
				  const __u64 *offsets, const __u32 *lengths, __u64 count,
				  int is_l3, __u32 *hashes, __u8 *reports)
{
	const struct vnet_config *config = bulk->config;
	struct vnet_bulk_tuples v4, v6;

	for (__u64 done = 0; done < count; done += VNET_BULK_FRAMES) {
		__u32 some = count - done < VNET_BULK_FRAMES ? count - done : VNET_BULK_FRAMES;

		v4.count = 0;
		v6.count = 0;
		for (__u32 i = 0; i < some; i++) {
			__u64 ahead = done + i + VNET_BULK_AHEAD;
			struct vnet_frame frame = {
				.data = memory + offsets[done + i],
				.length = lengths[done + i],
				.is_l3 = is_l3,
				.tunnels = config->tunnels,
			};
			struct vnet_headers headers;
			const __u32 *address;
			__u32 rule, ports;
			__u8 *row;

			if (ahead < count) { /* the headers lie in one line or two */
				__builtin_prefetch(memory + offsets[ahead]);
				__builtin_prefetch(memory + offsets[ahead] + 63);
			}
			vnet_dissect(&frame, &headers);
			rule = config->rules[headers.kind];
			reports[done + i] = rule & VNET_RULE_REPORT;
			hashes[done + i] = 0;
			if (!(rule & VNET_RULE_REPORT))
				continue;
			/* Zeros add nothing: they stand for ports that are not hashed. */
			ports = rule & VNET_RULE_PORTS ? headers.ports : 0;
			if (headers.kind <= VNET_REPORT_UDPV4) {
				row = v4.rows + 12 * v4.count;
				v4.of[v4.count++] = i;
				memcpy(row, headers.address, 8);
				memcpy(row + 8, &ports, 4);
			} else {
				row = v6.rows + 36 * v6.count;
				v6.of[v6.count++] = i;
				address = rule & VNET_RULE_FINAL ? headers.final : headers.address;
				memcpy(row, address, 32);
				memcpy(row + 32, &ports, 4);
			}
		}
		vnet_bulk_flush(bulk, &v4, 12, hashes + done);
		vnet_bulk_flush(bulk, &v6, 36, hashes + done);
	}
}

#endif
#endif
