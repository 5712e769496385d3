/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Guest memory may go away under us: who gave it may truncate its file, and
 * then touching it raises SIGBUS. Code that touches it runs under a guard:
 *
 *	sigjmp_buf out;
 *
 *	if (GUARD(out)) {
 *		guard_end();
 *		return -EIO; // memory went away
 *	}
 *	...
 *	guard_end();
 *
 * What the code between changes must lie in memory, not in local variables of
 * the function with the guard: a jump does not restore those.
 *
 * A SIGBUS that is sent to a thread under guard interrupts the system call it
 * waits in, and does nothing else.
 */
#ifndef VNETHASH_GUARD_H
#define VNETHASH_GUARD_H

#include <setjmp.h>

/* Catch SIGBUS; others' handlers get what is not for us. Returns 0 or -errno. */
int guard_install(void);

void guard_begin(sigjmp_buf *out);
void guard_end(void);

/* Until the guard ends no system call of this thread waits for long: it fails with EINTR. */
void guard_hurry(void);

/* 0 at first; 1 when the code that follows touched memory that went away. */
#define GUARD(out) (sigsetjmp(out, 0) ? 1 : (guard_begin(&(out)), 0))

#endif
