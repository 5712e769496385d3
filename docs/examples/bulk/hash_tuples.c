// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Toeplitz hashes of tuples, as fast as this CPU can.
 *
 *	cc -O2 -I"$(python3 -c 'import vnethash; print(vnethash.get_include())')" \
 *		hash_tuples.c -o hash_tuples
 *	hash_tuples 12 < tuples > hashes
 *
 * Tuples of 8, 12, 32 or 36 bytes come in on standard input: addresses, then
 * ports, as they lie in a packet. Hashes go out, 4 bytes each, as the CPU has
 * them. A second argument chooses the method by its number in bulk.h; what was
 * taken is told on standard error.
 */
#include <bulk.h>
#include <stdio.h>
#include <stdlib.h>

enum { TUPLES = 4096 };

/* The key of the verification suite that network cards are tested with. */
static struct vnet_config config = {
	.hash_types = VNET_HASH_ALL,
	.key = { 0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
		 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
		 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
		 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa },
};

int main(int argc, char **argv)
{
	static __u8 tuples[TUPLES * VNET_INPUT_LEN];
	static __u32 hashes[TUPLES];
	int width = argc > 1 ? atoi(argv[1]) : 0;
	struct vnet_bulk bulk;
	size_t count;

	if (width < 1 || width > VNET_INPUT_LEN) {
		fprintf(stderr, "usage: hash_tuples WIDTH [METHOD] < tuples > hashes\n");
		return 2;
	}
	vnet_fill_tables(&config);
	vnet_bulk_init(&bulk, &config);
	if (argc > 2 && vnet_bulk_use(&bulk, atoi(argv[2]))) {
		fprintf(stderr, "this CPU cannot do method %s\n", argv[2]);
		return 1;
	}
	fprintf(stderr, "method %u\n", bulk.method);
	while ((count = fread(tuples, width, TUPLES, stdin))) {
		vnet_bulk_hash(&bulk, tuples, width, count, hashes);
		if (fwrite(hashes, sizeof(*hashes), count, stdout) < count)
			break;
	}
	return ferror(stdin) || fflush(stdout) ? 1 : 0;
}
